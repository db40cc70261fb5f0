/** The text on the page, drawn as its patches while it grows. */

import type { Piece } from 'bolmo-web';
import { type Cut, type Span, spans, visible } from './patches.js';
import { plural } from './format.js';

export class Output {
  readonly #element: HTMLElement;
  #buffer = new Uint8Array(1024);
  #length = 0;
  #ends: number[] = [];
  #prompt = 0;
  /** Number of patches that are drawn in their final form, and their nodes. */
  #patches = 0;
  #nodes = 0;
  #frame = 0;

  constructor(element: HTMLElement) {
    this.#element = element;
  }

  get cut(): Cut {
    return { bytes: this.#buffer.subarray(0, this.#length), ends: this.#ends, prompt: this.#prompt };
  }

  /** Starts a text. The prompt's patches are not known yet: it is shown as one. */
  begin(prompt: Uint8Array): void {
    this.#length = 0;
    this.#prompt = prompt.length;
    this.#append(prompt);
    this.recut([]);
  }

  /** Replaces the ends of all patches. */
  recut(ends: readonly number[]): void {
    this.#ends = [...ends];
    this.#patches = 0;
    this.#nodes = 0;
    this.draw();
  }

  /** Appends a piece; the page is drawn in its next frame. */
  push({ bytes, patchEnds }: Piece): void {
    for (const end of patchEnds) this.#ends.push(this.#length + end);
    this.#append(bytes);
    this.#frame ||= requestAnimationFrame(() => this.draw());
  }

  #append(bytes: Uint8Array): void {
    if (this.#length + bytes.length > this.#buffer.length) {
      const larger = new Uint8Array(2 * (this.#length + bytes.length));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Draws what has changed: patches that have ended keep their nodes. */
  draw(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    while (this.#element.childNodes.length > this.#nodes) this.#element.lastChild?.remove();
    for (const span of spans(this.cut, this.#patches)) {
      this.#element.append(drawn(span));
      if (span.open) continue;
      this.#nodes = this.#element.childNodes.length;
      this.#patches = span.patch + 1;
    }
  }

  /** Rows of a table: number, bytes, text. */
  rows(): HTMLTableRowElement[] {
    return spans(this.cut).map((span) => {
      const row = document.createElement('tr');
      const text = span.text === '' ? '(part of the next character)' : JSON.stringify(visible(span.text));
      const own = span.to - span.from;
      const bytes = own === span.patchBytes ? String(own) : `${own} of ${span.patchBytes}`;
      const number = `${span.patch + 1}${span.inPrompt ? ' (prompt)' : ''}`;
      for (const cell of [number, bytes, text]) row.insertCell().textContent = cell;
      return row;
    });
  }
}

function drawn(span: Span): HTMLElement {
  const element = document.createElement('span');
  element.classList.add('patch');
  element.classList.toggle('odd', span.patch % 2 === 1);
  element.classList.toggle('prompt', span.inPrompt);
  element.classList.toggle('within', span.text === '');
  element.style.setProperty('--bytes', String(span.to - span.from));
  element.title = title(span);
  visible(span.text)
    .split('\n')
    .forEach((line, at) => {
      if (at > 0) {
        // The line break itself has no width; the style sheet adds a sign.
        const newline = document.createElement('span');
        newline.className = 'newline';
        newline.textContent = '\n';
        element.append(newline);
      }
      if (line !== '') element.append(line);
    });
  return element;
}

function title({ from, to, patch, patchBytes, inPrompt, open, text }: Span): string {
  const all = plural(patchBytes, 'byte');
  const own = to - from === patchBytes ? all : `${to - from} of ${all}`;
  const inside = text === '' ? 'inside the next character' : '';
  const notes = [inPrompt ? 'prompt' : '', open ? 'has not ended' : '', inside].filter(Boolean);
  return `patch ${patch + 1}: ${own}${notes.map((note) => `, ${note}`).join('')}`;
}
