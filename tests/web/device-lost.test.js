/** A device that is lost while a model works, and the model on a new device. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { launch, openPage } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

const PROMPT = 'class Reader:';

let server;

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
});

after(() => server?.stop());

/** Runs in the page before anything else: collects the devices that are created. */
function keepDevices() {
  globalThis.devices = [];
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await request.apply(this, args);
    globalThis.devices.push(device);
    return device;
  };
}

describe("a device that the page's own code destroys", () => {
  let seen;

  before(async () => {
    const browser = await launch();
    try {
      const page = await openPage(browser, server, { init: [keepDevices] });
      seen = await page.evaluate(async (prompt) => {
        const options = { maxBytes: 32 };
        const model = await Bolmo.load('/demo', { worker: false });
        const other = await Bolmo.load('/demo', { worker: false });
        const { text } = await collect(model.generate(prompt, options));
        const kept = await model.session();
        const { fingerprint } = model.info;

        const during = await failure(
          collect(model.generate(prompt, { maxBytes: 5000 }), (_, count) => count === 1 && devices[0].destroy()),
        );
        const event = describe(await model.lost);
        const afterwards = {
          'a generation': await failure(collect(model.generate(prompt, options))),
          'a session of before': await failure(kept.append('x')),
          'a score': await failure(model.score('x')),
        };
        const unconcerned = await failure(other.session());

        await model.reload();
        let lostAgain = false;
        void model.lost.then(() => (lostAgain = true));
        const again = await collect(model.generate(prompt, options));
        const closed = await failure(kept.append('x'));
        const same = model.info.fingerprint === fingerprint;
        model.close();
        other.close();
        return { text, again: again.text, during, event, afterwards, closed, same, lostAgain, unconcerned };
      }, PROMPT);
    } finally {
      await browser.close();
    }
  });

  test('ends the generation', (t) => {
    t.diagnostic(`in the middle of a generation -> ${seen.during?.class}: ${seen.during?.message}`);
    assert.equal(seen.during?.class, 'DeviceLostError');
  });

  test('is reported by model.lost', (t) => {
    t.diagnostic(`model.lost -> ${seen.event.class}: ${seen.event.message}`);
    assert.equal(seen.event.class, 'DeviceLostError');
  });

  test('is reported by all later calls', (t) => {
    for (const [what, error] of Object.entries(seen.afterwards)) {
      t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
      assert.equal(error?.class, 'DeviceLostError', what);
    }
  });

  test('does not affect other models', () => assert.equal(seen.unconcerned, null));

  test('is replaced by reload', () => {
    assert.equal(seen.again, seen.text);
    assert.equal(seen.same, true);
    assert.equal(seen.lostAgain, false);
    assert.equal(seen.closed?.class, 'InvalidArgumentError', 'sessions of before are closed');
  });
});

test("a model in a worker reloads after the browser's GPU process crashed", async (t) => {
  const browser = await launch();
  try {
    const page = await openPage(browser, server);
    const generating = page.evaluate(async (prompt) => {
      const model = await Bolmo.load('/demo');
      globalThis.model = model;
      const { text } = await collect(model.generate(prompt, { maxBytes: 32 }));
      const generation = model.generate(prompt, { maxBytes: 50_000 });
      const during = await failure(collect(generation, () => void (globalThis.begun = true)));
      return { text, during, event: describe(await model.lost) };
    }, PROMPT);
    await page.waitForFunction(() => globalThis.begun);
    const devtools = await browser.newBrowserCDPSession();
    await devtools.send('Browser.crashGpuProcess');
    const { text, during, event } = await generating;
    t.diagnostic(`in the middle of a generation -> ${during?.class}: ${during?.message}`);
    t.diagnostic(`model.lost -> ${event?.class}: ${event?.message}`);
    assert.equal(during?.class, 'DeviceLostError');
    assert.equal(event?.class, 'DeviceLostError');
    const again = await page.evaluate(async (prompt) => {
      await model.reload();
      return (await collect(model.generate(prompt, { maxBytes: 32 }))).text;
    }, PROMPT);
    assert.equal(again, text);
  } finally {
    await browser.close();
  }
});
