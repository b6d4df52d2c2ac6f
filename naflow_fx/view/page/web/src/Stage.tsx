/** The photos, each with the map of the shown layer over it; a box can be drawn on any of them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type Box, between } from "./box";
import { type Entry, type Layer, numbers, report } from "./data";
import { type Drawn, type Size, paint, paintDifference, table } from "./paint";
import { alpha, box, colormap, focus, focusOn, layerOf, lessOf, several, shared } from "./state";
import { number, share, size } from "./words";

const PLAIN = 0.8; // least opacity of a difference: its white should not take the photo's colour
const FINEST = 448; // pixels of a drawn map; more is not seen

export function Stage() {
  const columns = Math.min(3, several ? Math.max(2, modelsOfAPhoto()) : 1);
  return (
    <section class="stage" aria-label="Photos with their attention maps" data-columns={columns}>
      {report.entries.map((one, index) => (
        <Card key={index} one={one} index={index} />
      ))}
    </section>
  );
}

/** The most entries that one photo has: its models stand side by side. */
function modelsOfAPhoto(): number {
  const names = report.entries.map((one) => report.photos[one.photo].name);
  const counts = names.map((name) => names.filter((other) => other === name).length);
  const most = Math.max(...counts);
  return most > 1 ? most : report.entries.length;
}

function Card({ one, index }: { one: Entry; index: number }) {
  const shown = one.layers[layerOf(index)];
  const current = several && focus.value === index;
  const photo = report.photos[one.photo];
  const model = report.models[one.model].name;
  return (
    <figure class="card" data-current={current} onPointerDown={() => several && focusOn(index)}>
      <figcaption class="card-head">
        {several ? (
          <button class="plain" aria-pressed={current} onClick={() => focusOn(index)}>
            <strong>{model}</strong> <span>{photo.name}</span>
          </button>
        ) : (
          <span>
            <strong>{model}</strong> <span>{photo.name}</span>
          </span>
        )}
        <Prediction one={one} />
      </figcaption>
      <Picture one={one} index={index} />
      <p class="card-foot">
        <code class="site">{shown.name}</code>
        <span>{size(shown.shape)}</span>
        {shown.residual !== null && <span>residual {number(shown.residual)}</span>}
        {lessOf(index) !== null && <Less index={index} />}
        {shown.max === 0 && <span class="flag">all zero</span>}
      </p>
    </figure>
  );
}

function Prediction({ one }: { one: Entry }) {
  const first = one.top[0];
  const same = first && one.explained === first.name;
  return (
    <span class="prediction">
      {one.explained}
      {same && <b> {share(first.probability)}</b>}
    </span>
  );
}

/** What is taken from the map that is shown. */
function Less({ index }: { index: number }) {
  const at = lessOf(index)!;
  const from = report.entries[at];
  return (
    <span class="less">
      minus {report.models[from.model].name}: <i class="more" /> more here, <i class="fewer" /> more there
    </span>
  );
}

function Picture({ one, index }: { one: Entry; index: number }) {
  const photo = report.photos[one.photo];
  const [height, width] = photo.size;
  return (
    <div class="picture" style={{ aspectRatio: `${width} / ${height}` }}>
      <img src={photo.source} alt={`Photo ${photo.name}`} draggable={false} />
      <Overlay one={one} index={index} size={photo.size} />
      <Drawing />
    </div>
  );
}

function Overlay({ one, index, size: full }: { one: Entry; index: number; size: Size }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = one.layers[layerOf(index)];
  const gain = gainOf(one, shown);
  const colours = colormap.value;
  const at = lessOf(index);
  const other = at === null ? null : report.entries[at].layers[layerOf(at)];
  useEffect(() => {
    const less = Math.min(1, FINEST / Math.max(...full));
    const to: Size = [Math.round(full[0] * less), Math.round(full[1] * less)];
    if (other) {
      paintDifference(canvas.current!, drawn(one, shown), drawn(report.entries[at!], other), to);
    } else paint(canvas.current!, numbers(shown), shown.shape, to, gain, table(colours));
  }, [shown, gain, colours, other]);
  return (
    <canvas
      ref={canvas}
      class="overlay"
      role="img"
      aria-label={`${other ? "Difference of attention maps" : "Attention map"} of ${shown.name}, ${size(shown.shape)}`}
      style={{ opacity: String(other ? Math.max(PLAIN, alpha.value) : alpha.value) }}
    />
  );
}

const drawn = (one: Entry, shown: Layer): Drawn => ({
  values: numbers(shown), from: shown.shape, gain: gainOf(one, shown),
});

/** What a stored map is multiplied by: 1, or its share of the entry's largest value. */
function gainOf(one: Entry, shown: Layer): number {
  const largest = Math.max(...one.layers.map((l) => l.max ?? 0));
  if (!largest) return 0;
  const mine = (shown.max ?? 0) / largest;
  return shared.value ? mine : Math.min(1, mine / 1e-7); // as flow.normalised()
}

/** The box, and the pointer that draws it: press, drag, let go; a click takes it away. */
function Drawing() {
  const [start, setStart] = useState<[number, number] | null>(null);
  const place = (event: PointerEvent): [number, number] => {
    const area = (event.currentTarget as Element).getBoundingClientRect();
    return [
      (event.clientX - area.left) / area.width,
      (event.clientY - area.top) / area.height,
    ];
  };
  return (
    <svg
      class="drawing"
      viewBox="0 0 1 1"
      preserveAspectRatio="none"
      aria-hidden="true"
      onPointerDown={(event) => {
        if (event.button) return;
        (event.currentTarget as Element).setPointerCapture(event.pointerId);
        setStart(place(event));
      }}
      onPointerMove={(event) => {
        if (start) box.value = between(...start, ...place(event)) ?? box.value;
      }}
      onPointerUp={(event) => {
        if (start && !between(...start, ...place(event))) box.value = null;
        setStart(null);
      }}
      onPointerCancel={() => setStart(null)}
    >
      {box.value && <Frame at={box.value} />}
    </svg>
  );
}

function Frame({ at }: { at: Box }) {
  const sides = { x: at.left, y: at.top, width: at.right - at.left, height: at.bottom - at.top };
  return (
    <>
      <rect class="frame-edge" {...sides} />
      <rect class="frame" {...sides} />
    </>
  );
}
