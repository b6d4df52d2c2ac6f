/** The inverse graph: boxes that fold, captures across, importance and map beside; and its key. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Graph as GraphData, type GraphNode, report } from "./data";
import { type Box, type View, ancestors, pick, placeOf, view } from "./fold";
import { type Frame, type Placed, type Spot, place } from "./layout";
import { NodeDetail } from "./NodeDetail";
import { entry, graph, layer, picked, shells, unfolded } from "./state";
import { number, short } from "./words";

const ROOM = 26; // letters in a box

export function Graph() {
  const shown = graph.value;
  if (!shown) return null;
  return (
    <section class="graph" aria-label="Inverse graph">
      <h2>The inverse graph</h2>
      <p class="hint">
        Left: the network, from the image down. Right: what brings the features back up. Click a
        block to unfold it, a box to see what it does{report.entries.length > 0 && " and its map"}.
      </p>
      <Tools shown={shown} />
      <div class="graph-body">
        <Canvas shown={shown} />
        <NodeDetail shown={shown} />
      </div>
    </section>
  );
}

function Tools({ shown }: { shown: GraphData }) {
  const all = () => (unfolded.value = new Set(shown.blocks.map((block) => block.id)));
  const here = () => {
    const node = shown.nodes.find((n) => n.kind === "forward" && n.site === layer.value.name);
    if (node) unfolded.value = new Set(ancestors(shown, node.block ?? ""));
  };
  return (
    <div class="graph-tools">
      {report.entries.length > 0 && <button onClick={here}>Unfold the layer shown</button>}
      <button onClick={all}>Unfold all</button>
      <button onClick={() => (unfolded.value = new Set(shells(entry.value.model)))}>Fold all</button>
      <ul class="key" aria-label="Key">
        <li><i class="mark forward" /> forward</li>
        <li><i class="mark capture" /> captured</li>
        <li><i class="mark inverse" /> inverse</li>
        <li><i class="mark importance" /> importance Λ</li>
        <li><i class="mark map" /> map</li>
      </ul>
    </div>
  );
}

function Canvas({ shown }: { shown: GraphData }) {
  const seen = useMemo(() => view(shown, unfolded.value), [shown, unfolded.value]);
  const placed = useMemo(() => place(seen), [seen]);
  const room = useRef<HTMLDivElement>(null);
  const [chosen, setZoom] = useState<number | null>(null);
  const [width, setWidth] = useState(1000);
  const zoom = chosen ?? Math.min(1, Math.max(0.8, width / placed.width)); // all of it, if legible
  const current = currentRow(shown, seen);
  useEffect(() => {
    const watch = new ResizeObserver(() => setWidth(room.current!.clientWidth));
    watch.observe(room.current!);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    const spot = current && placed.spots.get(current);
    if (spot) keepInSight(room.current!, spot.y * zoom);
  }, [current, placed]);
  const boxes = [...seen.boxes.values()].filter((box) => placed.spots.has(box.id));
  const entrance = boxes.find((box) => holdsPicked(box)) ?? boxes[0];
  return (
    <div class="graph-room">
      <div class="zoom" role="group" aria-label="Size of the graph">
        <button aria-label="Smaller" onClick={() => setZoom(Math.max(0.4, zoom / 1.25))}>−</button>
        <button aria-label="Larger" onClick={() => setZoom(Math.min(2, zoom * 1.25))}>+</button>
      </div>
      <div class="graph-scroll" ref={room} tabindex={-1}>
        <svg
          width={placed.width * zoom}
          height={placed.height * zoom}
          viewBox={`0 0 ${placed.width} ${placed.height}`}
          role="group"
          aria-label="Boxes of the graph; arrow keys move between them, Enter opens one"
          onKeyDown={(event) => move(event, placed)}
        >
          {placed.frames.map((frame) => (
            <FrameOf key={`${frame.block} ${!frame.title}`} frame={frame} />
          ))}
          <Links placed={placed} />
          {boxes.map((box) => (
            <BoxOf
              key={box.id}
              box={box}
              spot={placed.spots.get(box.id)!}
              current={box.nodes.some((node) => node.site === layer.value.name)}
              entrance={box === entrance}
            />
          ))}
        </svg>
      </div>
    </div>
  );
}

/** The forward box of the layer shown, or of the folded block that it is in. */
function currentRow(shown: GraphData, seen: View): string | null {
  const name = layer.value.name;
  for (const box of seen.boxes.values()) {
    if (box.kind === "forward" && box.nodes.some((node) => node.site === name)) return box.id;
  }
  const node = shown.nodes.find((n) => n.site === name);
  return node ? placeOf(shown, node).id : null;
}

function keepInSight(room: HTMLElement, y: number): void {
  if (y < room.scrollTop + 40 || y > room.scrollTop + room.clientHeight - 40) {
    room.scrollTop = y - room.clientHeight / 2;
  }
}

const holdsPicked = (box: Box): boolean => box.nodes.some((node) => node.id === picked.value);

function Links({ placed }: { placed: Placed }) {
  return (
    <g aria-hidden="true">
      {placed.paths.map((path) => (
        <path
          key={`${path.source} ${path.target}`}
          class={`link ${path.kind}`}
          data-picked={path.source === picked.value || path.target === picked.value}
          d={path.d}
        />
      ))}
    </g>
  );
}

function FrameOf({ frame }: { frame: Frame }) {
  const left = frame.x - frame.width / 2;
  const top = frame.y - frame.height / 2;
  const fold = () => {
    const inside = (id: string) => id === frame.block || id.startsWith(`${frame.block}.`);
    unfolded.value = new Set([...unfolded.value].filter((id) => !inside(id)));
  };
  return (
    <g>
      <rect class="block-frame" x={left} y={top} width={frame.width} height={frame.height} rx={8} />
      {frame.title && (
        <g class="fold" role="button" tabindex={-1} aria-label={`Fold ${frame.block}`} onClick={fold}>
          <rect x={frame.title.x} y={top - 14} width={frame.title.width} height={18} rx={4} />
          <text x={frame.title.x + 8} y={top - 1}>
            ▾ {frame.block}
          </text>
        </g>
      )}
    </g>
  );
}

interface BoxProps {
  box: Box;
  spot: Spot;
  current: boolean;
  entrance: boolean;
}

function BoxOf({ box, spot, current, entrance }: BoxProps) {
  const open = () => {
    if (box.folded) unfolded.value = new Set([...unfolded.value, box.folded]);
    else pick(box.nodes[0]);
  };
  const chip = spot.width < 30;
  const words = title(box);
  return (
    <g
      class={`box ${box.kind}`}
      data-node={box.folded ? undefined : box.nodes[0].id}
      data-box={box.id}
      data-current={current}
      data-picked={holdsPicked(box)}
      data-folded={box.folded ? "" : undefined}
      role="button"
      tabindex={entrance ? 0 : -1}
      aria-label={`${box.kind}: ${words}${box.folded ? ", folded" : ""}`}
      aria-expanded={box.folded ? false : undefined}
      transform={`translate(${spot.x} ${spot.y})`}
      onClick={open}
    >
      <title>{hover(box)}</title>
      <rect
        x={-spot.width / 2}
        y={-spot.height / 2}
        width={spot.width}
        height={spot.height}
        rx={chip ? spot.height / 2 : 5}
      />
      {!chip && <text y={4}>{cut(words)}</text>}
    </g>
  );
}

/** A box's words: its layer and operator, or its block and how much is in it. */
function title(box: Box): string {
  if (box.folded) return `▸ ${box.folded} · ${box.nodes.length} ${box.kind === "inverse" ? "steps" : "layers"}`;
  const node = box.nodes[0];
  const name = short(node.name);
  if (box.kind === "inverse") return inverseTitle(node);
  return name === node.operator ? name : `${name} · ${node.operator ?? ""}`;
}

/** What is inverted, (conv + batch_norm)⁻¹, and how if there is room; or where Z is from else. */
function inverseTitle(node: GraphNode): string {
  if (node.how === "start" || node.how === "control") return `${short(node.name)}: Z = x`;
  const several = (node.operators?.length ?? 0) > 1;
  const operator = several ? `(${node.operator})⁻¹` : `${node.operator}⁻¹`;
  const whole = `${operator} · ${node.how}`;
  return whole.length > ROOM ? operator : whole;
}

function hover(box: Box): string {
  const node = box.nodes[0];
  if (box.folded) return `${box.kind} of ${box.folded}, ${box.nodes.length} nodes: click to unfold`;
  const measured = entry.value.layers.find((l) => l.name === node.site);
  const trust = box.kind === "inverse" && measured?.residual != null;
  return `${box.kind} ${node.id}${trust ? `, residual ${number(measured.residual)}` : ""}`;
}

const cut = (text: string): string => (text.length > ROOM ? `${text.slice(0, ROOM - 1)}…` : text);

const KEYS: Record<string, [number, number]> = {
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
};

/** Arrow keys: to the nearest box that way; Enter and space open. */
function move(event: KeyboardEvent, placed: Placed): void {
  const at = (event.target as Element).closest<SVGGElement>("[data-box]");
  if (!at) return;
  if (event.key === "Enter" || event.key === " ") {
    at.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  } else if (KEYS[event.key]) {
    const next = nearest(placed, at.dataset.box!, KEYS[event.key]);
    const escaped = next && CSS.escape(next);
    if (next) document.querySelector<SVGGElement>(`[data-box="${escaped}"]`)?.focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function nearest(placed: Placed, from: string, [dx, dy]: [number, number]): string | null {
  const here = placed.spots.get(from)!;
  let best: string | null = null;
  let least = Infinity;
  for (const [id, spot] of placed.spots) {
    const ahead = (spot.x - here.x) * dx + (spot.y - here.y) * dy;
    const aside = Math.abs((spot.x - here.x) * dy) + Math.abs((spot.y - here.y) * dx);
    if (ahead > 1 && ahead + 3 * aside < least) [best, least] = [id, ahead + 3 * aside];
  }
  return best;
}

