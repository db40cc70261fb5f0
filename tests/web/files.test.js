/** Models from picked files and from blobs, and the formats of weights. */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { launch, openPage, withoutKernels } from './browser.js';
import { trained as folder, trainedModel } from './models.js';
import { missing, nativeGeneration } from './native.js';
import { Server } from './server.js';

const demo = await trainedModel();
let server, browser, page, fingerprint;

before(async () => {
  server = await Server.start({ demo });
  browser = await launch();
  page = await openPage(browser, server, { init: [withoutKernels] });
  fingerprint = await page.evaluate(async () => {
    const model = await Bolmo.load('/demo', { worker: false });
    model.close();
    const input = document.createElement('input');
    Object.assign(input, { type: 'file', multiple: true });
    document.body.append(input);
    // Builds the sources of the tests.
    globalThis.blobs = async (...names) => {
      const get = async (name) => [name, await (await fetch(`/demo/${name}`)).blob()];
      return Object.fromEntries(await Promise.all(names.map(get)));
    };
    return model.info.fingerprint;
  });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Puts files into the page's file input, as a user does. */
const pick = (files) => page.locator('input').setInputFiles(files);

test('picked files load like fetched ones', async () => {
  await pick([...demo.keys()].map((name) => path.join(folder, name)));
  for (const worker of [true, false]) {
    const found = await page.evaluate(async (worker) => {
      const counts = [];
      const onProgress = ({ loaded, total, fetched, cached }) => counts.push({ loaded, total, fetched, cached });
      const model = await Bolmo.load(document.querySelector('input').files, { worker, onProgress });
      model.close();
      return { fingerprint: model.info.fingerprint, last: counts.at(-1) };
    }, worker);
    assert.equal(found.fingerprint, fingerprint);
    const { loaded, total, fetched, cached } = found.last;
    assert.ok(total > 0 && loaded === total);
    assert.deepEqual({ fetched, cached }, { fetched: 0, cached: 0 });
  }
});

/** Runs `work` with a temporary folder that contains the model's files. */
async function withFolder(work) {
  const dir = await mkdtemp(path.join(tmpdir(), 'bolmo-web-'));
  try {
    for (const [name, bytes] of demo) await writeFile(path.join(dir, name), bytes);
    await work(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

test('a picked folder loads, and its subfolders are ignored', () =>
  withFolder(async (dir) => {
    await mkdir(path.join(dir, 'before'));
    await writeFile(path.join(dir, 'before', 'config.json'), 'not this one');
    await page.evaluate(() => (document.querySelector('input').webkitdirectory = true));
    await pick(dir);
    const found = await page.evaluate(async () => {
      const input = document.querySelector('input');
      const model = await Bolmo.load(input.files, { worker: false });
      model.close();
      const count = input.files.length;
      input.webkitdirectory = false;
      return { fingerprint: model.info.fingerprint, count };
    });
    assert.deepEqual(found, { fingerprint, count: demo.size + 1 });
  }));

test('a file that changes after it was picked is reported by name', (t) =>
  withFolder(async (dir) => {
    await pick([...demo.keys()].map((name) => path.join(dir, name)));
    const config = path.join(dir, 'config.json');
    await writeFile(config, '{}');
    await utimes(config, new Date(), new Date(Date.now() + 10_000));
    const load = () => failure(Bolmo.load(document.querySelector('input').files, { worker: false }));
    const error = await page.evaluate(load);
    t.diagnostic(`changed file -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'NetworkError');
    assert.match(error.message, /config\.json/);
  }));

test('blobs by name load, and missing or truncated ones are reported', async (t) => {
  const { found, errors, probed } = await page.evaluate(async () => {
    const all = await blobs('config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json');
    const options = { worker: false };
    const model = await Bolmo.load(all, options);
    model.close();
    const { 'config.json': config, 'model.safetensors': weights, ...tokenizer } = all;
    const errors = {
      'no config': await failure(Bolmo.load({ 'model.safetensors': weights, ...tokenizer }, options)),
      'no weights': await failure(Bolmo.load({ 'config.json': config, ...tokenizer }, options)),
      'weights cut short': await failure(
        Bolmo.load({ ...all, 'model.safetensors': weights.slice(0, 1_000_000) }, options),
      ),
      'no files': await failure(Bolmo.load([], options)),
    };
    const probed = await Bolmo.probe({ 'config.json': config }, options);
    return { found: model.info.fingerprint, errors, probed };
  });
  assert.equal(found, fingerprint);
  assert.ok(probed.ok && probed.model.parameters > 0);
  for (const [what, error] of Object.entries(errors)) t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
  assert.equal(errors['no config']?.class, 'NotFoundError');
  assert.equal(errors['no weights']?.class, 'NotFoundError');
  assert.equal(errors['weights cut short']?.class, 'BadCheckpointError');
  assert.equal(errors['no files']?.class, 'NotFoundError');
});

for (const quantize of ['f16', 'q8', 'q4,local=q8']) {
  test(`weights in ${quantize} generate what the command generates in ${quantize}`, { skip: missing }, async () => {
    const prompt = 'class Reader:';
    const [got, want] = await Promise.all([
      page.evaluate(async ([prompt, quantize]) => {
        const model = await Bolmo.load('/demo', { quantize });
        const { bytes } = await collect(model.generate(prompt, { maxBytes: 16 }));
        model.close();
        return { bytes, info: model.info };
      }, [prompt, quantize]),
      nativeGeneration(prompt, ['--max-bytes', '16', '--quantize', quantize]),
    ]);
    assert.deepEqual(got.bytes, want.bytes);
    assert.equal(got.info.formats, quantize);
    assert.notEqual(got.info.fingerprint, fingerprint);
  });
}

test('the rotary embedding can be overridden', { skip: missing }, async () => {
  const prompt = 'class Reader:';
  const scaling = { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 64 };
  const native = ['--max-bytes', '16', '--rope-theta', '1e6', '--rope-scaling', 'yarn:factor=8,original=64'];
  const [got, want] = await Promise.all([
    page.evaluate(async ([prompt, scaling]) => {
      const made = [];
      for (const ropeScaling of [scaling, 'yarn:factor=8,original=64']) {
        const model = await Bolmo.load('/demo', { ropeTheta: 1e6, ropeScaling });
        const { bytes } = await collect(model.generate(prompt, { maxBytes: 16 }));
        model.close();
        made.push({ bytes, fingerprint: model.info.fingerprint });
      }
      return made;
    }, [prompt, scaling]),
    nativeGeneration(prompt, native),
  ]);
  for (const { bytes, fingerprint: found } of got) {
    assert.deepEqual(bytes, want.bytes);
    assert.notEqual(found, fingerprint);
  }
  assert.equal(got[0].fingerprint, got[1].fingerprint);
});

test('impossible rotary embeddings are invalid arguments', async () => {
  const errors = await page.evaluate(async () => {
    const errors = [];
    for (const wrong of [{ ropeTheta: 1 }, { ropeTheta: '5e5' }, { ropeScaling: 'yarn' }, { ropeScaling: 8 }]) {
      errors.push(await failure(Bolmo.load('/demo', { worker: false, ...wrong })));
    }
    return errors;
  });
  for (const error of errors) assert.equal(error?.class, 'InvalidArgumentError');
});

test('unknown formats are invalid arguments', async (t) => {
  const errors = await page.evaluate(async () => {
    const errors = {};
    for (const quantize of ['q5', '', 'q4,head=q8', 'q4,', 8]) {
      errors[JSON.stringify(quantize)] = await failure(Bolmo.load('/demo', { worker: false, quantize }));
    }
    return errors;
  });
  for (const [what, error] of Object.entries(errors)) {
    t.diagnostic(`quantize: ${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'InvalidArgumentError', what);
  }
});
