/** Greedy generations of every golden model equal those of the reference, id by id. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage } from './browser.js';
import { goldenModels } from './models.js';
import { Server } from './server.js';

const models = await goldenModels();
let server, browser, page;

before(async () => {
  server = await Server.start(Object.fromEntries(models.map(({ name, files }) => [name, files])));
  browser = await launch();
  page = await openPage(browser, server);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A plain id is its byte plus four; the fused id of a byte that ends a patch is 260 more. */
const id = (byte, endsPatch) => byte + 4 + (endsPatch ? 260 : 0);
const END = 1;
const isEnd = (emitted) => emitted.at(-1) % 260 === END;

/** Where two logits are this close, rounding decides which id is chosen, and everything after it. */
const CLOSE = 1e-3;

test('the golden models are there', () => {
  assert.deepEqual(models.map(({ name }) => name).sort(), ['blama', 'bwen', 'nano', 'nano_trained', 'noexp', 'swa']);
});

for (const { name, cases } of models) {
  test(`${name} generates what the reference does`, async () => {
    const prompts = cases.map(({ prompt_ids: [, ...ids] }) => ids.map((id) => id - 4));
    const lengths = cases.map(({ emitted_exact }) => emitted_exact.length - 1);
    const made = await page.evaluate(async ([name, prompts, lengths]) => {
      const model = await Bolmo.load(`/${name}`);
      const made = [];
      for (const [i, prompt] of prompts.entries()) {
        const session = await model.session();
        await session.append(new Uint8Array(prompt));
        const { bytes, ended } = await collect(session.generate({ maxBytes: lengths[i] }));
        made.push({ bytes, ended, patchEnds: (await session.state()).patchEnds });
        session.close();
      }
      model.close();
      return made;
    }, [name, prompts, lengths]);

    for (const [i, { emitted_exact: emitted, gaps_exact: gaps = [] }] of cases.entries()) {
      const { bytes, ended, patchEnds } = made[i];
      const prompt = prompts[i];
      // The first emitted id is the decision on the prompt's last byte.
      const got = [prompt.at(-1), ...bytes].map((byte, at) => id(byte, patchEnds.includes(prompt.length + at)));
      const want = isEnd(emitted) ? emitted.slice(0, -1) : emitted;
      const close = gaps.findIndex((gap) => gap < CLOSE);
      const safe = close < 0 ? want.length : close;
      assert.deepEqual(got.slice(0, safe), want.slice(0, safe), `${name}, generation ${i}`);
      if (close < 0) {
        assert.equal(got.length, want.length, `${name}, generation ${i}`);
        assert.equal(ended.stop, isEnd(emitted) ? 'end' : 'budget', `${name}, generation ${i}`);
      }
    }
  });
}
