/**
 * Tests of the built page in a browser; run `npm run build` first.
 *
 * CHROMIUM names the browser, by default /usr/bin/chromium. BOLMO_SCREENSHOT=FILE.png saves pictures of the page to
 * FILE.png and FILE-dark.png.
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const checkpoint = fileURLToPath(new URL('../../demo-model', import.meta.url));
const noCheckpoint = fileURLToPath(new URL('../src', import.meta.url));
const axe = fileURLToPath(import.meta.resolve('axe-core/axe.min.js'));

// The kernels are compiled for the first text, which takes many seconds on a software adapter.
const PATIENCE = { timeout: 120_000 };
const LIMIT = { timeout: 300_000 };

const TYPES = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
};

/** A minimal server: whole files, below a folder of its own, with no headers except type and length. */
const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const name = pathname.replace(/^\/some\/folder\//, '').replace(/^$/, 'index.html');
  const body = name.includes('..') ? undefined : await readFile(dist + name).catch(() => undefined);
  if (!body) return response.writeHead(404).end();
  const type = TYPES[path.extname(name)] ?? 'application/octet-stream';
  response.writeHead(200, { 'content-type': type, 'content-length': body.length });
  response.end(request.method === 'HEAD' ? undefined : body);
});

let browser;
let page;
let address;
/** Console errors of the pages, and requests to other servers. */
const complaints = [];

async function open(options = {}) {
  const opened = await browser.newPage({ viewport: { width: 1240, height: 900 }, colorScheme: 'light', ...options });
  opened.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  opened.on('pageerror', (error) => complaints.push(String(error)));
  opened.on('request', (request) => {
    const local = /^(data|blob):/.test(request.url()) || request.url().startsWith(address);
    if (!local) complaints.push(request.url());
  });
  return opened;
}

const text = (id) => page.locator(`#${id}`).innerText();
const says = async (id, pattern) => {
  const matches = ([id, source]) => new RegExp(source).test(document.getElementById(id).textContent);
  try {
    await page.waitForFunction(matches, [id, pattern.source], PATIENCE);
  } catch {
    assert.fail(`${id}: no match of ${pattern}; status: ${await text('status')}; alert: ${await text('alert')}`);
  }
};
const status = (pattern) => says('status', pattern);
const ratio = async () => Number(await text('ratio'));

async function write() {
  // The status of the previous text must not count.
  await page.evaluate(() => (document.getElementById('status').textContent = ''));
  await page.locator('#write').click();
  await status(/^Wrote/);
}

before(async () => {
  await new Promise((resolve) => server.listen(0, 'localhost', resolve));
  address = `http://localhost:${server.address().port}/some/folder/`;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    chromiumSandbox: false,
    args: [
      '--enable-unsafe-webgpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  page = await open();
  await page.goto(address);
}, LIMIT);

after(async () => {
  await browser?.close();
  server.close();
});

test('the demo model loads by itself', LIMIT, async () => {
  await status(/^Demo model is ready/);
  assert.match(await text('gpu'), /^WebGPU works here: /);
  assert.match(await text('fit'), /^Demo model (fits|may fit): about .* MiB of memory as f32/);
  assert.match(await text('facts'), /\d\.\d MiB as f32[^]*Loaded\s+in .* from the network/);
  assert.equal(await page.locator('#loading').isVisible(), false);
});

test('the keyboard alone gets to Write, and the text shows its patches', LIMIT, async () => {
  const stations = [];
  while (stations.at(-1) !== 'write' && stations.length < 12) {
    await page.keyboard.press('Tab');
    stations.push(await page.evaluate(() => document.activeElement.id));
    // Tab has selected the contents of the field.
    if (stations.at(-1) === 'max-bytes') await page.keyboard.type('60');
  }
  assert.deepEqual(stations, ['prompt', 'max-bytes', 'temperature', 'penalty', 'seed', 'bias', 'write']);
  await page.keyboard.press('Enter');
  await status(/^Wrote 60 bytes in \d+ patches, .* bytes per second/);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'write');

  const prompt = await page.locator('#text .patch.prompt').allTextContents();
  assert.equal(prompt.join(''), 'This is a story about Mia,');
  assert.ok(prompt.length > 1, 'the prompt has patches');
  const made = page.locator('#text .patch:not(.prompt)');
  assert.equal((await made.allTextContents()).join('').length, 60);
  const bytes = await made.evaluateAll((spans) => spans.map((span) => Number(span.style.getPropertyValue('--bytes'))));
  assert.equal(bytes.reduce((sum, some) => sum + some), 60);
  assert.match(await made.first().getAttribute('title'), /^patch \d+: .*\d bytes?/);
  const colors = await made.evaluateAll(
    (spans) => new Set(spans.map((span) => getComputedStyle(span).backgroundColor)).size,
  );
  assert.equal(colors, 2);

  for (const id of ['speed', 'first', 'ratio', 'written', 'device-memory', 'wasm-memory', 'stored']) {
    assert.match(await text(id), /\d/, id);
  }
  await page.locator('summary').click();
  // The list is filled by the event `toggle`, which comes after the click.
  await page.locator('#rows tr').first().waitFor({ timeout: PATIENCE.timeout });
  assert.equal(await page.locator('#rows tr').count(), await page.locator('#text .patch').count());
  await page.locator('summary').click();
});

test('equal seeds give equal texts', LIMIT, async () => {
  const first = await page.locator('#text').textContent();
  await write();
  assert.equal(await page.locator('#text').textContent(), first);
});

test('Stop and Esc end the generation and keep the text', LIMIT, async () => {
  await page.locator('#max-bytes').fill('4000');
  for (const stop of [() => page.locator('#stop').click(), () => page.keyboard.press('Escape')]) {
    await page.keyboard.press('Control+Enter');
    await page.waitForFunction(() => document.querySelectorAll('#text .patch:not(.prompt)').length > 5, null, PATIENCE);
    await stop();
    await status(/^Stopped\. Wrote \d+ bytes/);
    const length = (await page.locator('#text .patch:not(.prompt)').allTextContents()).join('').length;
    assert.ok(length > 5 && length < 4000, `${length}`);
  }
});

test('the boundary bias makes patches longer or shorter', LIMIT, async () => {
  await page.locator('#max-bytes').fill('60');
  const bias = page.locator('#bias');
  const press = async (key, times) => {
    await bias.focus();
    for (let time = 0; time < times; time++) await page.keyboard.press(key);
  };
  await press('ArrowLeft', 10);
  assert.equal(await text('bias-value'), '−5.0');
  await write();
  const long = await ratio();
  await press('ArrowRight', 20);
  assert.equal(await text('bias-value'), '+5.0');
  await write();
  const short = await ratio();
  await press('ArrowLeft', 10);
  assert.ok(long > 1.1 * short && short >= 1, `${long} and ${short} bytes per patch`);
});

test('every byte of a prompt is in a patch, also inside characters', LIMIT, async () => {
  await page.locator('#prompt').fill('Grüße, 日本 😀\n\n');
  await page.locator('#max-bytes').fill('20');
  await write();
  assert.equal((await page.locator('#text .patch.prompt').allTextContents()).join(''), 'Grüße, 日本 😀\n\n');
  const prompt = page.locator('#text .patch.prompt');
  const bytes = await prompt.evaluateAll((spans) =>
    spans.map((span) => Number(span.style.getPropertyValue('--bytes'))),
  );
  assert.equal(bytes.reduce((sum, some) => sum + some), Buffer.byteLength('Grüße, 日本 😀\n\n'));
  await page.locator('#prompt').fill('This is a story about Mia,');
});

async function drop(folder) {
  const devtools = await page.context().newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop']) {
    await devtools.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
  }
  await devtools.detach();
}

test('a folder without a checkpoint gives an error with advice, and the page stays usable', LIMIT, async () => {
  for (const bring of [(folder) => page.locator('#folder').setInputFiles(folder), drop]) {
    await bring(noCheckpoint);
    const alert = page.getByRole('alert');
    await alert.getByText('not a checkpoint folder').waitFor(PATIENCE);
    assert.match(await alert.innerText(), /A checkpoint is a folder with config\.json/);
    assert.match(await text('status'), /Demo model is still loaded/);
    await write();
    assert.equal(await alert.innerText(), '');
  }
});

test('a checkpoint folder can be dropped and chosen, and reloaded in a smaller format', LIMIT, async () => {
  for (const bring of [drop, (folder) => page.locator('#folder').setInputFiles(folder)]) {
    await bring(checkpoint);
    await status(/^demo-model is ready/);
    assert.match(await text('facts'), /demo-model[^]*from files/);
    await page.locator('#quantize').selectOption('q8');
    await page.locator('#requantize').click();
    await says('facts', / as q8/);
    await write();
    await page.locator('#demo').click();
    await status(/^Demo model is ready/);
    assert.match(await text('facts'), /from the browser’s storage/);
  }
});

test('the browser’s storage can be deleted', LIMIT, async () => {
  await page.locator('#forget').click();
  await status(/is deleted/);
});

test('loading can be stopped and restarted', LIMIT, async () => {
  const own = page;
  page = await open();
  try {
    await page.route('**/model.safetensors', () => {});
    await page.goto(address);
    await page.locator('#loading').waitFor(PATIENCE);
    await says('fit', /./);
    await page.keyboard.press('Escape');
    await status(/^Stopped/);
    await page.unroute('**/model.safetensors');
    await page.locator('#demo').click();
    await status(/^Demo model is ready/);
  } finally {
    await page.close();
    page = own;
  }
});

test('without WebGPU the CPU computes', LIMIT, async () => {
  const own = page;
  page = await open();
  try {
    await page.addInitScript(() => delete Navigator.prototype.gpu);
    await page.goto(address);
    await status(/^Demo model is ready/);
    assert.equal(await text('gpu'), 'WebGPU does not work here. The CPU computes.');
    assert.match(await text('facts'), /the CPU, on one thread/);
    await write();
    await audit('on the CPU');
  } finally {
    await page.close();
    page = own;
  }
});

test('where nothing can compute, the page gives advice', LIMIT, async () => {
  const own = page;
  page = await open();
  try {
    await page.addInitScript(() => {
      delete Navigator.prototype.gpu;
      // As in browsers without SIMD.
      WebAssembly.validate = () => false;
    });
    await page.goto(address);
    await page.getByRole('alert').getByText('has no WebGPU').waitFor(PATIENCE);
    assert.match(await text('alert'), /Chrome and Edge have WebGPU since/);
    assert.equal(await text('gpu'), 'WebGPU does not work here.');
    assert.equal(await page.locator('#write').getAttribute('aria-disabled'), 'true');
    await audit('without WebGPU');
  } finally {
    await page.close();
    page = own;
  }
});

async function audit(where) {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.addScriptTag({ path: axe });
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes[0].html, nodes[0].failureSummary]), [], where);
}

test('axe finds no violations, in light and dark, and nothing overflows at 1240 and 320 pixels', LIMIT, async () => {
  await write();
  await page.locator('summary').click();
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const width of [1240, 320]) {
      await page.setViewportSize({ width, height: 800 });
      await audit(`${colorScheme}, ${width} pixels`);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `no wider than ${width}`);
    }
  }
  // The same with an error.
  await page.locator('#folder').setInputFiles(noCheckpoint);
  await page.getByRole('alert').getByText('config.json').first().waitFor(PATIENCE);
  for (const colorScheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme });
    await audit(`${colorScheme}, with an error`);
  }
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 320, 'no wider with an error');
  await page.getByRole('button', { name: 'Dismiss' }).click();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
});

test('no page logged an error or used another server', () => assert.deepEqual(complaints, []));

const picture = process.env.BOLMO_SCREENSHOT;
test('screenshots are saved', { ...LIMIT, skip: !picture && 'BOLMO_SCREENSHOT is not set' }, async () => {
  await page.close();
  page = await open({ viewport: { width: 1180, height: 900 }, deviceScaleFactor: 1.5 });
  await page.goto(address);
  await status(/^Demo model is ready/);
  // The first text compiles the kernels, so the pictures show the speed of a second one.
  await page.locator('#max-bytes').fill('40');
  await write();
  await page.locator('#max-bytes').fill('400');
  await write();
  await page.mouse.move(0, 0);
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    const path = colorScheme === 'light' ? picture : picture.replace(/(\.png)?$/, '-dark$1');
    await page.screenshot({ path, fullPage: true });
  }
});
