/** Globals of the test page: the package, and short ways to run it. */

import * as bolmo from '/package/index.js';

/** Runs a generation to its end. Pieces are plain values, so that they can be returned to the test. */
async function collect(generator, onPiece = () => {}) {
  const pieces = [];
  for (;;) {
    const { done, value } = await generator.next();
    if (done) {
      const bytes = pieces.flatMap((piece) => piece.bytes);
      return { text: pieces.map((piece) => piece.text).join(''), bytes, pieces, ended: value };
    }
    pieces.push({ text: value.text, bytes: [...value.bytes], patchEnds: value.patchEnds });
    await onPiece(value, pieces.length);
  }
}

/** Properties of an error as plain values. */
function describe(error) {
  return {
    class: error?.constructor?.name,
    kind: error?.kind,
    name: error?.name,
    message: error?.message ?? String(error),
    ours: error instanceof bolmo.BolmoError,
  };
}

/** The error with which work fails; `null` if it succeeds. */
async function failure(work) {
  try {
    await (typeof work === 'function' ? work() : work);
    return null;
  } catch (error) {
    return describe(error);
  }
}

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

Object.assign(globalThis, bolmo, { collect, describe, failure, wait });
globalThis.ready = true;
