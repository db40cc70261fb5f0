/** Speed of the package and of the command on the same software adapter, measured alternately in one run. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { launch, openPage } from './browser.js';
import { root, trained, trainedModel } from './models.js';
import { Server } from './server.js';

const PROMPT = 'class Reader:';
const BYTES = 120;
const ROUNDS = 5;
/** Minimum share of the command's speed. */
const SHARE = 0.6;
/** Maximum time to the first byte after loading, in milliseconds. */
const FIRST_BYTE = 2000;

const chromium = process.env.CHROMIUM ?? '/usr/bin/chromium';
const command = process.env.BOLMO ?? path.join(root, 'target/release/bolmo');
/** The CPU driver that comes with the browser, in the layout of Debian's package. */
const driver = ['/usr/lib/chromium', path.dirname(realpathSync(chromium))]
  .map((folder) => path.join(folder, 'vk_swiftshader_icd.json'))
  .find(existsSync);

let server, browser, page, model;

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server);
  // The first load fetches, the second one finds everything in the cache.
  await page.evaluate(async () => (await Bolmo.load('/demo')).close());
  model = await page.evaluateHandle(async () => {
    const begun = performance.now();
    const model = await Bolmo.load('/demo');
    return Object.assign(model, { loading: performance.now() - begun });
  });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Milliseconds to the first piece, and bytes per second after it. */
function generation(model, [prompt, maxBytes]) {
  return (async () => {
    const begun = performance.now();
    let first, bytes = 0;
    for await (const piece of model.generate(prompt, { maxBytes })) {
      if (first === undefined) first = performance.now();
      else bytes += piece.bytes.length;
    }
    return { first: first - begun, speed: (1000 * bytes) / (performance.now() - first) };
  })();
}

test('the first byte comes soon after a warm load', async () => {
  const { first } = await model.evaluate(generation, [PROMPT, 8]);
  const loading = await model.evaluate((model) => model.loading);
  const [load, byte] = [loading, first].map((milliseconds) => milliseconds.toFixed(0));
  console.log(`SwiftShader, trained golden model: warm load ${load} ms, then the first byte after ${byte} ms`);
  assert.ok(first <= FIRST_BYTE, `${first} ms`);
});

const skip = !driver || !existsSync(command);
test("decoding reaches the required share of the command's speed", { skip }, async () => {
  const speeds = { browser: [], command: [] };
  await model.evaluate(generation, [PROMPT, 40]);
  for (let round = 0; round < ROUNDS; round++) {
    speeds.browser.push((await model.evaluate(generation, [PROMPT, BYTES])).speed);
    const env = { ...process.env, VK_ICD_FILENAMES: driver };
    const args = ['generate', PROMPT, '--model', trained, '--max-bytes', String(BYTES), '--json', '--quiet'];
    // By default the command would use its CPU device, which is faster than the driver.
    args.push('--adapter', 'SwiftShader');
    const { stdout } = await promisify(execFile)(command, args, { env });
    const { adapter, decode_seconds: seconds } = JSON.parse(stdout);
    assert.match(adapter, /SwiftShader/);
    speeds.command.push(BYTES / seconds);
  }
  const share = median(speeds.browser) / median(speeds.command);
  const shown = (name) => `${name} ${median(speeds[name]).toFixed(0)} B/s`;
  console.log(`SwiftShader, trained golden model: ${shown('browser')}, ${shown('command')}, share ${share.toFixed(2)}`);
  assert.ok(share >= SHARE, `${share}`);
});
