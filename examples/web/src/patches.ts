/** A text as bytes cut into patches, and as characters to show. Pure functions. */

/** A text: its bytes, after how many of them each patch ends, and how many of them are the prompt's. */
export interface Cut {
  bytes: Uint8Array;
  ends: readonly number[];
  prompt: number;
}

/** A patch, or its part in the prompt or behind it. */
export interface Span {
  /** Its characters; none where a later patch has the last byte of the only one. */
  text: string;
  /** Where its bytes begin and end. */
  from: number;
  to: number;
  /** Which patch it is, counted from 0, and how many bytes that has on both sides of the prompt's end. */
  patch: number;
  patchBytes: number;
  inPrompt: boolean;
  /** Whether more may come: the last patch, until it ends. */
  open: boolean;
}

// A byte order mark is a character like others here.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The spans of a text, from that patch on. */
export function spans({ bytes, ends, prompt }: Cut, first = 0): Span[] {
  const out: Span[] = [];
  let start = first === 0 ? 0 : (ends[first - 1] ?? bytes.length);
  for (let patch = first; start < bytes.length; patch++) {
    const end = ends[patch];
    const stop = end ?? bytes.length;
    const cuts = start < prompt && prompt < stop ? [start, prompt, stop] : [start, stop];
    for (let at = 1; at < cuts.length; at++) {
      const from = cuts[at - 1] ?? start;
      const to = cuts[at] ?? stop;
      out.push({
        text: decoder.decode(bytes.subarray(characterStart(bytes, from), characterStart(bytes, to))),
        from,
        to,
        patch,
        patchBytes: stop - start,
        inPrompt: to <= prompt,
        open: end === undefined,
      });
    }
    start = stop;
  }
  return out;
}

/**
 * Where the character begins that `at` cuts, or `at` itself if it is between characters. A character so belongs to the patch that has its last byte:
 * the others have only its beginning.
 */
export function characterStart(bytes: Uint8Array, at: number): number {
  for (let start = at - 1; start >= Math.max(0, at - 3); start--) {
    if (!isContinuation(bytes[start] ?? 0)) return start + characterLength(bytes, start) > at ? start : at;
  }
  return at;
}

function isContinuation(byte: number): boolean {
  return byte >= 0x80 && byte <= 0xbf;
}

/** Bytes of the character that begins at `start`: what a decoder makes one character of, be it U+FFFD for bytes that are no UTF-8. */
export function characterLength(bytes: Uint8Array, start: number): number {
  const lead = bytes[start] ?? 0;
  if (lead < 0xc2 || lead > 0xf4) return 1;
  const full = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // Forms that are too long, surrogates, and what is above U+10FFFF show in the second byte.
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  let length = 1;
  while (length < full) {
    const byte = bytes[start + length];
    if (byte === undefined || byte < (length === 1 ? low : 0x80) || byte > (length === 1 ? high : 0xbf)) break;
    length += 1;
  }
  return length;
}

/** A text with control characters as pictures, which browsers would not show at all. */
export function visible(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, (control) => String.fromCodePoint(control === '\x7f' ? 0x2421 : 0x2400 + control.charCodeAt(0)));
}

/** How many closed patches behind the prompt have 1, 2, … bytes; the last place counts all that are longer. */
export function lengths(cut: Cut, places: number): number[] {
  const counts = new Array<number>(places).fill(0);
  let start = 0;
  for (const end of cut.ends) {
    if (end > cut.prompt) {
      const place = Math.min(end - start, places) - 1;
      counts[place] = (counts[place] ?? 0) + 1;
    }
    start = end;
  }
  return counts;
}

/** Bytes in a patch behind the prompt, counting closed patches and their bytes there only; nothing before the first. */
export function bytesPerPatch({ ends, prompt }: Cut): number | undefined {
  const behind = ends.filter((end) => end > prompt);
  const last = behind.at(-1);
  return last === undefined ? undefined : (last - prompt) / behind.length;
}
