/** Where the boxes stand: dagre lays out the forward graph, the inverse is its mirror image. */
import { type EdgeLabel, Graph as Dagre, type GraphLabel, type NodeLabel, layout } from "@dagrejs/dagre";
import type { Box, View } from "./fold";

export const WIDTH = 184;
export const HEIGHT = 28;
export const CHIP = 22; // room for each small mark beside a box
const BETWEEN = 96; // forward | inverse
const MARGIN = 16;

export interface Spot {
  x: number; // centre
  y: number;
  width: number;
  height: number;
}

export interface Frame extends Spot {
  block: string;
  title: { x: number; width: number } | null; // of its name, which the forward side has
}

export interface Placed {
  spots: Map<string, Spot>;
  frames: Frame[];
  paths: { d: string; kind: string; source: string; target: string }[];
  width: number;
  height: number;
}

type Point = { x: number; y: number };

export function place(view: View): Placed {
  const rows = rowsOf(view);
  const graph = forwardLayout(view, rows);
  const { width = 0, height = 0 } = graph.graph();
  const mirror = (x: number) => 2 * width + BETWEEN + 2 * CHIP - x;
  const spots = new Map<string, Spot>();
  for (const [row, members] of rows) {
    const { x, y } = graph.node(row) as Point;
    standInRow(members, { x, y }, mirror(x), spots);
  }
  return {
    spots,
    frames: frames(view, graph, mirror),
    paths: paths(view, graph, spots, mirror),
    width: 2 * width + BETWEEN + 5 * CHIP + MARGIN,
    height,
  };
}

/** Boxes by the forward box that they stand beside; those beside none are not drawn. */
function rowsOf(view: View): Map<string, Box[]> {
  const rows = new Map<string, Box[]>();
  for (const box of view.boxes.values()) if (box.kind === "forward") rows.set(box.id, []);
  for (const box of view.boxes.values()) rows.get(box.row)?.push(box);
  return rows;
}

function forwardLayout(view: View, rows: Map<string, Box[]>) {
  const graph = new Dagre<GraphLabel, NodeLabel, EdgeLabel>({ compound: true });
  graph.setGraph({ rankdir: "TB", nodesep: 2 * CHIP, ranksep: 24, marginx: MARGIN, marginy: 24 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const [id, members] of rows) {
    const most = Math.max(1, members.filter((box) => box.kind === "inverse").length);
    graph.setNode(id, { width: WIDTH + CHIP, height: most * (HEIGHT + 4) });
  }
  for (const block of view.open) graph.setNode(block.id, { width: 0, height: 0 });
  for (const block of view.open) {
    if (block.parent && graph.hasNode(block.parent)) graph.setParent(block.id, block.parent);
  }
  for (const id of rows.keys()) {
    const block = view.boxes.get(id)!.block;
    if (block) graph.setParent(id, block);
  }
  for (const link of view.links) {
    if (rows.has(link.source) && rows.has(link.target)) graph.setEdge(link.source, link.target);
  }
  layout(graph);
  return graph;
}

/** The forward box at its place with captures beside it; the others mirrored. */
function standInRow(members: Box[], at: Point, across: number, spots: Map<string, Spot>): void {
  const of = (kind: string) => members.filter((box) => box.kind === kind);
  const chip = { y: at.y, width: 14, height: 14 };
  for (const box of of("forward")) spots.set(box.id, { ...at, width: WIDTH, height: HEIGHT });
  of("capture").forEach((box, i) => {
    spots.set(box.id, { ...chip, x: at.x + WIDTH / 2 + 14 + 16 * i });
  });
  of("inverse").forEach((box, i, all) => {
    const y = at.y + (i - (all.length - 1) / 2) * (HEIGHT + 4);
    spots.set(box.id, { x: across, y, width: WIDTH, height: HEIGHT });
  });
  const side = across + WIDTH / 2 + 16;
  of("importance").forEach((box) => spots.set(box.id, { ...chip, x: side }));
  of("map").forEach((box) => spots.set(box.id, { ...chip, x: side + CHIP }));
}

/** The frames of open blocks on both sides; a name stands behind the one it would cover. */
function frames(
  view: View, graph: ReturnType<typeof forwardLayout>, mirror: (x: number) => number,
): Frame[] {
  const named = new Map<string, Frame>();
  const found: Frame[] = [];
  for (const { id, parent } of view.open) {
    const spot = graph.node(id) as unknown as Spot;
    const room = { y: spot.y - 4, height: spot.height + 12, block: id };
    const left = { ...room, x: spot.x, width: spot.width + 8 };
    const around = named.get(parent ?? "");
    const near = around && top(left) - top(around) < 20 ? around.title : null;
    const x = near ? near.x + near.width + 4 : left.x - left.width / 2;
    const frame = { ...left, title: { x, width: 24 + 6.8 * id.length } };
    named.set(id, frame);
    found.push(frame, { ...left, x: mirror(spot.x) + CHIP, width: left.width + CHIP, title: null });
  }
  return found;
}

const top = (spot: Spot): number => spot.y - spot.height / 2;

/** Forward links as dagre bends them, inverse ones mirrored where they go the same way back. */
function paths(
  view: View,
  graph: ReturnType<typeof forwardLayout>,
  spots: Map<string, Spot>,
  mirror: (x: number) => number,
): Placed["paths"] {
  const found: Placed["paths"] = [];
  for (const link of view.links) {
    const [source, target] = [view.boxes.get(link.source)!, view.boxes.get(link.target)!];
    const [from, to] = [spots.get(source.id), spots.get(target.id)];
    if (!from || !to) continue;
    let d = curve(from, to);
    const bends = (graph.edge(source.id, target.id) as { points?: Point[] } | undefined)?.points;
    const back = (graph.edge(target.row, source.row) as { points?: Point[] } | undefined)?.points;
    if (source.kind === "forward" && target.kind === "forward" && bends) d = along(from, bends, to);
    if (source.kind === "inverse" && target.kind === "inverse" && back) {
      const mirrored = back.map(({ x, y }) => ({ x: mirror(x), y })).reverse();
      d = along(from, mirrored, to);
    }
    const aside = source.kind === "inverse" && target.kind === "inverse" && !back;
    const kind = `${source.kind}-${target.kind}${aside ? " aside" : ""}`;
    found.push({ d, kind, source: source.id, target: target.id });
  }
  return found;
}

/** From one box through the bends between two rows to the other, rounded. */
function along(from: Spot, points: Point[], to: Spot): string {
  const down = to.y > from.y ? 1 : -1;
  const start = { x: from.x, y: from.y + (down * from.height) / 2 };
  const end = { x: to.x, y: to.y - (down * to.height) / 2 };
  const bends = [start, ...points.slice(1, -1), end];
  let d = `M${bends[0].x} ${bends[0].y}`;
  for (let i = 1; i < bends.length; i++) {
    const [a, b] = [bends[i - 1], bends[i]];
    const middle = (a.y + b.y) / 2;
    d += `C${a.x} ${middle} ${b.x} ${middle} ${b.x} ${b.y}`;
  }
  return d;
}

/** From one side of a box to the nearer side of another. */
function curve(from: Spot, to: Spot): string {
  const right = to.x - from.x >= from.width / 2;
  const left = from.x - to.x >= from.width / 2;
  if (!right && !left) return along(from, [], to);
  const sign = right ? 1 : -1;
  const start = from.x + (sign * from.width) / 2;
  const end = to.x - (sign * to.width) / 2;
  const pull = Math.max(24, Math.abs(end - start) / 2) * sign;
  return `M${start} ${from.y}C${start + pull} ${from.y} ${end - pull} ${to.y} ${end} ${to.y}`;
}
