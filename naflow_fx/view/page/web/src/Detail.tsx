/** What is known of the shown layer: its numbers, its map as computed, Z as a picture, top channels. */
import { useEffect, useRef } from "preact/hooks";
import { box } from "./state";
import { energyInside } from "./box";
import { bytes, numbers } from "./data";
import { inverseOf, reveal } from "./fold";
import { type Size, paint, table } from "./paint";
import { colormap, entry, graph, layer } from "./state";
import { number, share, size } from "./words";

export function Detail() {
  const shown = layer.value;
  const inverse = graph.value && inverseOf(graph.value, shown.name);
  return (
    <section class="detail" aria-label={`Layer ${shown.name}`}>
      <h2>
        <code class="site">{shown.name}</code>
      </h2>
      <dl class="facts">
        <Fact name="Map" value={size(shown.shape)} />
        <Fact name="Largest value" value={number(shown.max)} />
        <Fact name="Spread" value={share(shown.spread)} hint="entropy, of the most it could be" />
        {shown.residual !== null && <Fact name="Residual" value={number(shown.residual)} />}
        {shown.norm_ratio !== null && <Fact name="Norm ratio" value={number(shown.norm_ratio)} />}
        {shown.abandoned !== null && <Fact name="Abandoned" value={share(shown.abandoned)} hint="of neurons" />}
        {box.value && <Fact name="In the box" value={share(energyInside(shown, box.value))} />}
      </dl>
      {inverse && (
        <button class="link" onClick={() => reveal(graph.value!, inverse)}>
          Its inverse in the graph
        </button>
      )}
      <div class="planes">
        <Cells title="Map as computed" values={numbers(shown)} shape={shown.shape} />
        {shown.held && (
          <figure class="plane">
            <img src={shown.held} style={scaling(shown.shape)} alt={`Z as a picture, layer ${shown.name}`} />
            <figcaption>Z as a picture</figcaption>
          </figure>
        )}
      </div>
      {shown.held && (
        <p class="hint">
          Z: what the inverse brings back of the photo, from the last features and from which neurons
          took part. In colours at the input, elsewhere its length over the channels.
        </p>
      )}
      {shown.channels && shown.channels.length > 0 && <Channels />}
    </section>
  );
}

function Fact({ name, value, hint }: { name: string; value: string; hint?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {value} {hint && <small>{hint}</small>}
      </dd>
    </div>
  );
}

function Channels() {
  return (
    <>
      <h3>Top channels</h3>
      <div class="planes small">
        {layer.value.channels!.map((one) => (
          <Cells
            key={one.index}
            title={`#${one.index}, ${share(one.share)}`}
            values={bytes(one.map)}
            of={255}
            shape={one.shape}
          />
        ))}
      </div>
    </>
  );
}

interface Plane {
  title: string;
  values: ArrayLike<number>;
  shape: Size;
  of?: number;
}

/** Cells as they are; of fine planes, which are drawn smaller, their mean. */
const scaling = (shape: Size) => ({ imageRendering: Math.max(...shape) > 112 ? "auto" : "pixelated" });

/** A plane with its cells to be seen. */
function Cells({ title, values, shape, of = 1 }: Plane) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = colormap.value;
  useEffect(() => {
    paint(canvas.current!, values, shape, shape, 1 / of, table(colours), false);
  }, [values, colours]);
  return (
    <figure class="plane">
      <canvas ref={canvas} style={scaling(shape)} role="img" aria-label={`${title}, layer ${layer.value.name}`} />
      <figcaption>{title.split(", ").map((part) => <span key={part}>{part}</span>)}</figcaption>
    </figure>
  );
}

/** What was explained and how, once for the whole page. */
export function About() {
  const one = entry.value;
  return (
    <section class="about" aria-label="What was explained">
      <p>
        Explained: <strong>{one.explained}</strong>
        {one.score !== null && <>, score {number(one.score)}</>}
      </p>
      {one.top.length > 0 && (
        <ol class="top">
          {one.top.map((row) => (
            <li key={row.name}>
              <span class="bar" style={{ width: `${100 * row.probability}%` }} />
              <span class="class">{row.name}</span>
              <span>{share(row.probability)}</span>
            </li>
          ))}
        </ol>
      )}
      <p class="options">{one.options}</p>
    </section>
  );
}
