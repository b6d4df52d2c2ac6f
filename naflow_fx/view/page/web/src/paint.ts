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
  [canvas.height, canvas.width] = to;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(to[1], to[0]);
  const rows = places(from[0], to[0], smooth);
  const columns = places(from[1], to[1], smooth);
  for (let y = 0, at = 0; y < to[0]; y++) {
    const above = rows.low[y] * from[1];
    const below = rows.high[y] * from[1];
    const down = rows.share[y];
    for (let x = 0; x < to[1]; x++, at += 4) {
      const left = columns.low[x];
      const right = columns.high[x];
      const along = columns.share[x];
      const top = values[above + left] * (1 - along) + values[above + right] * along;
      const foot = values[below + left] * (1 - along) + values[below + right] * along;
      const value = (top * (1 - down) + foot * down) * gain;
      const colour = 3 * Math.min(255, Math.max(0, Math.round(255 * value)));
      image.data[at] = colours[colour];
      image.data[at + 1] = colours[colour + 1];
      image.data[at + 2] = colours[colour + 2];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
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
