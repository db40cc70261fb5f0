/**
 * Checkpoint folders that are incomplete, damaged or missing: each gives its class of error and a message that names
 * the file. Afterwards the same page loads the good checkpoint from the same address.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Loader, damaged, ofGet, quick } from './faults.js';
import { trainedModel } from './models.js';
import { read, shard, write } from './safetensors.js';

const WEIGHTS = 'model.safetensors';
const CONFIG = 'config.json';
const INDEX = 'model.safetensors.index.json';
const TENSOR = 'lm_head.weight';

const demo = await trainedModel();
const weights = demo.get(WEIGHTS);
const { header, data } = read(weights);
let loader;

before(async () => (loader = await Loader.start(demo)));
after(() => loader?.stop());

const replaced = (name, bytes) => new Map(demo).set(name, Buffer.from(bytes));
const without = (...names) => new Map([...demo].filter(([name]) => !names.includes(name)));
/** A changed copy of `value`. */
const changed = (value, change) => {
  const copy = structuredClone(value);
  change(copy);
  return copy;
};
const withConfig = (change) => replaced(CONFIG, JSON.stringify(changed(JSON.parse(demo.get(CONFIG)), change)));
const withHeader = (change) => replaced(WEIGHTS, write(changed(header, change), data));
const withIndex = (text) => new Map(without(WEIGHTS)).set(INDEX, Buffer.from(text));
const renameTensor = (header) => {
  header.renamed = header[TENSOR];
  delete header[TENSOR];
};

/** Bad folders, each with the expected class of error and a pattern of its message. */
const folders = {
  'there is nothing': [new Map(), 'NotFoundError', /config\.json/],
  'there is no config': [without(CONFIG), 'NotFoundError', /config\.json/],
  'the config is a page': [replaced(CONFIG, '<!doctype html>'), 'BadCheckpointError', /config\.json.*web page/],
  'the config is no JSON': [replaced(CONFIG, '{'), 'BadCheckpointError', /config\.json.*JSON/],
  'the config is empty': [replaced(CONFIG, ''), 'BadCheckpointError', /config\.json/],
  'the config lacks a key': [
    withConfig((config) => delete config.tokenizer_config.vocab_size),
    'BadCheckpointError',
    /config\.json.*tokenizer_config\.vocab_size/,
  ],
  'the config is of another kind of model': [
    withConfig((config) => (config.model_type = 'llama')), 'UnsupportedError', /config\.json.*llama/,
  ],
  'the config contradicts the weights': [
    withConfig((config) => (config.intermediate_size *= 2)), 'BadCheckpointError', /model\.safetensors.*mlp/,
  ],
  'there are no weights': [without(WEIGHTS), 'NotFoundError', /model\.safetensors/],
  'the weights are empty': [replaced(WEIGHTS, ''), 'BadCheckpointError', /model\.safetensors/],
  'the weights are a page': [
    replaced(WEIGHTS, '<!doctype html><title>Not found</title>'), 'BadCheckpointError', /model\.safetensors.*web page/,
  ],
  'the weights are a pointer': [
    replaced(WEIGHTS, 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    'BadCheckpointError',
    /model\.safetensors.*git lfs pull/,
  ],
  'the weights are cut short': [
    replaced(WEIGHTS, weights.subarray(0, -1000)), 'BadCheckpointError', /model\.safetensors/,
  ],
  'the weights are cut short in their header': [
    replaced(WEIGHTS, weights.subarray(0, 1000)), 'BadCheckpointError', /model\.safetensors/,
  ],
  'a tensor has another name': [withHeader(renameTensor), 'BadCheckpointError', new RegExp(TENSOR)],
  'a tensor has another type': [
    withHeader((header) => (header[TENSOR].dtype = 'I32')), 'UnsupportedError', new RegExp(`${TENSOR}.*I32`),
  ],
  'a tensor lies outside of the file': [
    withHeader((header) => (header[TENSOR].data_offsets[1] += 1e9)), 'BadCheckpointError', new RegExp(TENSOR),
  ],
  'there is no tokenizer': [
    without('tokenizer.json'), 'NotFoundError', /tokenizer\.json/,
  ],
  'the tokenizer is no JSON': [replaced('tokenizer.json', 'x'), 'BadCheckpointError', /tokenizer\.json/],
  'a shard is missing': [
    new Map([...shard(demo, 3)].filter(([name]) => !name.startsWith('model-00002'))),
    'NotFoundError',
    /model-00002-of-00003/,
  ],
  'the index is no JSON': [withIndex('{'), 'BadCheckpointError', /index\.json/],
  'the index names a file elsewhere': [withIndex('{"weight_map":{"x":"../secret"}}'), 'BadCheckpointError', /secret/],
};

for (const [what, [files, expected, pattern]] of Object.entries(folders)) {
  test(what, async (t) => {
    await loader.begin(files);
    const { error } = await loader.load(quick);
    t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, expected);
    assert.match(error.message, pattern);
    await loader.checkRecovered();
  });
}

/** Damage in transit, which must not stay in the cache: the server reports the version of the good file. */
const damages = {
  'the length of the header': [(body) => body.fill(0xff, 0, 8), /model\.safetensors.*header/],
  'the header': [(body) => body.fill(0, 20, 30), /model\.safetensors.*header/],
  'a weight that is no number': [(body) => body.writeUInt32LE(0x7fc00000, body.length - 400), /NaN/],
};

for (const [what, [change, pattern]] of Object.entries(damages)) {
  test(`damaged: ${what}`, async (t) => {
    await loader.begin(demo, { [WEIGHTS]: ofGet(damaged(change)) });
    const { error } = await loader.load(quick);
    t.diagnostic(`damaged: ${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'BadCheckpointError');
    assert.match(error.message, pattern);
    await loader.checkRecovered();
  });
}

test('an invalid source is an invalid argument', async (t) => {
  const errors = await loader.page.evaluate(async () => ({
    'http://': await failure(Bolmo.load('http://', { worker: false })),
    'a file that is a string': await failure(Bolmo.load({ 'config.json': '{}' }, { worker: false })),
  }));
  for (const [source, error] of Object.entries(errors)) {
    t.diagnostic(`${source} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'InvalidArgumentError');
  }
});
