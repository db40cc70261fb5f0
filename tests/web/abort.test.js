/** Calls that are aborted while they work, and loops that are left. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { launch, openPage } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

const PROMPT = 'class Reader:';
/** The first prefill chunk ends inside a word, where patches seldom end. */
const LONG = 'def read(self, path):\n    return open(path).read()\n\n'.repeat(400).slice(1, 20_001);

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

for (const worker of [true, false]) {
  describe(worker ? 'in a worker' : "on the page's thread", () => {
    let model, whole;

    before(async () => {
      model = await page.evaluateHandle((worker) => Bolmo.load('/demo', { worker }), worker);
      const generation = (model, prompt) => collect(model.generate(prompt, { maxBytes: 200 }));
      whole = (await model.evaluate(generation, PROMPT)).bytes;
    });

    after(() => model?.evaluate((model) => model.close()));

    for (const begun of [false, true]) {
      const what = begun ? 'after generated text' : 'of a prompt';
      test(`an aborted append ${what} keeps the bytes that were done`, async () => {
        const { same, told, length, next, fresh } = await model.evaluate(async (model, [begun, long]) => {
          const begin = async () => {
            const session = await model.session();
            if (begun) {
              await session.append('import os');
              await collect(session.generate({ maxBytes: 8 }));
            }
            return session;
          };
          const session = await begin();
          const { length: before } = await session.state();
          const reason = new Error('enough');
          const controller = new AbortController();
          const told = [];
          const onProgress = (done, all) => {
            told.push({ done, all });
            if (done > 0) controller.abort(reason);
          };
          const appending = session.append(long, { onProgress, signal: controller.signal });
          const same = await appending.then(() => 'it did not reject', (error) => error === reason);
          const length = (await session.state()).length - before;
          // The session continues like one that received only the bytes that were done.
          const goOn = async (session) => {
            const { bytes } = await collect(session.generate({ maxBytes: 8 }));
            const { patchEnds } = await session.state();
            session.close();
            return { bytes, patchEnds };
          };
          const next = await goOn(session);
          const other = await begin();
          await other.append(long.slice(0, length));
          return { same, told, length, next, fresh: await goOn(other) };
        }, [begun, LONG]);
        assert.equal(same, true);
        assert.equal(told[0].all, LONG.length);
        assert.ok(length >= told.at(-1).done && length < LONG.length / 2, `${told.at(-1).done} told, ${length} there`);
        assert.deepEqual(next, fresh);
      });
    }

    test('text can be appended after an aborted append', async () => {
      const { next, fresh } = await model.evaluate(async (model, long) => {
        const session = await model.session();
        const controller = new AbortController();
        const onProgress = (done) => done > 0 && controller.abort();
        await session.append(long, { onProgress, signal: controller.signal }).catch(() => {});
        const { length } = await session.state();
        await session.append('\n\nimport os');
        const next = await collect(session.generate({ maxBytes: 8 }));
        session.close();
        const other = await model.session();
        await other.append(`${long.slice(0, length)}\n\nimport os`);
        const fresh = await collect(other.generate({ maxBytes: 8 }));
        other.close();
        return { next: next.bytes, fresh: fresh.bytes };
      }, LONG);
      assert.deepEqual(next, fresh);
    });

    test('an aborted generation keeps the bytes that came as pieces', async () => {
      const { same, bytes, length, next } = await model.evaluate(async (model, prompt) => {
        const session = await model.session();
        await session.append(prompt);
        const reason = new Error('enough');
        const controller = new AbortController();
        const bytes = [];
        const same = await (async () => {
          for await (const piece of session.generate({ maxBytes: 5000, signal: controller.signal })) {
            bytes.push(...piece.bytes);
            controller.abort(reason);
          }
        })().then(() => 'the loop did not throw', (error) => error === reason);
        const { length } = await session.state();
        const next = await collect(session.generate({ maxBytes: 8 }));
        session.close();
        return { same, bytes, length, next: next.bytes };
      }, PROMPT);
      assert.equal(same, true);
      assert.equal(length, PROMPT.length + bytes.length, 'every byte that the session has came as a piece');
      assert.ok(bytes.length < 190, `${bytes.length} bytes came`);
      const all = [...bytes, ...next];
      assert.deepEqual(all, whole.slice(0, all.length));
    });

    test('a call that is aborted at once rejects with the reason', async () => {
      const { kept, length } = await model.evaluate(async (model, [prompt, long]) => {
        const session = await model.session();
        await session.append(prompt);
        const other = await model.session();
        const calls = {
          generate: (signal) => collect(session.generate({ maxBytes: 200, signal })),
          append: (signal) => other.append(long.slice(0, 2000), { signal }),
          score: (signal) => model.score(prompt, { signal }),
        };
        const kept = {};
        for (const [name, call] of Object.entries(calls)) {
          const reason = new Error('at once');
          const controller = new AbortController();
          const called = call(controller.signal);
          controller.abort(reason);
          kept[name] = await called.then(() => 'it did not reject', (error) => error === reason || String(error));
        }
        const { length } = await session.state();
        session.close();
        other.close();
        return { kept, length };
      }, [PROMPT, LONG]);
      assert.deepEqual(kept, { generate: true, append: true, score: true });
      assert.ok(length < PROMPT.length + 90, `${length} bytes`);
    });

    test('leaving the loop ends the generation and frees the session', async () => {
      const { length, next, busy } = await model.evaluate(async (model, prompt) => {
        const session = await model.session();
        await session.append(prompt);
        for await (const piece of session.generate({ maxBytes: 5000 })) {
          if (piece.text) break;
        }
        const busy = await failure(session.state());
        const { length } = await session.state();
        const next = await collect(session.generate({ maxBytes: 8 }));
        session.close();
        return { length, next: next.bytes, busy };
      }, PROMPT);
      assert.equal(busy, null);
      const at = length - PROMPT.length;
      assert.ok(at > 0 && at < 190, `${at} bytes were generated`);
      assert.deepEqual(next, whole.slice(at, at + 8));
    });

    test("a loop over the model's own generation leaves nothing behind", async () => {
      const { held, kept } = await model.evaluate(async (model, prompt) => {
        const deviceBytes = async () => (await model.usage()).deviceBytes;
        const before = await deviceBytes();
        const held = [];
        for await (const piece of model.generate(prompt, { maxBytes: 5000 })) {
          held.push((await deviceBytes()) - before);
          if (piece) break;
        }
        const controller = new AbortController();
        const more = model.generate(prompt, { maxBytes: 5000, signal: controller.signal });
        await collect(more, () => controller.abort()).catch(() => {});
        return { held, kept: (await deviceBytes()) - before };
      }, PROMPT);
      assert.ok(held[0] > 0);
      assert.equal(kept, 0);
    });

    test('an aborted score rejects with the reason', async () => {
      const same = await model.evaluate(async (model, long) => {
        const reason = new Error('enough');
        const controller = new AbortController();
        const onProgress = () => controller.abort(reason);
        const scoring = model.score(long, { onProgress, signal: controller.signal });
        return scoring.then(() => 'it did not reject', (error) => error === reason);
      }, LONG);
      assert.equal(same, true);
    });
  });
}
