/** Greedy generations of every golden model equal those of the reference, on the GPU and on the CPU. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage } from './browser.js';
import { checkGenerations, generations } from './golden.js';
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

test('the golden models are there', () => {
  assert.deepEqual(models.map(({ name }) => name).sort(), ['blama', 'bwen', 'nano', 'nano_trained', 'noexp', 'swa']);
});

for (const device of ['gpu', 'cpu']) {
  for (const model of models) {
    test(`${model.name} generates what the reference does on the ${device.toUpperCase()}`, () =>
      checkGenerations((what) => page.evaluate(generations, what), model, { device }));
  }
}
