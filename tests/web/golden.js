/** Comparing greedy generations of the golden models with those of the reference, id by id. */

import assert from 'node:assert/strict';

/** A plain id is its byte plus four; the fused id of a byte that ends a patch is 260 more. */
const id = (byte, endsPatch) => byte + 4 + (endsPatch ? 260 : 0);
const END = 1;
const isEnd = (emitted) => emitted.at(-1) % 260 === END;

/** Where two logits are this close, rounding decides which id is chosen, and everything after it. */
const CLOSE = 1e-3;

/**
 * Runs in the page: generates with the model at `/name` after each prompt, and tells what computed.
 *
 * @param {[name: string, prompts: number[][], lengths: number[], options: object]} what
 */
export async function generations([name, prompts, lengths, options]) {
  const model = await Bolmo.load(`/${name}`, options);
  const made = [];
  for (const [i, prompt] of prompts.entries()) {
    const session = await model.session();
    await session.append(new Uint8Array(prompt));
    const { bytes, ended } = await collect(session.generate({ maxBytes: lengths[i] }));
    made.push({ bytes, ended, patchEnds: (await session.state()).patchEnds });
    session.close();
  }
  const { device } = model.info;
  model.close();
  return { device, made };
}

/**
 * Checks the generations of a golden model. `run` calls `generations` in a page.
 *
 * @param {(what: Parameters<typeof generations>[0]) => ReturnType<typeof generations>} run
 */
export async function checkGenerations(run, { name, cases }, options) {
  const prompts = cases.map(({ prompt_ids: [, ...ids] }) => ids.map((id) => id - 4));
  const lengths = cases.map(({ emitted_exact }) => emitted_exact.length - 1);
  const { device, made } = await run([name, prompts, lengths, options]);
  assert.equal(device, options.device);

  for (const [i, { emitted_exact: emitted, gaps_exact: gaps = [] }] of cases.entries()) {
    const { bytes, ended, patchEnds } = made[i];
    const prompt = prompts[i];
    // The first emitted id is the decision on the prompt's last byte.
    const got = [prompt.at(-1), ...bytes].map((byte, at) => id(byte, patchEnds.includes(prompt.length + at)));
    const want = isEnd(emitted) ? emitted.slice(0, -1) : emitted;
    const close = gaps.findIndex((gap) => gap < CLOSE);
    const safe = close < 0 ? want.length : close;
    assert.deepEqual(got.slice(0, safe), want.slice(0, safe), `${name}, generation ${i}`);
    if (close < 0) {
      assert.equal(got.length, want.length, `${name}, generation ${i}`);
      assert.equal(ended.stop, isEnd(emitted) ? 'end' : 'budget', `${name}, generation ${i}`);
    }
  }
}
