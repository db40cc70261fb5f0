/**
 * Many generations take no more memory than a few, abandoned objects are freed, and the device gets few submissions.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage, withoutKernels } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

let server, browser, page, model;

/** Runs in the page before anything else: counts the devices that are created and destroyed. */
function watchDevices() {
  globalThis.devices = { made: 0, gone: 0 };
  const gone = new WeakSet();
  const { requestDevice } = GPUAdapter.prototype;
  const { destroy } = GPUDevice.prototype;
  GPUAdapter.prototype.requestDevice = function (...args) {
    devices.made += 1;
    return requestDevice.apply(this, args);
  };
  GPUDevice.prototype.destroy = function () {
    if (!gone.has(this)) devices.gone += 1;
    gone.add(this);
    destroy.call(this);
  };
}

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server, { init: [watchDevices] });
  // On the page's own thread, so that its heap is the one that is measured.
  model = await page.evaluateHandle(() => Bolmo.load('/demo', { worker: false }));
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test('about one submission and one readback per patch suffice', async (t) => {
  const { ended, before, after } = await model.evaluate(async (model) => {
    const session = await model.session();
    await session.append('class Reader:');
    const before = await model.usage();
    const { ended } = await collect(session.generate({ maxBytes: 100 }));
    const after = await model.usage();
    session.close();
    return { ended, before, after };
  });
  const [submits, readbacks] = [after.submits - before.submits, after.readbacks - before.readbacks];
  t.diagnostic(`${ended.bytes} bytes in ${ended.patches} patches: ${submits} submits, ${readbacks} readbacks`);
  assert.equal(ended.bytes, 100);
  // A decode step ends with a patch, or after the recent average of bytes per patch; long patches need a second step.
  const most = 1.6 * ended.patches + 8;
  assert.ok(readbacks <= most, `${readbacks} readbacks`);
  assert.ok(submits <= most, `${submits} submits`);
});

test('two hundred generations take no more memory than twenty', async (t) => {
  const marks = await model.evaluate(async (model) => {
    const marks = {};
    for (let count = 1; count <= 200; count++) {
      await collect(model.generate('class Reader:', { maxBytes: 8 }));
      if (![20, 50, 200].includes(count)) continue;
      await wait(50);
      gc();
      const { deviceBytes, wasmBytes } = await model.usage();
      marks[count] = { deviceBytes, wasmBytes, heap: performance.memory.usedJSHeapSize };
    }
    return marks;
  });
  for (const [count, mark] of Object.entries(marks)) t.diagnostic(`after ${count}: ${JSON.stringify(mark)}`);
  assert.equal(marks[200].deviceBytes, marks[20].deviceBytes);
  assert.equal(marks[200].wasmBytes, marks[20].wasmBytes);
  const growth = marks[200].heap - marks[50].heap;
  assert.ok(growth < 1 << 20, `the heap grew by ${growth} bytes`);
});

test('abandoned sessions are freed', async () => {
  const { before, during, after } = await model.evaluate(async (model) => {
    const deviceBytes = async () => (await model.usage()).deviceBytes;
    const before = await deviceBytes();
    await (async () => {
      for (let i = 0; i < 5; i++) await (await model.session()).append('import os');
    })();
    const during = await deviceBytes();
    for (let tries = 0; tries < 50 && (await deviceBytes()) > before; tries++) {
      gc();
      await wait(50);
    }
    return { before, during, after: await deviceBytes() };
  });
  assert.ok(during > before);
  assert.ok(after <= before, `${before} bytes before, ${during} with sessions, ${after} after`);
});

test('abandoned models are closed, and failed loads leave no device', async () => {
  await page.context().close();
  page = await openPage(browser, server, { init: [withoutKernels, watchDevices] });
  const untilGone = (count) => page.waitForFunction((count) => (gc(), devices.gone >= count), count, { polling: 50 });

  for (let i = 0; i < 2; i++) await page.evaluate(() => Bolmo.load('/demo', { worker: false }).then(() => {}));
  await untilGone(2);

  server.setFault('/demo/model.safetensors', (answer) => {
    answer.body = Buffer.from(answer.body);
    // The last weight becomes a NaN.
    answer.body.writeUInt32LE(0x7fc00000, answer.body.length - 4);
  });
  const error = await page.evaluate(() => failure(Bolmo.load('/demo', { worker: false, cache: false })));
  assert.equal(error?.class, 'BadCheckpointError');
  await untilGone(3);
  assert.deepEqual(await page.evaluate(() => devices), { made: 3, gone: 3 });
});
