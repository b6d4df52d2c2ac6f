/** A box on the photo, and the share of a map's sum that lies in it. */
import { type Layer, numbers } from "./data";

/** Sides as shares of the photo's width and height, 0 to 1. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** The box between two corners, inside the photo; null if it is less than 1 % wide or high. */
export function between(x0: number, y0: number, x1: number, y1: number): Box | null {
  const inside = (value: number) => Math.min(1, Math.max(0, value));
  const box = {
    left: inside(Math.min(x0, x1)),
    top: inside(Math.min(y0, y1)),
    right: inside(Math.max(x0, x1)),
    bottom: inside(Math.max(y0, y1)),
  };
  return box.right - box.left < 0.01 || box.bottom - box.top < 0.01 ? null : box;
}

/** Share of the map's sum inside the box; each value is spread evenly over its cell. */
export function energyInside(layer: Layer, box: Box): number | null {
  const values = numbers(layer);
  const [height, width] = layer.shape;
  const rows = covered(height, box.top, box.bottom);
  const columns = covered(width, box.left, box.right);
  let inside = 0;
  let whole = 0;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      inside += values[at] * rows[y] * columns[x];
      whole += values[at];
    }
  }
  return whole > 0 ? inside / whole : null;
}

/** How much of each of `count` equal cells of [0, 1] lies between `low` and `high`. */
function covered(count: number, low: number, high: number): number[] {
  return Array.from({ length: count }, (_, i) =>
    Math.max(0, Math.min(high * count, i + 1) - Math.max(low * count, i)),
  );
}
