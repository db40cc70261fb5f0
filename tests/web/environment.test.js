/** Browsers that cannot run models, and what is known before a model is fetched. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { closePage, launch, openPage, withoutKernels } from './browser.js';
import { trainedModel } from './models.js';
import { Server, built } from './server.js';

const demo = await trainedModel();
let server, browser, page;

before(async () => {
  const wasm = new Map([['bolmo_bg.wasm', await readFile(path.join(built, 'wasm/bolmo_bg.wasm'))]]);
  server = await Server.start({ demo, empty: new Map(), wasm });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(() => closePage(page));

const open = async (...init) => void (page = await openPage(browser, server, { init }));
const failedLoad = (options) => page.evaluate((options) => failure(Bolmo.load('/demo', options)), options);
const probe = (source, options) =>
  page.evaluate(([source, options]) => Bolmo.probe(source, options), [source, options]);

/** These run in the page before anything else. */
const withoutWebGpu = () => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined });
const withoutAdapter = () => {
  GPU.prototype.requestAdapter = async () => null;
};
const withoutDevice = () => {
  GPUAdapter.prototype.requestDevice = async () => {
    throw new DOMException('no device today', 'OperationError');
  };
};
const withLowLimits = () => {
  Object.defineProperty(GPUAdapter.prototype, 'limits', {
    get: () => ({ maxStorageBuffersPerShaderStage: 1, maxBufferSize: 1 << 28, maxStorageBufferBindingSize: 1 << 27 }),
  });
};

test('a browser without WebGPU is reported before anything is fetched', async (t) => {
  await open(withoutWebGpu);
  for (const options of [{ device: 'gpu' }, { worker: false }]) {
    server.takeRequests();
    const error = await failedLoad(options);
    t.diagnostic(`no WebGPU -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'NoWebGpuError');
    assert.deepEqual(server.takeRequests(), [], 'nothing is fetched for nothing');
  }
  const { ok, reason, device, webgpu, adapter, model } = await probe(undefined, { device: 'gpu' });
  t.diagnostic(`probe: ${reason}`);
  assert.deepEqual({ ok, device, adapter, model }, { ok: false, device: null, adapter: null, model: null });
  assert.match(reason, /WebGPU/);
  assert.deepEqual(webgpu, { ok: false, reason });
  // Sizes are still reported.
  const sized = await probe('/demo', { device: 'gpu' });
  assert.equal(sized.ok, false);
  assert.ok(sized.model.formats.every(({ bytes, fits }) => bytes > 0 && fits === 'unknown'));
  assert.equal(sized.model.recommended, null);
});

test('an insecure page is reported', async (t) => {
  const own = await launch({ args: ['--host-resolver-rules=MAP insecure.test 127.0.0.1'] });
  try {
    page = await openPage(own, { origin: server.origin.replace('127.0.0.1', 'insecure.test') });
    const error = await failedLoad({ device: 'gpu' });
    t.diagnostic(`not secure -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'NoWebGpuError');
    assert.match(error.message, /https/);
    assert.equal((await probe(undefined, { device: 'gpu' })).reason, error.message);
    // The CPU computes there, without a cache.
    const { device, webgpu } = await probe();
    assert.deepEqual({ device, webgpu }, { device: 'cpu', webgpu: { ok: false, reason: error.message } });
    assert.equal(await failedLoad({}), null);
  } finally {
    await own.close();
  }
});

test('a browser without an adapter is reported', async (t) => {
  await open(withoutAdapter);
  const error = await failedLoad({ worker: false });
  t.diagnostic(`no adapter -> ${error?.class}: ${error?.message}`);
  assert.equal(error?.class, 'NoWebGpuError');
  const { ok, reason, adapter } = await probe(undefined, { worker: false });
  assert.deepEqual({ ok, adapter, reason }, { ok: false, adapter: null, reason: error.message });
});

test('an adapter without a device is an error of the package', async (t) => {
  await open(withoutDevice);
  const error = await failedLoad({ worker: false });
  t.diagnostic(`no device -> ${error?.class}: ${error?.message}`);
  assert.ok(error?.ours);
  assert.notEqual(error.class, 'InternalError');
});

test('an adapter with too low limits is reported', async (t) => {
  await open(withLowLimits);
  const error = await failedLoad({ worker: false });
  t.diagnostic(`low limits -> ${error?.class}: ${error?.message}`);
  const { ok, reason, adapter } = await probe(undefined, { worker: false });
  t.diagnostic(`probe: ${reason}`);
  assert.equal(ok, false);
  assert.ok(adapter.unusable);
  assert.ok(reason.includes(adapter.unusable));
  assert.equal(error?.class, 'NoWebGpuError');
});

for (const worker of [true, false]) {
  test(`a model is sized before it is fetched ${worker ? 'in a worker' : "on the page's thread"}`, async () => {
    await open(withoutKernels);
    server.takeRequests();
    const { ok, reason, device, webgpu, adapter, model, storage } = await probe('/demo', { worker });
    assert.deepEqual(server.takeRequests().map(({ method, path }) => `${method} ${path}`), [
      'HEAD /demo/config.json',
      'GET /demo/config.json',
    ]);
    assert.deepEqual({ ok, reason, device }, { ok: true, reason: null, device: 'gpu' });
    assert.deepEqual(webgpu, { ok: true, reason: null });
    assert.ok(adapter.name);
    assert.equal(adapter.software, true);
    assert.equal(adapter.unusable, null);
    assert.ok(adapter.maxBufferBytes >= adapter.maxBindingBytes && adapter.maxBindingBytes >= 1 << 27);
    assert.ok(storage.quota > 0);
    assert.deepEqual(model.formats.map(({ format }) => format), ['f32', 'f16', 'q8', 'q4']);
    for (const [i, { bytes, fits }] of model.formats.entries()) {
      assert.equal(fits, 'yes');
      assert.ok(i === 0 || bytes < model.formats[i - 1].bytes, 'smaller formats take less');
    }
    assert.equal(model.recommended, 'f32');

    const { info, deviceBytes } = await page.evaluate(async (worker) => {
      const model = await Bolmo.load('/demo', { worker });
      const { deviceBytes } = await model.usage();
      model.close();
      return { info: model.info, deviceBytes };
    }, worker);
    assert.equal(info.device, 'gpu');
    assert.equal(info.parameters, model.parameters);
    assert.ok(info.weightBytes <= deviceBytes, 'the weights are on the device');
    assert.ok(deviceBytes <= model.formats[0].bytes, 'the estimate is sufficient');
    assert.equal(info.formats, 'f32');
    assert.equal(info.hiddenSize, 64);
    assert.equal(info.maxPositions, 65536);
    assert.deepEqual(info.adapter, adapter);
    assert.match(info.fingerprint, /^[0-9a-f]{32}$/);
  });
}

test('a probe rejects for a source that cannot be read', async (t) => {
  await open();
  const error = await page.evaluate(() => failure(Bolmo.probe('/empty')));
  t.diagnostic(`probe of nothing -> ${error?.class}: ${error?.message.replaceAll(server.origin, '')}`);
  assert.equal(error?.class, 'NotFoundError');
});

/** Starts the wasm module, by a probe, which does little else. */
const failedStart = (options) => page.evaluate((options) => failure(Bolmo.probe(undefined, options)), options);

test('a missing wasm file is reported by name', async (t) => {
  await open();
  for (const worker of [true, false]) {
    const error = await failedStart({ worker, wasmUrl: '/nowhere.wasm' });
    t.diagnostic(`no wasm file -> ${error?.class}: ${error?.message.replaceAll(server.origin, '')}`);
    assert.equal(error?.class, 'NetworkError');
    assert.match(error.message, /nowhere\.wasm/);
    // An existing one starts.
    assert.equal(await failedStart({ worker, wasmUrl: '/wasm/bolmo_bg.wasm' }), null);
  }
});

test('a wasm file that failed once can be loaded again', async () => {
  await open();
  const wasmUrl = '/wasm/bolmo_bg.wasm';
  for (const worker of [true, false]) {
    server.setFault(wasmUrl, (answer) => void (answer.status = 503));
    const error = await failedStart({ worker, wasmUrl });
    server.clearFaults();
    assert.equal(error?.class, 'NetworkError');
    assert.equal(await failedStart({ worker, wasmUrl }), null);
  }
});

test('a worker that cannot be loaded is an error of the package', async (t) => {
  await open();
  const error = await page.evaluate(() =>
    failure(Bolmo.load('/demo', { createWorker: () => new Worker('/nowhere.js', { type: 'module' }) })),
  );
  t.diagnostic(`no worker -> ${error?.class}: ${error?.message}`);
  assert.ok(error?.ours);
});

test('a worker that failed once can be loaded again', async () => {
  await open();
  await page.route('**/worker.js', (route) => route.fulfill({ status: 503 }), { times: 1 });
  const error = await failedStart({});
  assert.equal(error?.class, 'NetworkError');
  // The next call gets a new worker.
  assert.equal(await failedStart({}), null);
});
