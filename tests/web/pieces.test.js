/** Pieces of a generated text: whole characters, all bytes, every patch end. Constraints force such texts. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage, withoutKernels } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

let server, browser, page, model;

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server);
  model = await page.evaluateHandle(() => Bolmo.load('/demo', { constraints: true }));
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const generate = (prompt, options) =>
  model.evaluate((model, [prompt, options]) => collect(model.generate(prompt, options)), [prompt, options]);

/** Checks that hold for the pieces of every generation. */
function checkPieces({ text, bytes, pieces, ended }) {
  assert.equal(bytes.length, ended.bytes);
  assert.equal(new TextDecoder().decode(new Uint8Array(bytes)), text);
  for (const piece of pieces) {
    assert.ok(piece.bytes.length > 0, 'no piece is empty');
    assert.equal(new TextDecoder().decode(new Uint8Array(piece.bytes)), piece.text);
    for (const [i, end] of piece.patchEnds.entries()) {
      assert.ok(end > (piece.patchEnds[i - 1] ?? 0) && end <= piece.bytes.length, `patch ends ${piece.patchEnds}`);
    }
  }
  assert.equal(pieces.flatMap((piece) => piece.patchEnds).length, ended.patches);
}

test('characters of several bytes are never split', async () => {
  // Patch ends are made probable, so that decode steps, and with them pieces, are short and end inside characters.
  const made = await generate('x', { maxBytes: 24, regex: '(é|日|😀){6}', temperature: 1, boundaryBias: 4, seed: 3 });
  checkPieces(made);
  assert.match(made.text, /^(é|日|😀){6}$/u);
  assert.ok(!made.text.includes('\u{fffd}'));
  assert.deepEqual({ stop: made.ended.stop, matched: made.ended.matched }, { stop: 'complete', matched: true });
  assert.ok(made.ended.patches > 0, 'patches end');
  assert.ok(made.pieces.length > 1, 'there is more than one piece');
});

test('a character that is cut by the end becomes U+FFFD', async () => {
  // A lead byte waits for the bytes that follow it, and there are none.
  const made = await generate('x', { regex: '(?-u:\\xE6)' });
  checkPieces(made);
  assert.deepEqual(made.bytes, [0xe6]);
  assert.equal(made.text, '\u{fffd}');
});

test('invalid UTF-8 becomes U+FFFD', async () => {
  const made = await generate('x', { maxBytes: 32, temperature: 8, seed: 1 });
  checkPieces(made);
  assert.ok(made.text.includes('\u{fffd}'), made.text);
});

test("patch ends equal those of the session's state", async () => {
  const { made, before, after } = await model.evaluate(async (model) => {
    const session = await model.session();
    await session.append('class Reader:');
    const before = await session.state();
    const made = await collect(session.generate({ maxBytes: 60 }));
    const after = await session.state();
    session.close();
    return { made, before, after };
  });
  checkPieces(made);
  assert.equal(before.length, 13);
  assert.equal(after.length, 13 + made.bytes.length);
  let offset = before.length;
  const ends = [];
  for (const { bytes, patchEnds } of made.pieces) {
    ends.push(...patchEnds.map((end) => offset + end));
    offset += bytes.length;
  }
  assert.deepEqual(after.patchEnds.filter((end) => end > before.length), ends);
  const upTo = (ends) => ends.filter((end) => end < before.length);
  assert.deepEqual(upTo(after.patchEnds), upTo(before.patchEnds));
});

test('JSON is valid against its schema', async () => {
  const schema = {
    type: 'object',
    properties: {
      name: { type: 'string', maxLength: 8 },
      size: { type: 'integer', minimum: 1, maximum: 99 },
      kind: { enum: ['é', '日本'] },
    },
    required: ['name', 'size', 'kind'],
    additionalProperties: false,
  };
  const made = await generate('{', { maxBytes: 90, jsonSchema: schema });
  checkPieces(made);
  assert.equal(made.ended.matched, true);
  const value = JSON.parse(made.text);
  assert.deepEqual(Object.keys(value).sort(), ['kind', 'name', 'size']);
  assert.ok(typeof value.name === 'string' && [...value.name].length <= 8, made.text);
  assert.ok(Number.isInteger(value.size) && value.size >= 1 && value.size <= 99, made.text);
  assert.ok(schema.properties.kind.enum.includes(value.kind), made.text);
});

test('invalid constraints are invalid arguments', async (t) => {
  const refused = (options) =>
    model.evaluate((model, options) => failure(collect(model.generate('x', options))), options);
  for (const options of [{ regex: '(' }, { regex: 'a', jsonSchema: {} }, { jsonSchema: { type: 'nothing' } }]) {
    const error = await refused(options);
    t.diagnostic(`${JSON.stringify(options)} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'InvalidArgumentError');
  }
});

test('constraints are unsupported in the smaller wasm file', async (t) => {
  const idle = await openPage(browser, server, { init: [withoutKernels] });
  const error = await idle.evaluate(async () => {
    const model = await Bolmo.load('/demo', { worker: false });
    return failure((await model.session()).generate({ regex: 'a' }).next());
  });
  t.diagnostic(`regex without constraints -> ${error?.class}: ${error?.message}`);
  assert.equal(error?.class, 'UnsupportedError');
});
