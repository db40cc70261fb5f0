/** Fetched files are stored in the browser, and only missing chunks are fetched. */

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { closePage, launch, openPage, visit, withoutKernels } from './browser.js';
import { trainedModel, goldenModels } from './models.js';
import { read, write } from './safetensors.js';
import { Server } from './server.js';

/** Size of the chunks that the package fetches and stores. */
const CHUNK = 4 << 20;

const demo = await trainedModel();
/** The same model with other weights. */
const other = new Map(demo).set(
  'model.safetensors',
  (await goldenModels()).find(({ name }) => name === 'nano').files.get('model.safetensors'),
);
const weights = demo.get('model.safetensors');
const { header, data } = read(weights);
/** The trained golden model with a header so long that its file is fetched in three chunks. */
const large = new Map(demo).set('model.safetensors', write(header, data, 2 * CHUNK));

let server, browser, page, fingerprint;

before(async () => {
  server = await Server.start({ demo, large });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(async () => {
  server.clearFaults();
  server.add('demo', demo);
  if (page) await closePage(page);
});

/** Opens the page of a test, with storage of its own. */
async function open(...init) {
  page = await openPage(browser, server, { init: [withoutKernels, ...init] });
  server.takeRequests();
}

/**
 * Loads a model on the page's own thread. Returns its fingerprint, which depends on every weight, and the numbers of
 * fetched and cached bytes.
 *
 * @returns {Promise<{ fingerprint: string, fetched: number, cached: number }>}
 */
async function load(name = 'demo', { worker = false, ...options } = {}) {
  const run = async ([name, options]) => {
    let counts;
    const onProgress = ({ fetched, cached }) => (counts = { fetched, cached });
    const model = await Bolmo.load(`/${name}`, { onProgress, ...options });
    const { fingerprint } = model.info;
    model.close();
    return { fingerprint, ...counts };
  };
  return page.evaluate(run, [name, { worker, ...options }]);
}

/** The stored chunks in the origin private file system: sizes by path. */
async function keptFiles() {
  return page.evaluate(async () => {
    const found = {};
    const walk = async (folder, path) => {
      for await (const [name, entry] of folder.entries()) {
        if (entry.kind === 'directory') await walk(entry, `${path}/${name}`);
        // A file may just be renamed, and gone under this name.
        else found[`${path}/${name}`] = await entry.getFile().then(({ size }) => size, () => 0);
      }
    };
    await walk(await navigator.storage.getDirectory(), '');
    return found;
  });
}

/** Chunks are written in the background. Waits until `count` of them exist, all complete. */
async function untilKept(count) {
  for (let tries = 0; ; tries++) {
    const files = Object.values(await keptFiles());
    if (files.length >= count && files.every((size) => size > 0)) return;
    assert.ok(tries < 100, `expected ${count} stored chunks, found ${files.length}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Requests that are answered with contents of files. */
const gets = () => server.takeRequests().filter(({ method }) => method === 'GET');

/** `config.json`, both tokenizer files, and the weights. */
const FILES = 4;

test('a second load fetches nothing', async () => {
  await open();
  const first = await load();
  assert.equal(first.fetched, gets().reduce((bytes, { path }) => bytes + demo.get(path.split('/')[2]).length, 0));
  assert.equal(first.cached, 0);
  fingerprint = first.fingerprint;
  await untilKept(FILES);
  await visit(page, server);
  assert.deepEqual(await load(), { fingerprint, fetched: 0, cached: first.fetched });
  assert.deepEqual(gets(), []);
});

test('worker and page share one cache', async () => {
  await open();
  const { fetched } = await load('demo', { worker: true });
  await untilKept(FILES);
  assert.deepEqual(await load(), { fingerprint, fetched: 0, cached: fetched });
});

test('an interrupted load continues with the missing chunks', async () => {
  await open();
  // The last chunk of the weights never arrives.
  server.setFault('/large/model.safetensors', (answer, { headers }) => {
    if (headers.range?.startsWith(`bytes=${2 * CHUNK}-`)) answer.stallAfter = 10;
  });
  await page.evaluate(() => void Bolmo.load('/large', { worker: false }).catch(() => {}));
  // `config.json` and two chunks; the tokenizer would come later.
  await untilKept(3);
  await visit(page, server);
  server.clearFaults();
  server.takeRequests();
  const { fetched, fingerprint: found } = await load('large');
  const size = large.get('model.safetensors').length;
  const missing = gets();
  assert.deepEqual(
    missing.filter(({ path }) => path.endsWith('.safetensors')).map(({ range }) => range),
    [`bytes=${2 * CHUNK}-${size - 1}`],
  );
  assert.ok(!missing.some(({ path }) => path === '/large/config.json'));
  assert.ok(fetched < CHUNK, `${fetched} bytes were fetched`);
  assert.equal(found, fingerprint);
});

test('a chunk that was damaged in storage is fetched again', async () => {
  await open();
  await load();
  await untilKept(FILES);
  const [path] = Object.entries(await keptFiles()).find(([, size]) => size === weights.length);
  await page.evaluate(async (path) => {
    let folder = await navigator.storage.getDirectory();
    const parts = path.split('/').slice(1);
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
    const file = await (await folder.getFileHandle(parts.at(-1))).createWritable({ keepExistingData: true });
    await file.write({ type: 'write', position: 500_000, data: new Uint8Array([1, 2, 3, 4]) });
    await file.close();
  }, path);
  gets();
  const again = await load();
  assert.deepEqual(gets().map(({ path }) => path), ['/demo/model.safetensors']);
  assert.equal(again.fetched, weights.length);
  assert.equal(again.fingerprint, fingerprint);
  // Now it is stored undamaged again.
  await untilKept(FILES);
  assert.equal((await load()).fetched, 0);
});

test('a file that changed on the server is fetched again, and the old version deleted', async () => {
  await open();
  await load();
  await untilKept(FILES);
  const before = Object.keys(await keptFiles());
  server.add('demo', other);
  gets();
  const changed = await load();
  assert.deepEqual(gets().map(({ path }) => path), ['/demo/model.safetensors']);
  assert.notEqual(changed.fingerprint, fingerprint);
  await untilKept(FILES);
  const files = Object.keys(await keptFiles());
  assert.equal(files.length, before.length);
  assert.equal((await load()).fetched, 0);
});

test("an old version in the browser's own HTTP cache is not used", async () => {
  await open();
  server.setFault('/demo/model.safetensors', (answer) => void (answer.headers['cache-control'] = 'max-age=3600'));
  await load();
  server.add('demo', other);
  assert.notEqual((await load()).fingerprint, fingerprint);
});

test('files are fetched again after clearCache', async () => {
  await open();
  const { fetched } = await load();
  await untilKept(FILES);
  await page.evaluate(() => Bolmo.clearCache());
  assert.deepEqual(await keptFiles(), {});
  assert.deepEqual(await load(), { fingerprint, fetched, cached: 0 });
});

test('clearCache also deletes chunks that are still being written', async () => {
  await open();
  const { fetched } = await load();
  await page.evaluate(() => Bolmo.clearCache());
  await page.evaluate(() => wait(300));
  assert.deepEqual(await keptFiles(), {});
  assert.equal((await load()).fetched, fetched);
});

test('cache: false stores nothing', async () => {
  await open();
  await load('demo', { cache: false });
  const again = await load('demo', { cache: false });
  assert.equal(again.cached, 0);
  assert.deepEqual(await keptFiles(), {});
  assert.deepEqual(await page.evaluate(() => caches.keys()), []);
});

/** These run in the page before anything else. */
const withoutFiles = () => {
  delete StorageManager.prototype.getDirectory;
};
const withoutStorage = () => {
  const refuse = async () => {
    throw new DOMException('storage is refused', 'SecurityError');
  };
  StorageManager.prototype.getDirectory = refuse;
  CacheStorage.prototype.open = refuse;
  CacheStorage.prototype.keys = refuse;
  CacheStorage.prototype.delete = refuse;
};
const withoutRoom = () => {
  FileSystemFileHandle.prototype.createWritable = async () => {
    throw new DOMException('storage is full', 'QuotaExceededError');
  };
};
const withoutRoomToWrite = () => {
  FileSystemWritableFileStream.prototype.write = async () => {
    throw new DOMException('storage is full', 'QuotaExceededError');
  };
};

test('without a file system the Cache API stores the chunks', async () => {
  await open(withoutFiles);
  const first = await load();
  assert.equal(first.cached, 0);
  // Its writes also end in the background.
  await page.waitForFunction(async (files) => {
    const names = await caches.keys();
    const kept = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).length));
    return kept.filter((chunks) => chunks > 0).length === files;
  }, FILES);
  gets();
  assert.deepEqual(await load(), { fingerprint, fetched: 0, cached: first.fetched });
  assert.deepEqual(gets(), []);

  // Entries of other code stay.
  await page.evaluate(async () => {
    await caches.open('mine');
    await Bolmo.clearCache();
  });
  assert.deepEqual(await page.evaluate(() => caches.keys()), ['mine']);
  assert.equal((await load()).fetched, first.fetched);
});

for (const [what, init] of Object.entries({
  'storage is refused': withoutStorage,
  'storage is full': withoutRoom,
  'storage becomes full': withoutRoomToWrite,
})) {
  test(`${what}, and the model still loads`, async () => {
    await open(init);
    const first = await load();
    assert.equal(first.fingerprint, fingerprint);
    const again = await load();
    assert.deepEqual(again, { fingerprint, fetched: first.fetched, cached: 0 });
    await page.evaluate(() => Bolmo.clearCache());
  });
}

test("storage is refused in the page's own worker, and the model still loads", async () => {
  await open();
  const { fingerprint: found } = await page.evaluate(async (spoil) => {
    // Imports run in order: storage is disabled first.
    const text = `import ${JSON.stringify(`data:text/javascript,(${encodeURIComponent(spoil)})()`)};
      import ${JSON.stringify(new URL('/package/worker.js', location.href).href)};`;
    const address = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
    const createWorker = () => new Worker(address, { type: 'module' });
    const model = await Bolmo.load('/demo', { createWorker });
    const { fingerprint } = model.info;
    model.close();
    return { fingerprint };
  }, String(withoutStorage));
  assert.equal(found, fingerprint);
  assert.deepEqual(await keptFiles(), {});
});
