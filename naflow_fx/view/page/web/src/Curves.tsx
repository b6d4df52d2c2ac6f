/** Curves along depth, one chart a measure, one line an entry; a click shows that layer. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { type Box, energyInside } from "./box";
import { type Entry, type Layer, report } from "./data";
import { box, dark, entry, focus, go, several, step } from "./state";
import { number, share } from "./words";

interface Measure {
  name: string;
  note: string;
  of: (layer: Layer, box: Box | null) => number | null;
  text: (value: number | null) => string;
}

const MEASURES: Measure[] = [
  {
    name: "Spread",
    note: "entropy; 100 %: even, 0: one position",
    of: (l) => l.spread,
    text: share,
  },
  {
    name: "Scatter",
    note: "share outside of the largest part",
    of: (l) => l.scatter,
    text: share,
  },
  {
    name: "Agreement with the last map",
    note: "rank correlation, -1 to 1",
    of: (l) => l.agreement,
    text: number,
  },
  {
    name: "Energy inside the box",
    note: "share of the map's sum",
    of: (l, at) => at && energyInside(l, at),
    text: share,
  },
  {
    name: "Residual",
    note: "of the inverse; near 1: it explains little",
    of: (l) => l.residual,
    text: number,
  },
  {
    name: "Abandoned neurons",
    note: "share that took no part",
    of: (l) => l.abandoned,
    text: share,
  },
];

export function Curves() {
  const present = MEASURES.filter(
    (m) => m.name === "Energy inside the box" || report.entries.some((e) => known(e, m)),
  );
  return (
    <section class="curves" aria-label="Curves along depth">
      <h2>Along depth</h2>
      <p class="hint">
        From the input to the last layer. Click to show a layer.
        {!box.value && " Draw a box on a photo to follow the energy inside it."}
      </p>
      {several && <Legend />}
      <div class="charts">
        {present.map((measure) => (
          <Chart key={measure.name} measure={measure} />
        ))}
      </div>
      <Corners />
      <Numbers measures={present} />
    </section>
  );
}

const known = (one: Entry, measure: Measure): boolean =>
  one.layers.some((l) => measure.of(l, box.value) !== null);

export const label = (one: Entry): string =>
  several
    ? `${report.models[one.model].name}, ${report.photos[one.photo].name}`
    : report.models[one.model].name;

function Legend() {
  return (
    <ul class="legend">
      {report.entries.map((one, i) => (
        <li key={i} data-current={i === focus.value}>
          <i class={`line line-${i % 6}`} /> {label(one)}
        </li>
      ))}
    </ul>
  );
}

function Chart({ measure }: { measure: Measure }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const at = box.value;
  const empty = !report.entries.some((one) => known(one, measure));
  useEffect(() => {
    if (empty) return;
    const room = place.current!;
    const made = new uPlot(options(measure, room.clientWidth), data(measure, at), room);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: room.clientWidth, height: 120 }));
    watch.observe(room);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [measure, at, focus.value, dark.value, empty]);
  useEffect(() => plot.current?.redraw(false), [step.value]);
  const value = measure.of(entry.value.layers[step.value], at);
  return (
    <figure class="chart">
      <figcaption>
        <strong>{measure.name}</strong> <output>{empty ? "" : measure.text(value)}</output>
        <small>{measure.note}</small>
      </figcaption>
      {empty ? (
        <p class="empty">No box yet: drag on a photo, or give its sides below.</p>
      ) : (
        <div ref={place} class="plot" role="img" aria-label={summary(measure, at)} />
      )}
    </figure>
  );
}

/** Depth as the layer's number for one entry, in percent where depths differ. */
const depth = (one: Entry, i: number): number =>
  several ? (100 * i) / Math.max(1, one.layers.length - 1) : i + 1;

function data(measure: Measure, at: Box | null): uPlot.AlignedData {
  const tables = report.entries.map(
    (one): uPlot.AlignedData => [
      one.layers.map((_, i) => depth(one, i)),
      one.layers.map((l) => measure.of(l, at)),
    ],
  );
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

const css = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(measure: Measure, width: number): uPlot.Options {
  const axis = { stroke: () => css("--soft"), font: "11px system-ui", ticks: { show: false } };
  const grid = { stroke: () => css("--rule"), width: 1 };
  const bounded = measure.text === share;
  return {
    width,
    height: 120,
    legend: { show: false },
    cursor: { y: false, sync: { key: "depth" }, drag: { x: false, y: false } },
    scales: {
      x: { time: false },
      y: { range: (_, low, high) => (low < 0 ? [-1, 1] : [0, bounded ? 1 : Math.max(1, high * 1.05)]) },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 22, values: (_, v) => v.map((x) => (several ? `${x} %` : `${x}`)) },
      {
        ...axis,
        grid,
        size: 44,
        splits: (_, __, low, high) => [low, (low + high) / 2, high],
        values: (_, v) => v.map((y) => (bounded ? `${Math.round(100 * y)} %` : number(y))),
      },
    ],
    series: [
      {},
      ...report.entries.map((_, i) => ({
        stroke: () => css(`--line-${i % 6}`),
        width: !several || i === focus.value ? 2 : 1,
        spanGaps: true,
        points: { show: false },
      })),
    ],
    hooks: { draw: [mark], ready: [listen] },
  };
}

/** The line at the shown layer. */
function mark(plot: uPlot): void {
  const x = plot.valToPos(depth(entry.value, step.value), "x", true);
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = css("--accent");
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

function listen(plot: uPlot): void {
  plot.over.addEventListener("click", () => {
    const x = plot.posToVal(plot.cursor.left ?? 0, "x");
    go(several ? (x / 100) * (entry.value.layers.length - 1) : x - 1);
  });
}

function summary(measure: Measure, at: Box | null): string {
  const values = entry.value.layers.map((l) => measure.of(l, at)).filter((v) => v !== null);
  if (!values.length) return measure.name;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return (
    `${measure.name} of ${label(entry.value)} along depth: from ${measure.text(values[0])} to ` +
    `${measure.text(values.at(-1)!)}, between ${measure.text(low)} and ${measure.text(high)}`
  );
}

const SIDES = ["left", "top", "right", "bottom"] as const;

/** The box by numbers, for those who don't draw. */
function Corners() {
  const at = box.value;
  const set = (side: (typeof SIDES)[number], text: string) => {
    const value = Math.min(100, Math.max(0, Number(text))) / 100;
    box.value = { ...(at ?? { left: 0, top: 0, right: 1, bottom: 1 }), [side]: value };
  };
  return (
    <fieldset class="corners">
      <legend>Box, % of the photo</legend>
      {SIDES.map((side) => (
        <label key={side}>
          {side}
          <input
            type="number"
            min={0}
            max={100}
            value={at ? Math.round(100 * at[side]) : ""}
            onChange={(event) => set(side, event.currentTarget.value)}
          />
        </label>
      ))}
      <button disabled={!at} onClick={() => (box.value = null)}>
        Clear
      </button>
    </fieldset>
  );
}

function Numbers({ measures }: { measures: Measure[] }) {
  const shown = measures.filter((m) => known(entry.value, m));
  return (
    <details class="numbers">
      <summary>The same as a table{several && `: ${label(entry.value)}`}</summary>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              {shown.map((m) => (
                <th scope="col" key={m.name}>
                  {m.name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {entry.value.layers.map((l, i) => (
              <tr key={l.name} aria-current={i === step.value}>
                <th scope="row">
                  <button class="plain" onClick={() => go(i)}>
                    {l.name}
                  </button>
                </th>
                {shown.map((m) => (
                  <td key={m.name}>{m.text(m.of(l, box.value))}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
