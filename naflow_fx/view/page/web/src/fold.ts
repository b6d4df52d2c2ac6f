/** The inverse graph with some of its blocks folded: which boxes are to be seen, and their links. */
import type { Graph, GraphBlock, GraphNode } from "./data";
import { goToSite, picked, unfolded } from "./state";

/** A box: one node, or all nodes of one kind in a folded block. */
export interface Box {
  id: string;
  kind: GraphNode["kind"];
  nodes: GraphNode[];
  block: string; // the innermost block that it is drawn in
  folded: string | null; // the block that it stands for
  row: string; // id of the forward box that it stands beside
}

export interface Link {
  source: string;
  target: string;
  kind: string;
}

export interface View {
  boxes: Map<string, Box>;
  links: Link[];
  open: GraphBlock[]; // blocks whose frame is to be seen
}

/** The node that made Z at a call site. */
export function inverseOf(graph: Graph, site: string): GraphNode | undefined {
  return graph.nodes.find((node) => node.kind === "inverse" && node.site === site);
}

/** Unfolds what a node is in, picks it, and shows its layer and the graph. */
export function reveal(graph: Graph, node: GraphNode): void {
  const around = ancestors(graph, placeOf(graph, node).block ?? "");
  unfolded.value = new Set([...unfolded.value, ...around]);
  pick(node);
  requestAnimationFrame(() => {
    const box = document.querySelector<SVGElement>(`[data-node="${CSS.escape(node.id)}"]`);
    box?.scrollIntoView({ block: "center", inline: "nearest" });
    box?.focus({ preventScroll: true });
  });
}

/** Picks a node and shows the layer that it belongs to. */
export function pick(node: GraphNode): void {
  picked.value = node.id;
  if (node.site) goToSite(node.site);
}

/** The forward node beside which a node is drawn: what it inverts, or whose value it is about. */
export function placeOf(graph: Graph, node: GraphNode): GraphNode {
  const index = indexOf(graph);
  if (node.kind === "forward") return node;
  const inverted = node.operators?.[0];
  return index.get(inverted ?? "") ?? index.get(`name ${node.name}`) ?? node;
}

/** Forward nodes by id, and by the name that generated nodes know them by. */
function indexOf(graph: Graph): Map<string, GraphNode> {
  let index = indices.get(graph);
  if (!index) {
    const forward = graph.nodes.filter((node) => node.kind === "forward");
    index = new Map(forward.flatMap((n) => [[n.id, n], [`name ${n.name}`, n]]));
    indices.set(graph, index);
  }
  return index;
}

const indices = new WeakMap<Graph, Map<string, GraphNode>>();

/** A block and those around it, from the outermost; the model itself is left out. */
export function ancestors(graph: Graph, block: string): string[] {
  const parents = new Map(graph.blocks.map((one) => [one.id, one.parent]));
  const found: string[] = [];
  for (let at: string | null | undefined = block; at; at = parents.get(at)) found.unshift(at);
  return found;
}

/** What is to be seen of a graph when only `open` blocks are unfolded. */
export function view(graph: Graph, open: ReadonlySet<string>): View {
  const boxes = new Map<string, Box>();
  const boxOf = new Map<string, string>();
  const whole = wholes(graph);
  for (const node of graph.nodes) {
    const place = placeOf(graph, node);
    const folded = ancestors(graph, place.block ?? "").find((id) => !open.has(id) && whole.has(id));
    const id = folded ? `${node.kind} of ${folded}` : node.id;
    const row = folded ? `forward of ${folded}` : place.id;
    const parents = ancestors(graph, folded ?? place.block ?? "").filter((one) => whole.has(one));
    if (folded) parents.pop();
    const block = parents.at(-1) ?? "";
    if (!boxes.has(id)) {
      boxes.set(id, { id, kind: node.kind, nodes: [], block, folded: folded ?? null, row });
    }
    boxes.get(id)!.nodes.push(node);
    boxOf.set(node.id, id);
  }
  const shown = new Set([...boxes.values()].flatMap((box) => ancestors(graph, box.block)));
  return { boxes, links: links(graph, boxOf), open: graph.blocks.filter((b) => shown.has(b.id) && whole.has(b.id)) };
}

/** Blocks worth folding: those of more than one forward node. */
function wholes(graph: Graph): Set<string> {
  const counts = new Map<string, number>();
  for (const node of graph.nodes) {
    if (node.kind !== "forward") continue;
    for (const id of ancestors(graph, node.block ?? "")) counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return new Set([...counts].filter(([, count]) => count > 1).map(([id]) => id));
}

/** The graph's edges between the boxes to be seen, each once. */
function links(graph: Graph, boxOf: Map<string, string>): Link[] {
  const found = new Map<string, Link>();
  for (const edge of graph.edges) {
    const source = boxOf.get(edge.source);
    const target = boxOf.get(edge.target);
    if (!source || !target || source === target) continue;
    found.set(`${source}\n${target}`, { source, target, kind: edge.kind });
  }
  return [...found.values()];
}
