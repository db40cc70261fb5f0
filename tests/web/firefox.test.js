/** The package in Firefox, where there is one: on the CPU, which needs no graphics driver. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';

import puppeteer from 'puppeteer-core';

import { checkGenerations, generations } from './golden.js';
import { goldenModels } from './models.js';
import { Server } from './server.js';

const PROMPT = 'class Reader:';
const executablePath = [process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox'].find((file) =>
  existsSync(file ?? ''),
);
const skip = executablePath ? false : 'Firefox is not installed: scripts/setup.sh firefox';

const models = await goldenModels();
let server, browser, page;

before(async () => {
  if (skip) return;
  server = await Server.start(Object.fromEntries(models.map(({ name, files }) => [name, files])));
  browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true });
  page = await browser.newPage();
  await page.goto(`${server.origin}/`);
  await page.waitForFunction(() => globalThis.ready);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test('a probe says what would compute', { skip }, async (t) => {
  const { ok, device, webgpu } = await page.evaluate(() => Bolmo.probe());
  t.diagnostic(`${await browser.version()}: ${device}, WebGPU: ${webgpu.reason ?? 'works'}`);
  assert.equal(ok, true);
  assert.ok(device === 'gpu' || webgpu.reason);
});

for (const model of models) {
  test(`${model.name} generates what the reference does`, { skip }, () =>
    checkGenerations((what) => page.evaluate(generations, what), model, { device: 'cpu' }));
}

test('a generation can be aborted, and continues in a page that is hidden', { skip }, async (t) => {
  const time = (prompt) =>
    page.evaluate(async (prompt) => {
      globalThis.model ??= await Bolmo.load('/nano_trained', { device: 'cpu' });
      const begun = performance.now();
      const { bytes } = await collect(model.generate(prompt, { maxBytes: 1000 }));
      return { bytes: bytes.length, time: performance.now() - begun, state: document.visibilityState };
    }, prompt);
  await time(PROMPT);
  const seen = await time(PROMPT);
  const other = await browser.newPage();
  await other.bringToFront();
  const unseen = await time(PROMPT);
  t.diagnostic(`1000 bytes in ${seen.time} ms ${seen.state}, ${unseen.time} ms ${unseen.state}`);
  assert.deepEqual([seen.bytes, unseen.bytes], [1000, 1000]);
  assert.ok(unseen.time < 10 * seen.time + 1000, 'nothing waits for timers, which are slow in hidden pages');
  const generated = await page.evaluate(async (prompt) => {
    const controller = new AbortController();
    let generated = 0;
    const reading = async () => {
      for await (const piece of model.generate(prompt, { maxBytes: 100_000, signal: controller.signal })) {
        generated += piece.bytes.length;
        if (generated > 20) controller.abort(new Error('enough'));
      }
    };
    await reading().catch((error) => error.message === 'enough' || Promise.reject(error));
    return generated;
  }, PROMPT);
  assert.ok(generated < 5000, `${generated} bytes`);
});
