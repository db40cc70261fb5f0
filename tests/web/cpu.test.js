/** Browsers without WebGPU: the CPU computes. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { closePage, launch, openPage } from './browser.js';
import { trainedModel } from './models.js';
import { Server, built } from './server.js';

const PROMPT = 'class Reader:';
const LONG = 'def read(self, path):\n    return open(path).read()\n\n'.repeat(400).slice(0, 20_000);
/** Required multiple of SwiftShader's speed. */
const TIMES = 3;
/** Maximum time to the first byte after loading, in milliseconds. */
const FIRST_BYTE = 1000;

const demo = await trainedModel();
let server, browser, page;

before(async () => {
  const wasm = new Map([['bolmo_bg.wasm', await readFile(path.join(built, 'wasm-cpu/bolmo_bg.wasm'))]]);
  server = await Server.start({ demo, wasm });
  browser = await launch({ webgpu: false });
  page = await openPage(browser, server);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Addresses of the wasm files that are fetched while `work` runs. */
async function wasmFiles(page, work) {
  const files = [];
  const note = (request) => request.url().endsWith('.wasm') && files.push(new URL(request.url()).pathname);
  page.context().on('request', note);
  try {
    await work();
  } finally {
    page.context().off('request', note);
  }
  return files;
}

test('a probe says that the CPU will compute, and why', async () => {
  const files = await wasmFiles(page, async () => {
    const { ok, reason, device, webgpu, adapter, model } = await page.evaluate(() => Bolmo.probe());
    assert.deepEqual({ ok, reason, device, adapter, model }, {
      ok: true, reason: null, device: 'cpu', adapter: null, model: null,
    });
    assert.equal(webgpu.ok, false);
    assert.match(webgpu.reason, /GPU/);
  });
  assert.deepEqual(files, [], 'nothing is fetched for that');
  const { ok, device, model } = await page.evaluate(() => Bolmo.probe('/demo'));
  assert.deepEqual({ ok, device }, { ok: true, device: 'cpu' });
  assert.ok(model.formats.every(({ bytes, fits }) => bytes > 0 && fits === 'yes'));
});

test('a model is loaded for the CPU, and only the file for it is fetched', async () => {
  const own = await openPage(browser, server);
  const files = await wasmFiles(own, async () => {
    const { info, deviceBytes } = await own.evaluate(async () => {
      const model = await Bolmo.load('/demo');
      const { deviceBytes } = await model.usage();
      model.close();
      return { info: model.info, deviceBytes };
    });
    assert.equal(info.device, 'cpu');
    assert.equal(info.adapter.software, false);
    assert.match(info.adapter.name, /CPU/);
    assert.ok(info.weightBytes <= deviceBytes);
  });
  assert.ok(files.every((file) => file.includes('wasm-cpu')), files.join(', '));
  await closePage(own);
});

test('without a worker, the CPU is refused', async () => {
  const refused = (options) => page.evaluate((options) => failure(Bolmo.load('/demo', options)), options);
  const asked = await refused({ worker: false, device: 'cpu' });
  assert.deepEqual([asked.class, asked.kind], ['InvalidArgumentError', 'invalid argument']);
  assert.match(asked.message, /worker/);
  const chosen = await refused({ worker: false });
  assert.equal(chosen.class, 'NoWebGpuError');
  const none = await refused({ device: 'gpu' });
  assert.equal(none.class, 'NoWebGpuError');
  const wrong = await refused({ device: 'npu' });
  assert.equal(wrong.class, 'InvalidArgumentError');
  assert.match(wrong.message, /'auto', 'gpu' or 'cpu', found "npu"/);
});

test('a browser without SIMD is reported', async () => {
  // It runs in the page before anything else.
  const old = await openPage(browser, server, { init: [() => (WebAssembly.validate = () => false)] });
  const refused = (options) => old.evaluate((options) => failure(Bolmo.load('/demo', options)), options);
  const [auto, cpu] = [await refused({}), await refused({ device: 'cpu' })];
  assert.deepEqual([auto.class, cpu.class], ['NoWebGpuError', 'UnsupportedError']);
  assert.match(auto.message, /GPU/);
  assert.match(cpu.message, /SIMD/);
  const { ok, device, reason } = await old.evaluate(() => Bolmo.probe());
  assert.deepEqual({ ok, device, reason }, { ok: false, device: null, reason: auto.message });
  await closePage(old);
});

test('the file for the CPU can be elsewhere', async () => {
  const load = (options) => page.evaluate((options) => failure(Bolmo.load('/demo', options)), options);
  const missing = await load({ cpuWasmUrl: '/nowhere.wasm' });
  assert.equal(missing.class, 'NetworkError');
  assert.match(missing.message, /nowhere\.wasm.*cpuWasmUrl/);
  assert.equal(await load({ cpuWasmUrl: '/wasm/bolmo_bg.wasm' }), null);
});

test('a GPU that cannot be used leaves the work to the CPU', async () => {
  const gpu = await launch();
  try {
    const lacking = await openPage(gpu, server);
    // The worker asks for the adapter again, and gets one with low limits.
    await lacking.route('**/worker.js', async (route) => {
      const response = await route.fetch();
      const lower = `Object.defineProperty(GPUAdapter.prototype, 'limits', { get: () => ({
        maxStorageBuffersPerShaderStage: 1, maxBufferSize: 1 << 28, maxStorageBufferBindingSize: 1 << 27 }) });`;
      await route.fulfill({ response, body: `${lower}\n${await response.text()}` });
    });
    const { device, webgpu, adapter } = await lacking.evaluate(() => Bolmo.probe());
    assert.deepEqual([device, webgpu.ok], ['cpu', false]);
    assert.ok(webgpu.reason.includes(adapter.unusable));
    const info = await lacking.evaluate(async () => {
      const model = await Bolmo.load('/demo');
      model.close();
      return model.info;
    });
    assert.equal(info.device, 'cpu');
  } finally {
    await gpu.close();
  }
});

test('work on the CPU tells its progress, and can be aborted at any time', async () => {
  const { told, same, length, total, generated, sameToo, between } = await page.evaluate(async (long) => {
    const model = await Bolmo.load('/demo');
    const session = await model.session();
    const controller = new AbortController();
    const reason = new Error('enough');
    const told = [];
    const onProgress = (done) => {
      told.push(done);
      if (told.length === 2) controller.abort(reason);
    };
    const appending = session.append(long, { onProgress, signal: controller.signal });
    const same = await appending.then(() => false, (error) => error === reason);
    const { length } = await session.state();

    const other = new AbortController();
    let generated = 0, aborted = 0;
    const sameToo = await (async () => {
      for await (const piece of session.generate({ maxBytes: 100_000, signal: other.signal })) {
        generated += piece.bytes.length;
        if (generated > 20 && !aborted) {
          aborted = performance.now();
          other.abort(reason);
        }
      }
    })().then(() => false, (error) => error === reason);
    const between = performance.now() - aborted;
    model.close();
    return { told, same, length, total: long.length, generated, sameToo, between };
  }, LONG);
  assert.ok(told.length >= 2 && told.every((done, i) => i === 0 || done > told[i - 1]), told.join(', '));
  assert.ok(same && sameToo, 'both calls reject with the reason');
  assert.ok(length < total, `${length} of ${total} bytes`);
  assert.ok(generated < 2000 && between < 1000, `${generated} bytes, ended after ${between} ms`);
});

test('a worker that computes answers other calls', async () => {
  const waits = await page.evaluate(async (prompt) => {
    const model = await Bolmo.load('/demo');
    const waits = [];
    for await (const piece of model.generate(prompt, { maxBytes: 400 })) {
      if (piece.bytes.length === 0 || waits.length === 5) continue;
      const asked = performance.now();
      await model.usage();
      waits.push(performance.now() - asked);
    }
    model.close();
    return waits;
  }, PROMPT);
  const middle = waits.toSorted((a, b) => a - b)[2];
  assert.ok(middle < 200, waits.join(', '));
});

test('a generation does not wait for timers, which browsers slow down in hidden pages', async () => {
  const hidden = await openPage(browser, server);
  await hidden.route('**/worker.js', async (route) => {
    const response = await route.fetch();
    const slow = '; const soon = self.setTimeout; self.setTimeout = (work, time) => soon(work, time + 1000);';
    await route.fulfill({ response, body: (await response.text()) + slow });
  });
  const times = await hidden.evaluate(async (prompt) => {
    const model = await Bolmo.load('/demo');
    const times = [];
    for (let i = 0; i < 2; i++) {
      const begun = performance.now();
      await collect(model.generate(prompt, { maxBytes: 1000 }));
      times.push(performance.now() - begun);
    }
    model.close();
    return times;
  }, PROMPT);
  assert.ok(Math.min(...times) < 1000, `1000 bytes in ${times} ms`);
  await closePage(hidden);
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

test('the CPU is faster than a driver that runs shaders on it, and the first byte comes soon', async () => {
  const both = await launch();
  try {
    const fast = await openPage(both, server);
    await fast.evaluate(async () => (await Bolmo.load('/demo', { device: 'cpu' })).close());
    const speeds = {};
    for (const device of ['cpu', 'gpu']) {
      const model = await fast.evaluateHandle(async (device) => {
        const begun = performance.now();
        const model = await Bolmo.load('/demo', { device });
        return Object.assign(model, { loading: performance.now() - begun });
      }, device);
      const { first } = await model.evaluate(generation, [PROMPT, 8]);
      const loading = await model.evaluate((model) => model.loading);
      const all = [];
      for (let i = 0; i < 3; i++) all.push((await model.evaluate(generation, [PROMPT, 150])).speed);
      speeds[device] = median(all);
      const [load, byte] = [loading, first].map((milliseconds) => milliseconds.toFixed(0));
      const name = device === 'cpu' ? 'CPU' : 'SwiftShader';
      console.log(`${name}: warm load ${load} ms, first byte ${byte} ms later, ${speeds[device].toFixed(0)} B/s`);
      if (device === 'cpu') assert.ok(first <= FIRST_BYTE, `${first} ms`);
      await model.evaluate((model) => model.close());
    }
    assert.ok(speeds.cpu >= TIMES * speeds.gpu, `${speeds.cpu} and ${speeds.gpu} bytes per second`);
  } finally {
    await both.close();
  }
});
