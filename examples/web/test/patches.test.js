/** Division of texts into spans. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runnerImport } from 'vite';

const file = new URL('../src/patches.ts', import.meta.url).pathname;
const { module } = await runnerImport(file, { configFile: false, logLevel: 'warn' });
const { bytesPerPatch, lengths, spans, visible } = module;

const bytesOf = (text) => new TextEncoder().encode(text);
const texts = (cut, first) => spans(cut, first).map(({ text }) => text);

test('plain text has one span per patch', () => {
  const cut = { bytes: bytesOf('def read'), ends: [3, 4], prompt: 0 };
  assert.deepEqual(texts(cut), ['def', ' ', 'read']);
  assert.deepEqual(spans(cut).map(({ open }) => open), [false, false, true]);
  assert.deepEqual(texts(cut, 1), [' ', 'read']);
  assert.deepEqual(texts({ bytes: bytesOf(''), ends: [], prompt: 0 }), []);
});

test('a patch across the prompt’s end is two spans', () => {
  const cut = { bytes: bytesOf('abcdef'), ends: [1, 4], prompt: 3 };
  const made = spans(cut).map(({ text, inPrompt, patch, patchBytes }) => [text, inPrompt, patch, patchBytes]);
  assert.deepEqual(made, [['a', true, 0, 1], ['bc', true, 1, 3], ['d', false, 1, 3], ['ef', false, 2, 2]]);
  assert.deepEqual(lengths(cut, 4), [0, 0, 1, 0]);
  assert.equal(bytesPerPatch(cut), 1);
  assert.equal(bytesPerPatch({ ...cut, ends: [1] }), undefined);
});

test('a character belongs to the patch with its last byte', () => {
  const bytes = bytesOf('a😀b');
  assert.deepEqual(texts({ bytes, ends: [2, 3, 5], prompt: 0 }), ['a', '', '😀', 'b']);
  assert.deepEqual(spans({ bytes, ends: [2, 3, 5], prompt: 0 }).map(({ from, to }) => to - from), [2, 1, 2, 1]);
});

test('a byte order mark is kept', () => {
  assert.deepEqual(texts({ bytes: bytesOf('\ufeffa\ufeff'), ends: [3], prompt: 0 }), ['\ufeff', 'a\ufeff']);
});

test('control characters become pictures', () => {
  assert.equal(visible('a\tb\nc\0\x1b\x7f'), 'a\tb\nc␀␛␡');
});

test('spans contain every byte once and decode like the whole text, however it is divided', () => {
  let state = 1;
  const random = (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 16) % below;
  };
  // Bytes that begin, continue and break characters of every length.
  const alphabet = [0x41, 0x0a, 0x80, 0x9f, 0xa0, 0xbf, 0xc1, 0xc3, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf3, 0xf4, 0xf5];
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from({ length: random(24) }, () => alphabet[random(alphabet.length)]);
    const ends = Array.from(bytes.keys(), (at) => at + 1).filter(() => random(3) === 0);
    const cut = { bytes, ends, prompt: 0 };
    assert.equal(texts(cut).join(''), decoder.decode(bytes), `${bytes} cut at ${ends}`);
    assert.equal(spans(cut).reduce((at, { from, to }) => (assert.equal(from, at), to), 0), bytes.length);
  }
});
