/** Several sessions on a model: one after the other, simultaneous, forked, closed. Calls that sessions reject. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, openPage, withoutKernels } from './browser.js';
import { trainedModel } from './models.js';
import { Server } from './server.js';

const FIRST = 'class Reader:';
const SECOND = 'import os\n';

let server, browser, page, model;
/** What follows each prompt if nothing else happens. */
const alone = {};

before(async () => {
  server = await Server.start({ demo: await trainedModel() });
  browser = await launch();
  page = await openPage(browser, server);
  model = await page.evaluateHandle(() => Bolmo.load('/demo'));
  for (const prompt of [FIRST, SECOND]) {
    const generation = (model, prompt) => collect(model.generate(prompt, { maxBytes: 32 }));
    alone[prompt] = (await model.evaluate(generation, prompt)).text;
  }
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test('sessions used in turn do not affect each other', async () => {
  const texts = await model.evaluate(async (model, prompts) => {
    const sessions = [];
    for (const prompt of prompts) {
      const session = await model.session();
      await session.append(prompt);
      sessions.push(session);
    }
    const texts = ['', ''];
    for (let round = 0; round < 4; round++) {
      for (const [i, session] of sessions.entries()) {
        texts[i] += (await collect(session.generate({ maxBytes: 8 }))).text;
      }
    }
    for (const session of sessions) session.close();
    return texts;
  }, [FIRST, SECOND]);
  assert.deepEqual(texts, [alone[FIRST], alone[SECOND]]);
});

test('simultaneous generations interleave and do not affect each other', async () => {
  const { texts, turns } = await model.evaluate(async (model, prompts) => {
    const turns = [];
    const run = (prompt) => collect(model.generate(prompt, { maxBytes: 32 }), () => void turns.push(prompt));
    const made = await Promise.all(prompts.map(run));
    return { texts: made.map(({ text }) => text), turns };
  }, [FIRST, SECOND]);
  assert.deepEqual(texts, [alone[FIRST], alone[SECOND]]);
  // Neither waits until the other has finished.
  const order = turns.join(' ');
  assert.ok(turns.indexOf(SECOND) < turns.lastIndexOf(FIRST), order);
  assert.ok(turns.indexOf(FIRST) < turns.lastIndexOf(SECOND), order);
});

test('a second call on a busy session is rejected', async (t) => {
  const { text, errors } = await model.evaluate(async (model, prompt) => {
    const session = await model.session();
    await session.append(prompt);
    const errors = {};
    const { text } = await collect(session.generate({ maxBytes: 32 }), async (_, count) => {
      if (count > 1) return;
      errors.append = await failure(session.append('x'));
      errors.generate = await failure(collect(session.generate({ maxBytes: 1 })));
      errors.snapshot = await failure(session.snapshot());
      errors.fork = await failure(session.fork());
      errors.state = await failure(session.state());
    });
    session.close();
    return { text, errors };
  }, FIRST);
  assert.equal(text, alone[FIRST]);
  for (const [name, error] of Object.entries(errors)) assert.equal(error?.class, 'BusyError', name);
  t.diagnostic(`a second call -> ${errors.append.class}: ${errors.append.message}`);
});

test('a fork is independent of its session', async () => {
  const made = await model.evaluate(async (model, prompt) => {
    const session = await model.session();
    await session.append(prompt);
    const first = await collect(session.generate({ maxBytes: 8 }));
    const fork = await session.fork();
    await fork.append('\n\nimport');
    const state = { session: await session.state(), fork: await fork.state() };
    const rest = await collect(session.generate({ maxBytes: 24 }));
    session.close();
    await collect(fork.generate({ maxBytes: 4 }));
    const length = (await fork.state()).length;
    fork.close();
    return { text: first.text + rest.text, state, length };
  }, FIRST);
  assert.equal(made.text, alone[FIRST]);
  assert.equal(made.state.session.length, FIRST.length + 8);
  assert.equal(made.state.fork.length, FIRST.length + 16);
  assert.equal(made.length, FIRST.length + 20);
});

test('appending in pieces equals appending at once', async () => {
  const { text, whole, pieces } = await model.evaluate(async (model, prompt) => {
    const [one, many] = [await model.session(), await model.session()];
    await one.append(prompt);
    for (const byte of new TextEncoder().encode(prompt)) await many.append(new Uint8Array([byte]));
    const [whole, pieces] = [await one.state(), await many.state()];
    const { text } = await collect(many.generate({ maxBytes: 32 }));
    one.close();
    many.close();
    return { text, whole, pieces };
  }, FIRST);
  assert.equal(text, alone[FIRST]);
  assert.deepEqual(pieces.patchEnds, whole.patchEnds);
  assert.equal(pieces.length, whole.length);
});

test('generating needs some text or bos', async (t) => {
  const { begun, unbegun } = await model.evaluate(async (model) => {
    const begun = await failure(collect(model.generate('', { maxBytes: 2 })));
    const session = await model.session({ bos: false });
    const unbegun = await failure(collect(session.generate({ maxBytes: 2 })));
    // The session is still usable.
    await session.append('x');
    await collect(session.generate({ maxBytes: 2 }));
    session.close();
    return { begun, unbegun };
  });
  assert.equal(begun, null);
  t.diagnostic(`empty prompt without bos -> ${unbegun?.class}: ${unbegun?.message}`);
  assert.equal(unbegun?.class, 'InvalidArgumentError');
});

test('wrong arguments are rejected, and the session stays usable', async (t) => {
  const errors = await model.evaluate(async (model) => {
    const session = await model.session();
    await session.append('x');
    const generate = (options) => failure(collect(session.generate(options)));
    const errors = {
      'an unknown option': await generate({ max_bytes: 3 }),
      'a negative temperature': await generate({ temperature: -1 }),
      'a temperature that is a string': await generate({ temperature: 'hot' }),
      'half a byte': await generate({ maxBytes: 0.5 }),
      'topP above 1': await generate({ topP: 2 }),
      'a stop that is a number': await generate({ stop: [3] }),
      'a text that is a number': await failure(session.append(3)),
      'a text that is missing': await failure(collect(model.generate(undefined))),
      'bytes that are an array': await failure(model.score([1, 2])),
    };
    const { length } = await session.state();
    session.close();
    return { ...errors, length };
  });
  const { length, ...refused } = errors;
  assert.equal(length, 1);
  for (const [what, error] of Object.entries(refused)) {
    t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'InvalidArgumentError', what);
  }
  assert.match(refused['an unknown option'].message, /max_bytes/);
});

test('closed sessions and models reject calls', async (t) => {
  const idle = await openPage(browser, server, { init: [withoutKernels] });
  const errors = await idle.evaluate(async () => {
    const model = await Bolmo.load('/demo', { worker: false });
    const [session, other] = [await model.session(), await model.session()];
    session.close();
    session.close();
    const errors = { 'a closed session': await failure(session.append('x')) };
    model.close();
    model.close();
    errors['a session of a closed model'] = await failure(other.append('x'));
    errors['a closed model'] = await failure(model.session());
    return errors;
  });
  for (const [what, error] of Object.entries(errors)) {
    t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'InvalidArgumentError', what);
  }
});

test('closing a session ends its running call', async () => {
  const { ended, took } = await model.evaluate(async (model, prompt) => {
    const session = await model.session();
    await session.append(prompt);
    const start = performance.now();
    const { ended } = await collect(session.generate({ maxBytes: 5000 }), () => session.close());
    return { ended, took: performance.now() - start };
  }, FIRST);
  assert.equal(ended.stop, 'cancelled');
  assert.ok(took < 20_000, `it took ${took} ms`);
});
