/**
 * Faulty servers and connections. A fault that retries cannot overcome gives its class of error and a message; in
 * either case the same page loads the model from the same address once the fault is gone.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Loader, cutAfter, ofGet, once, quick, stallAfter, status } from './faults.js';
import { trainedModel } from './models.js';
import { shard } from './safetensors.js';
import { Server } from './server.js';

const WEIGHTS = 'model.safetensors';
const CONFIG = 'config.json';

const demo = await trainedModel();
const names = [...demo.keys()];
const weights = demo.get(WEIGHTS);
let loader;

before(async () => (loader = await Loader.start(demo)));
after(() => loader?.stop());

/** The same fault for several files. */
const forAll = (names, fault) => Object.fromEntries(names.map((name) => [name, fault]));

/** Faults by file, and a pattern of the message. The class is the same for all. */
const failures = {
  'the server stalls': [{ [WEIGHTS]: ofGet(stallAfter(1000)) }, /model\.safetensors.* 0\.5 s/],
  'the server stalls before it answers': [{ [CONFIG]: stallAfter(0) }, /config\.json.* 0\.5 s/],
  'the connection is cut each time': [{ [WEIGHTS]: ofGet(cutAfter(1000)) }, /model\.safetensors/],
  'the server answers 500': [{ [WEIGHTS]: status(500) }, /model\.safetensors.*500/],
  'the server answers 403': [{ [CONFIG]: status(403) }, /config\.json.*403/],
  'the server answers 403 to ranges alone': [{ [WEIGHTS]: ofGet(status(403)) }, /model\.safetensors.*403/],
};

for (const [what, [faults, pattern]] of Object.entries(failures)) {
  test(what, async (t) => {
    await loader.begin(demo, faults);
    const { error } = await loader.load(quick);
    t.diagnostic(`${what} -> ${error?.class}: ${error?.message}`);
    assert.equal(error?.class, 'NetworkError');
    assert.match(error.message, pattern);
    await loader.checkRecovered();
  });
}

/** Faults that a load overcomes: the files, and the faults of some. */
const overcome = {
  'the connection is cut once': [demo, { [WEIGHTS]: once(cutAfter(100_000)) }],
  'the connection is cut three times, each time further on': [
    demo,
    { [WEIGHTS]: ofGet((answer, count) => count < 3 && cutAfter(200_000)(answer)) },
  ],
  'the server stalls once': [demo, { [WEIGHTS]: once(stallAfter(100_000)) }],
  'the server answers 500 once': [demo, { [WEIGHTS]: once(status(500)), [CONFIG]: once(status(503)) }],
  'the server answers 429 once': [demo, { [WEIGHTS]: once(status(429)) }],
  'the server supports no ranges': [demo, { [WEIGHTS]: (answer) => void (answer.ranges = false) }],
  'the server supports no ranges, and the connection is cut once': [
    demo,
    {
      [WEIGHTS]: ofGet((answer, count) => {
        answer.ranges = false;
        // The first response shows that ranges are not supported, the second one is the stream.
        if (count === 1) answer.cutAfter = 100_000;
      }),
    },
  ],
  'the server rejects HEAD requests': [
    demo,
    forAll(names, (answer, { method }) => method === 'HEAD' && status(405)(answer)),
  ],
  'the server compresses JSON': [
    demo,
    forAll(names.filter((name) => name.endsWith('.json')), (answer) => void (answer.gzip = true)),
  ],
  'the server compresses everything, and supports no ranges': [
    demo,
    forAll(names, (answer) => Object.assign(answer, { gzip: true, ranges: false })),
  ],
  'the weights are in shards': [shard(demo, 3), {}],
  'the weights are in many shards, and one is cut once': [
    shard(demo, 20),
    { 'model-00007-of-00020.safetensors': once(cutAfter(5000)) },
  ],
};

for (const [what, [files, faults]] of Object.entries(overcome)) {
  test(what, async () => {
    await loader.begin(files, faults);
    await loader.checkGood({ retries: 3, stallTimeout: 500 });
    await loader.checkRecovered();
  });
}

test('an interrupted request continues from the byte where it stopped', async () => {
  await loader.begin(demo, { [WEIGHTS]: once(cutAfter(100_000)) });
  await loader.checkGood();
  const last = weights.length - 1;
  assert.deepEqual(loader.ranges(WEIGHTS), [`bytes=0-${last}`, `bytes=100000-${last}`]);
  loader.server.clearFaults();
});

test('a failed request is retried as often as the options say', async () => {
  for (const retries of [0, 2]) {
    await loader.begin(demo, { [WEIGHTS]: ofGet(status(500)) });
    await loader.load({ retries });
    assert.equal(loader.ranges(WEIGHTS).length, retries + 1);
  }
  await loader.checkRecovered();
});

test('a file that changes its length while it is loaded is rejected', async (t) => {
  await loader.begin(demo, { [WEIGHTS]: ofGet((answer) => void (answer.body = Buffer.concat([weights, weights]))) });
  const { error } = await loader.load(quick);
  t.diagnostic(`changed on the server -> ${error?.class}: ${error?.message}`);
  assert.equal(error?.class, 'NetworkError');
  await loader.checkRecovered();
});

test('a file that changes its version while it is loaded is rejected', async () => {
  const changed = Buffer.from(weights);
  changed.writeFloatLE(0.125, changed.length - 400);
  // The response to HEAD still has the old version.
  const another = (answer) => Object.assign(answer, { body: changed, etag: '"another"' });
  await loader.begin(demo, { [WEIGHTS]: ofGet(another) });
  const { error } = await loader.load(quick);
  assert.equal(error?.class, 'NetworkError');
  await loader.checkRecovered();
});

test('headers of the page go with every request', async () => {
  const seen = new Set();
  const refuse = (answer, request) => {
    seen.add(request.headers['x-key']);
    if (request.headers['x-key'] !== 'open') answer.status = 401;
  };
  await loader.begin(demo, forAll(names, refuse));
  assert.equal((await loader.load(quick)).error?.class, 'NetworkError');
  await loader.checkGood({ headers: { 'x-key': 'open' } });
  assert.deepEqual([...seen], [undefined, 'open']);
  await loader.checkRecovered();
});

test('an unreachable server is a network error', async (t) => {
  const gone = await Server.start();
  const { origin } = gone;
  await gone.stop();
  const load = (origin) => failure(Bolmo.load(`${origin}/demo`, { worker: false, retries: 0 }));
  const error = await loader.page.evaluate(load, origin);
  t.diagnostic(`no server -> ${error?.class}: ${error?.message.replaceAll(origin, '')}`);
  assert.equal(error?.class, 'NetworkError');
});
