/** Checkpoint folders of the repository, as maps from file names to contents. */

import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';

export const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const golden = path.join(root, 'tests/golden');
/** Folder of the trained golden model, a complete checkpoint. */
export const trained = path.join(golden, 'infer/models/nano_trained');

/** @returns {Promise<Map<string, Buffer>>} */
async function folder(dir) {
  const files = new Map();
  for (const name of await readdir(dir)) {
    const bytes = await readFile(path.join(dir, name));
    if (name.endsWith('.planes.gz')) files.set(name.slice(0, -'.planes.gz'.length), await unpack(bytes));
    else files.set(name, bytes);
  }
  return files;
}

/** Golden weights are packed: byte planes of the 4-byte numbers, one after the other. */
async function unpack(packed) {
  const planes = await promisify(gunzip)(packed);
  const quarter = planes.length / 4;
  const bytes = Buffer.alloc(planes.length);
  for (let i = 0; i < quarter; i++) {
    for (let plane = 0; plane < 4; plane++) bytes[4 * i + plane] = planes[plane * quarter + i];
  }
  return bytes;
}

/** The trained golden model. */
export async function trainedModel() {
  return folder(trained);
}

/**
 * Every golden model that has generations: its files, and its cases of greedy decoding.
 *
 * @returns {Promise<{ name: string, files: Map<string, Buffer>, cases: object[] }[]>}
 */
export async function goldenModels() {
  const vocabulary = await folder(path.join(golden, 'infer/subword_tokenizer'));
  const models = [];
  for (const [family, meta] of [['infer', 'meta.json'], ['prenorm', 'meta_prenorm.json']]) {
    const { generate } = JSON.parse(await readFile(path.join(golden, family, 'golden', meta), 'utf8'));
    for (const [name, { single, stops_by_eos }] of Object.entries(generate)) {
      const own = await folder(path.join(golden, family, 'models', name));
      const files = new Map([...vocabulary, ...own]);
      models.push({ name, files, cases: stops_by_eos ? [...single, stops_by_eos] : single });
    }
  }
  return models;
}
