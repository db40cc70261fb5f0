/** Worker and direct mode generate what the `bolmo` command generates. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage } from './browser.js';
import { trainedModel } from './models.js';
import { missing, native, nativeGeneration } from './native.js';
import { Server } from './server.js';

const long =
  'class Reader:\n    """Read lines from a file, one by one."""\n\n' +
  '    def __init__(self, path):\n        self.path = path\n\n';
const prompts = {
  'a few words': 'import os',
  'many scripts': 'Grüße aus Köln: 日本語, עברית, 😀',
  'no UTF-8': new Uint8Array([0x80, 0xff, 0x00, 0xc3, 0x41]),
  'two kilobytes': long.repeat(17),
};
/** Texts to score. */
const texts = { 'many scripts': prompts['many scripts'], 'five hundred bytes': long.repeat(5).slice(0, 500) };
const greedy = { maxBytes: 24 };
const drawn = { maxBytes: 24, temperature: 0.7, seed: 7 };

let server, browser, page;

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

// The first use of each kernel takes time, so the page's own thread gets only a part of the work.
const few = ['many scripts', 'no UTF-8'];

for (const worker of [true, false]) {
  test(worker ? 'in a worker' : "on the page's thread", { skip: missing }, async (t) => {
    const model = await page.evaluateHandle((worker) => Bolmo.load('/demo', { worker }), worker);
    const generate = (prompt, options) =>
      model.evaluate(
        (model, [prompt, options]) =>
          collect(model.generate(typeof prompt === 'string' ? prompt : new Uint8Array(prompt), options)),
        [typeof prompt === 'string' ? prompt : [...prompt], options],
      );

    for (const [what, prompt] of Object.entries(prompts)) {
      if (!worker && !few.includes(what)) continue;
      await t.test(`greedy after ${what}`, async () => {
        const [got, want] = await Promise.all([
          generate(prompt, greedy),
          nativeGeneration(prompt, ['--max-bytes', String(greedy.maxBytes)]),
        ]);
        assert.deepEqual(got.bytes, want.bytes);
        assert.equal(got.text, want.text);
        assert.equal(got.ended.stop, want.stop);
        assert.equal(got.ended.patches, want.patches);
      });
    }

    await t.test('equal seeds give equal texts', async () => {
      const [got, want] = await Promise.all([
        generate(prompts['a few words'], drawn),
        nativeGeneration(prompts['a few words'], ['--max-bytes', '24', '--temperature', '0.7', '--seed', '7']),
      ]);
      assert.equal(got.text, want.text);
      assert.deepEqual(got.bytes, want.bytes);
      const other = await generate(prompts['a few words'], { ...drawn, seed: 8 });
      assert.notEqual(other.text, got.text);
    });

    await t.test('a stop string ends the text and is not part of it', async () => {
      const [got, want] = await Promise.all([
        generate(prompts['a few words'], { maxBytes: 60, stop: ['e'] }),
        nativeGeneration(prompts['a few words'], ['--max-bytes', '60', '--stop', 'e']),
      ]);
      assert.equal(got.text, want.text);
      assert.equal(got.ended.stop, 'stop-string');
    });

    for (const what of worker ? ['many scripts', 'five hundred bytes'] : few.slice(0, 1)) {
      await t.test(`the score of ${what}`, async () => {
        const [got, want] = await Promise.all([
          model.evaluate((model, text) => model.score(text), texts[what]),
          native(['score', '--file', '-'], texts[what]),
        ]);
        const close = (a, b, name) => assert.ok(Math.abs(a - b) <= 1e-4, `${name}: ${a}, the command says ${b}`);
        assert.equal(got.bytes, want.bytes);
        assert.equal(got.patches, want.patches);
        close(got.bitsPerByteJoint, want.bits_per_byte_joint, 'joint');
        close(got.bitsPerByteFolded, want.bits_per_byte_folded, 'folded');
        close(got.bytesPerPatch, want.bytes_per_patch, 'bytes per patch');
      });
    }

    await model.evaluate((model) => model.close());
  });
}
