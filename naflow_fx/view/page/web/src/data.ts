/** What the page is given: written by naflow_fx/view/page/record.py as JSON. */

export interface Layer {
  name: string;
  block: string;
  shape: [number, number];
  max: number | null; // the map's largest value; the map below is divided by it
  map: Plane;
  spread: number | null;
  scatter: number | null;
  agreement: number | null;
  residual: number | null;
  norm_ratio: number | null;
  sigma_max: number | null;
  abandoned: number | null;
  held?: string; // the reconstruction, a data URL
  channels?: { index: number; share: number; shape: [number, number]; map: string }[];
}

export interface Entry {
  photo: number;
  model: number;
  explained: string;
  score: number | null;
  top: { name: string; probability: number }[];
  options: string;
  layers: Layer[];
}

export interface GraphNode {
  id: string;
  kind: Lane;
  name: string;
  site: string | null;
  block: string | null;
  operator?: string | null;
  equation?: string | null;
  shape?: (number | string)[] | string | null;
  how?: string | null;
  operators?: string[];
  region?: string | null;
  captures?: { name: string; bytes_per_image: number; dtype: string; shape: unknown }[];
  steps?: number | null;
  damping?: number | null;
  sigma_max?: number | null;
  residual?: number | null;
  norm_ratio?: number | null;
  doc?: string | null;
}

export type Lane = "forward" | "capture" | "inverse" | "importance" | "map";

export interface GraphEdge {
  source: string;
  target: string;
  kind: string;
}

export interface GraphBlock {
  id: string;
  parent: string | null;
  region?: string | boolean | null;
}

export interface Graph {
  blocks: GraphBlock[];
  nodes: GraphNode[];
  edges: GraphEdge[];
}

export interface Report {
  title: string;
  made_by: string;
  colormaps: Record<string, string>;
  diverging: string;
  colormap: string;
  alpha: number;
  photos: { name: string; source: string; size: [number, number] }[];
  models: { name: string; graph: Graph | null }[];
  entries: Entry[];
}

/** A map as it travels (base64 of little-endian float16) and, once decoded, as numbers. */
export type Plane = string;

export function bytes(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** The numbers of a plane; kept, since every layer is drawn many times. */
export function numbers(layer: Layer): Float32Array {
  let values = decoded.get(layer);
  if (!values) {
    const raw = bytes(layer.map);
    const halves = new Uint16Array(raw.buffer, 0, raw.length / 2);
    values = Float32Array.from(halves, half);
    decoded.set(layer, values);
  }
  return values;
}

const decoded = new WeakMap<Layer, Float32Array>();

/** The value of an IEEE half; maps are not negative, so the sign is left out. */
function half(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
}

export const report: Report = JSON.parse(document.getElementById("report")!.textContent!);
