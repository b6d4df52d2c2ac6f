/** Maps as pictures: bilinear to the photo's size, as torch's align_corners=False, then colours. */
import { bytes, report } from "./data";

export type Size = [number, number]; // height, width

const tables = new Map<string, Uint8Array>();

/** The 256 RGB colours of a colour map. */
export function table(name: string): Uint8Array {
  if (!tables.has(name)) tables.set(name, bytes(report.colormaps[name]));
  return tables.get(name)!;
}

/** Draws values [h, w] times `gain` on a canvas of `to` pixels, bilinear or in visible cells. */
export function paint(
  canvas: HTMLCanvasElement,
  values: ArrayLike<number>,
  from: Size,
  to: Size,
  gain: number,
  colours: Uint8Array,
  smooth = true,
): void {
  fill(canvas, resized(values, from, to, smooth), to, colours, 255 * gain, 0);
}

/** Draws one map minus another, each in [0, 1], in diverging colours; sizes may differ. */
export function paintDifference(canvas: HTMLCanvasElement, one: Drawn, other: Drawn, to: Size): void {
  const [mine, theirs] = [one, other].map((d) => resized(d.values, d.from, to, true));
  const less = mine.map((v, i) => v * one.gain - theirs[i] * other.gain);
  fill(canvas, less, to, bytes(report.diverging), 127.5, 127.5);
}

export interface Drawn {
  values: ArrayLike<number>;
  from: Size;
  gain: number;
}

/** Colours number `values * factor + offset` of the table. */
function fill(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  to: Size,
  colours: Uint8Array,
  factor: number,
  offset: number,
): void {
  [canvas.height, canvas.width] = to;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(to[1], to[0]);
  for (let i = 0, at = 0; i < values.length; i++, at += 4) {
    const colour = 3 * Math.min(255, Math.max(0, Math.round(values[i] * factor + offset)));
    image.data[at] = colours[colour];
    image.data[at + 1] = colours[colour + 1];
    image.data[at + 2] = colours[colour + 2];
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Values [h, w] at another size. */
function resized(values: ArrayLike<number>, from: Size, to: Size, smooth: boolean): Float32Array {
  const rows = places(from[0], to[0], smooth);
  const columns = places(from[1], to[1], smooth);
  const found = new Float32Array(to[0] * to[1]);
  for (let y = 0, at = 0; y < to[0]; y++) {
    const above = rows.low[y] * from[1];
    const below = rows.high[y] * from[1];
    const down = rows.share[y];
    for (let x = 0; x < to[1]; x++, at++) {
      const left = columns.low[x];
      const right = columns.high[x];
      const along = columns.share[x];
      const top = values[above + left] * (1 - along) + values[above + right] * along;
      const foot = values[below + left] * (1 - along) + values[below + right] * along;
      found[at] = top * (1 - down) + foot * down;
    }
  }
  return found;
}

/** For each of `to` pixels the two of `from` cells it lies between, and how far along. */
function places(from: number, to: number, smooth: boolean) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    low[i] = smooth ? Math.min(from - 1, Math.floor(at)) : Math.floor((i * from) / to);
    high[i] = smooth ? Math.min(from - 1, low[i] + 1) : low[i];
    share[i] = smooth ? at - Math.floor(at) : 0;
  }
  return { low, high, share };
}
