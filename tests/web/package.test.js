/** The package as users get it: packed, installed into an empty project, type-checked, and the README's example run. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { launch } from './browser.js';
import { trainedModel, root } from './models.js';
import { Server } from './server.js';

const run = promisify(execFile);
const web = path.join(root, 'bindings/web');
let project, server, browser;

/** The README's first code block of a language. */
async function fromReadme(language) {
  const readme = await readFile(path.join(web, 'README.md'), 'utf8');
  return readme.match(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``))[1];
}

/** Every file below a folder, by its address. */
async function folder(dir) {
  const files = new Map();
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    files.set(path.relative(dir, file).split(path.sep).join('/'), await readFile(file));
  }
  return files;
}

before(async () => {
  project = await mkdtemp(path.join(tmpdir(), 'bolmo-web-'));
  const packed = await run('npm', ['pack', '--json', '--pack-destination', project], { cwd: web });
  const [{ filename }] = JSON.parse(packed.stdout);
  await writeFile(path.join(project, 'package.json'), JSON.stringify({ name: 'empty', private: true, type: 'module' }));
  const install = ['install', '--no-audit', '--no-fund', '--ignore-scripts', path.join(project, filename)];
  await run('npm', install, { cwd: project });
  await writeFile(path.join(project, 'main.ts'), await fromReadme('ts'));
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
  if (project) await rm(project, { recursive: true });
});

test('the packed files are the build, the README and the license', async () => {
  const files = [...(await folder(path.join(project, 'node_modules/bolmo-web'))).keys()];
  const odd = files.filter((file) => !/^(dist\/.*\.(js|d\.ts|wasm)|package\.json|README\.md|LICENSE)$/.test(file));
  assert.deepEqual(odd, []);
  for (const file of ['dist/index.js', 'dist/index.d.ts', 'dist/worker.js', 'dist/wasm/bolmo_bg.wasm', 'LICENSE']) {
    assert.ok(files.includes(file), file);
  }
});

test('the package has no dependencies', async () => {
  const manifest = JSON.parse(await readFile(path.join(project, 'node_modules/bolmo-web/package.json'), 'utf8'));
  assert.deepEqual(manifest.dependencies ?? {}, {});
});

test("the README's example type-checks under strict, and runs", async () => {
  const target = ['--target', 'ES2022', '--module', 'ES2022', '--moduleResolution', 'bundler', '--lib', 'ES2022,DOM'];
  const options = ['--strict', ...target];
  const tsc = path.join(web, 'node_modules/.bin/tsc');
  await run(tsc, [...options, '--types', '', '--noUncheckedIndexedAccess', 'main.ts'], { cwd: project });

  // A page without a bundler.
  const imports = { 'bolmo-web': './node_modules/bolmo-web/dist/index.js' };
  const importmap = `<script type="importmap">${JSON.stringify({ imports })}</script>`;
  const html = `<!doctype html><title>README</title><body>${importmap}
    <script type="module" src="main.js"></script>`;
  const files = await folder(project);
  files.set('index.html', Buffer.from(html));
  // The README's model is at /models/demo.
  const demo = new Map([...(await trainedModel())].map(([name, file]) => [`demo/${name}`, file]));
  server = await Server.start({ project: files, models: demo });
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(`${server.origin}/project/index.html`);
  await page.waitForFunction(() => document.body.innerText.length > 50, undefined, { timeout: 60_000 });
  assert.deepEqual(errors, []);
});

test('the compiler rejects a mistyped option', async () => {
  await writeFile(path.join(project, 'wrong.ts'), (await fromReadme('ts')).replace('maxBytes', 'maxbytes'));
  const tsc = path.join(web, 'node_modules/.bin/tsc');
  const target = ['--module', 'ES2022', '--moduleResolution', 'bundler', '--target', 'ES2022'];
  const check = run(tsc, ['--strict', '--noEmit', ...target, 'wrong.ts'], { cwd: project });
  await assert.rejects(check, ({ stdout }) => stdout.includes('maxbytes'));
});
