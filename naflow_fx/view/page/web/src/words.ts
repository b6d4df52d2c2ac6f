/** Numbers and sizes as text. */

export const share = (value: number | null | undefined): string =>
  value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}\u00a0%`;

export const number = (value: number | null | undefined): string =>
  value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString();

export const size = (shape: readonly number[]): string => shape.join(" × ");

export function memory(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1024 ** 2 ? `${number(count / 1024)} KiB` : `${number(count / 1024 ** 2)} MiB`;
}

/** The part of a call site's name after its block. */
export const short = (name: string): string => name.slice(name.lastIndexOf(".") + 1);
