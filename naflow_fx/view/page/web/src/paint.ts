/** Maps as pictures: bicubic to the photo's size, half-pixel centres, then colours. */
import { bytes, report } from "./data";

export type Size = [number, number]; // height, width

const tables = new Map<string, Uint8Array>();

/** The 256 RGB colours of a colour map. */
export function table(name: string): Uint8Array {
  if (!tables.has(name)) tables.set(name, bytes(report.colormaps[name]));
  return tables.get(name)!;
}

/** Draws values [h, w] times `gain` on a canvas of `to` pixels, bicubic or in visible cells. */
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

/** Values [h, w] at another size, within the range of what they were. */
function resized(values: ArrayLike<number>, from: Size, to: Size, smooth: boolean): Float32Array {
  const rows = places(from[0], to[0], smooth);
  const columns = places(from[1], to[1], smooth);
  const wide = new Float32Array(from[0] * to[1]);
  for (let y = 0, at = 0; y < from[0]; y++)
    for (let x = 0; x < to[1]; x++, at++)
      for (const [cell, share] of columns[x]) wide[at] += share * values[y * from[1] + cell];
  const found = new Float32Array(to[0] * to[1]);
  const [low, high] = range(values);
  for (let y = 0, at = 0; y < to[0]; y++)
    for (let x = 0; x < to[1]; x++, at++) {
      let sum = 0;
      for (const [cell, share] of rows[y]) sum += share * wide[cell * to[1] + x];
      found[at] = Math.min(high, Math.max(low, sum));
    }
  return found;
}

function range(values: ArrayLike<number>): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  return [low, high];
}

/** For each of `to` pixels the cells of `from` that it is made of, and their shares. */
function places(from: number, to: number, smooth: boolean): [number, number][][] {
  return Array.from({ length: to }, (_, i) => {
    const at = ((i + 0.5) * from) / to - 0.5;
    if (!smooth) return [[Math.min(from - 1, Math.max(0, Math.round(at))), 1]];
    const near: [number, number][] = [];
    for (let cell = Math.floor(at) - 1; cell <= Math.floor(at) + 2; cell++)
      if (cell >= 0 && cell < from) near.push([cell, cubic(Math.abs(at - cell))]);
    const sum = near.reduce((total, [, share]) => total + share, 0);
    return near.map(([cell, share]) => [cell, share / sum]);
  });
}

/** Keys' cubic convolution, a = -1/2. */
function cubic(away: number): number {
  if (away >= 2) return 0;
  return away < 1
    ? (1.5 * away - 2.5) * away * away + 1
    : ((-0.5 * away + 2.5) * away - 4) * away + 2;
}
