/** Readable numbers. */

/** For example "1.2 MiB". */
export function size(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit] ?? ''}`;
}

/** For example "0.3 M". */
export function count(number: number): string {
  if (number >= 1e9) return `${(number / 1e9).toFixed(1)} G`;
  if (number >= 1e6) return `${Math.round(number / 1e6)} M`;
  return `${(number / 1e6).toFixed(1)} M`;
}

/** For example "0.28 s". */
export function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/** For example "52" or "7.4". */
export function rate(number: number): string {
  return number >= 10 ? String(Math.round(number)) : number.toFixed(1);
}

/** A number with the singular or plural of a word. */
export function plural(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
