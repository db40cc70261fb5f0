/** Sessions that outlive their page as snapshots. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage, visit, withoutKernels } from './browser.js';
import { trainedModel, goldenModels } from './models.js';
import { Server } from './server.js';

let server, browser, page;

before(async () => {
  const other = (await goldenModels()).find(({ name }) => name === 'noexp').files;
  server = await Server.start({ demo: await trainedModel(), other });
  browser = await launch();
  page = await openPage(browser, server);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Runs in the page: writes a value to its database, or reads it if no value is given. */
async function stored(value) {
  const asked = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const opening = indexedDB.open('sessions', 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('snapshots');
  const database = await asked(opening);
  const store = database.transaction('snapshots', 'readwrite').objectStore('snapshots');
  const result = await asked(value ? store.put(value, 'one') : store.get('one'));
  database.close();
  return result;
}

test('a restored session continues as the original does', async () => {
  await page.evaluate(`globalThis.stored = ${stored}`);
  const undisturbed = await page.evaluate(async () => {
    const model = await Bolmo.load('/demo');
    const session = await model.session();
    await session.append('class Reader: # é');
    await collect(session.generate({ maxBytes: 12, temperature: 0.5, seed: 4 }));
    const state = await session.state();
    await stored(await session.snapshot());
    const { text } = await collect(session.generate({ maxBytes: 24 }));
    return { text, state };
  });
  await visit(page, server);
  await page.evaluate(`globalThis.stored = ${stored}`);
  const restored = await page.evaluate(async () => {
    const model = await Bolmo.load('/demo');
    const session = await model.restore(await stored());
    const state = await session.state();
    const { text } = await collect(session.generate({ maxBytes: 24 }));
    globalThis.model = model;
    return { text, state };
  });
  assert.equal(restored.text, undisturbed.text);
  assert.equal(restored.state.length, undisturbed.state.length);
  assert.deepEqual(restored.state.patchEnds, undisturbed.state.patchEnds);
});

test('damaged snapshots are rejected', async (t) => {
  const errors = await page.evaluate(async () => {
    const whole = await stored();
    const changed = (at) => whole.map((byte, i) => (i === at ? byte ^ 1 : byte));
    const damaged = {
      'its first byte': changed(0).fill(7, 0, 1),
      'its head': changed(3),
      'its middle': changed(whole.length >> 1),
      'its last byte': changed(whole.length - 1),
      'cut short': whole.slice(0, whole.length - 5),
      'too long': new Uint8Array([...whole, 0]),
      'empty': new Uint8Array(0),
      'another file': new TextEncoder().encode('{"a": 1}'),
    };
    const errors = {};
    for (const [what, bytes] of Object.entries(damaged)) errors[what] = await failure(model.restore(bytes));
    (await model.restore(whole)).close();
    return errors;
  });
  for (const [what, error] of Object.entries(errors)) {
    t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'BadCheckpointError', what);
  }
});

test('a snapshot of another model is rejected', async (t) => {
  // In the same storage, and without computing anything.
  const next = await page.context().newPage();
  await next.addInitScript(withoutKernels);
  await visit(next, server);
  await next.evaluate(`globalThis.stored = ${stored}`);
  const error = await next.evaluate(async () => {
    const model = await Bolmo.load('/other', { worker: false });
    return failure(model.restore(await stored()));
  });
  t.diagnostic(`another model -> ${error?.class}: ${error?.message}`);
  assert.equal(error?.class, 'InvalidArgumentError');
});
