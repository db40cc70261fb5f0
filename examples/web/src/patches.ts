/** A text as bytes, divided into patches, and as characters to show. Pure functions. */

/** A text: its bytes, the offsets at which patches end, and the length of the prompt. */
export interface Cut {
  bytes: Uint8Array;
  ends: readonly number[];
  prompt: number;
}

/** A patch, or its part inside or after the prompt. */
export interface Span {
  /** Its characters; empty if its only character ends in a later patch. */
  text: string;
  /** Offsets of its first byte and of the byte after its last. */
  from: number;
  to: number;
  /** Number of the patch, counted from 0, and its size including the part beyond the prompt's end. */
  patch: number;
  patchBytes: number;
  inPrompt: boolean;
  /** Whether the patch may still grow: the last patch, until it ends. */
  open: boolean;
}

// A byte order mark counts as an ordinary character here.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The spans of a text, starting with patch `first`. */
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
 * Start of the character that `at` splits, or `at` itself if it is between characters. A character thus belongs to the
 * patch that contains its last byte.
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

/**
 * Length in bytes of the character that begins at `start`, as a decoder sees it; for invalid UTF-8, the bytes of one
 * U+FFFD.
 */
export function characterLength(bytes: Uint8Array, start: number): number {
  const lead = bytes[start] ?? 0;
  if (lead < 0xc2 || lead > 0xf4) return 1;
  const full = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // Overlong forms, surrogates, and code points above U+10FFFF are recognized by the second byte.
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

/** A text whose control characters are replaced by pictures; browsers would not show them. */
export function visible(text: string): string {
  const picture = (code: number): string => String.fromCodePoint(code === 0x7f ? 0x2421 : 0x2400 + code);
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, (control) => picture(control.charCodeAt(0)));
}

/** Numbers of closed patches after the prompt with 1, 2, … bytes; the last place counts all longer ones. */
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

/** Average bytes per patch after the prompt, over closed patches; `undefined` before the first one. */
export function bytesPerPatch({ ends, prompt }: Cut): number | undefined {
  const behind = ends.filter((end) => end > prompt);
  const last = behind.at(-1);
  return last === undefined ? undefined : (last - prompt) / behind.length;
}
