/** Calls that are aborted before they begin, and loads that are aborted while they wait and work. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage, withoutKernels } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

let server, browser, page;

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server, { init: [withoutKernels] });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test('calls with an aborted signal reject with its reason', async () => {
  const kept = await page.evaluate(async () => {
    const reason = new Error('no need');
    const signal = AbortSignal.abort(reason);
    const model = await Bolmo.load('/demo', { worker: false });
    const session = await model.session();
    const calls = {
      load: () => Bolmo.load('/demo', { signal }),
      'load on the thread of the page': () => Bolmo.load('/demo', { worker: false, signal }),
      probe: () => Bolmo.probe('/demo', { signal }),
      append: () => session.append('x', { signal }),
      generate: () => session.generate({ signal }).next(),
      'generate of the model': () => model.generate('x', { signal }).next(),
      score: () => model.score('x', { signal }),
      reload: () => model.reload({ signal }),
    };
    const kept = {};
    for (const [name, call] of Object.entries(calls)) {
      kept[name] = await call().then(() => 'it did not reject', (error) => error === reason || String(error));
    }
    kept.length = (await session.state()).length;
    model.close();
    return kept;
  });
  const { length, ...rejected } = kept;
  for (const [name, same] of Object.entries(rejected)) {
    assert.equal(same, true, `${name} rejects with the signal's reason`);
  }
  assert.equal(length, 0);
});

/** What makes a load wait on the network, and when to abort it. */
const waits = {
  'a load is aborted while the server sends nothing': [(answer) => void (answer.stallAfter = 100_000), 500],
  'a load is aborted while a failed request waits for its retry': [
    (answer) => void (answer.status = 500), 1000,
  ],
};

for (const [what, [fault, after]] of Object.entries(waits)) {
  test(what, async () => {
    server.setFault('/demo/model.safetensors', (answer, request) => request.method === 'GET' && fault(answer));
    const seen = await page.evaluate(async (after) => {
      const seen = [];
      for (const worker of [true, false]) {
        const reason = new Error('too slow');
        const controller = new AbortController();
        const loading = Bolmo.load('/demo', { worker, signal: controller.signal, cache: false });
        await wait(after);
        const start = performance.now();
        controller.abort(reason);
        const same = await loading.then(() => 'it did not reject', (error) => error === reason || describe(error));
        seen.push({ worker, same, took: performance.now() - start });
      }
      return seen;
    }, after);
    server.clearFaults();
    for (const { worker, same, took } of seen) {
      assert.equal(same, true, worker ? 'in a worker' : "on the page's thread");
      assert.ok(took < 500, `it took ${took} ms`);
    }
  });
}

test('a load is aborted while weights are written to the device', async () => {
  const { same, again } = await page.evaluate(async () => {
    const reason = new Error('changed my mind');
    const controller = new AbortController();
    const onProgress = ({ loaded }) => loaded > 0 && controller.abort(reason);
    const options = { worker: false, signal: controller.signal, onProgress };
    const same = await Bolmo.load('/demo', options).then(() => 'it did not reject', (error) => error === reason);
    const again = await failure(Bolmo.load('/demo', { worker: false }));
    return { same, again };
  });
  assert.equal(same, true);
  assert.equal(again, null);
});
