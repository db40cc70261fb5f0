/** Loads with faults: of the server, of the network, or of the checkpoint itself. */

import assert from 'node:assert/strict';

import { launch, openPage, withoutKernels } from './browser.js';
import { Server } from './server.js';

/** A fault for GET requests. */
export const ofGet = (change) => (answer, request, count) => {
  if (request.method === 'GET') change(answer, count);
};
/** A fault for the first GET request only. */
export const once = (change) => ofGet((answer, count) => count === 0 && change(answer));
export const status = (code) => (answer) => void (answer.status = code);
export const cutAfter = (bytes) => (answer) => void (answer.cutAfter = bytes);
export const stallAfter = (bytes) => (answer) => void (answer.stallAfter = bytes);
/** Other contents under the version of the good file, like damage in transit. `change` works on a copy. */
export const damaged = (change) => (answer) => {
  answer.body = Buffer.from(answer.body);
  change(answer.body);
};

/** One retry instead of three, which would take seconds. */
export const quick = { retries: 1, stallTimeout: 500 };

/** A page that loads a model repeatedly from the same address, `/demo`. */
export class Loader {
  /** @param {Map<string, Buffer>} model The model without faults. */
  static async start(model) {
    const loader = new Loader();
    loader.model = model;
    loader.server = await Server.start({ demo: model });
    loader.browser = await launch();
    loader.page = await openPage(loader.browser, loader.server, { init: [withoutKernels] });
    loader.fingerprint = (await loader.load()).fingerprint;
    return loader;
  }

  async stop() {
    await this.browser.close();
    await this.server.stop();
  }

  /** Loads the model on the page's own thread. Returns its fingerprint, which depends on every weight, or the error. */
  async load(options = {}) {
    const result = await this.page.evaluate(async (options) => {
      try {
        const model = await Bolmo.load('/demo', { worker: false, ...options });
        const { fingerprint, warnings } = model.info;
        model.close();
        return { fingerprint, warnings };
      } catch (error) {
        return { error: describe(error) };
      }
    }, options);
    // The port changes from run to run.
    if (result.error) result.error.message = result.error.message.replaceAll(this.server.origin, '');
    return result;
  }

  /** Starts with other files or with faults for some, an empty cache, and no recorded requests. */
  async begin(files, faults = {}) {
    await this.page.evaluate(async () => {
      const storage = await navigator.storage.getDirectory();
      const isEmpty = async () => (await storage.keys().next()).done;
      // Chunks that the last load is still writing cannot be deleted yet.
      do await Bolmo.clearCache();
      while (!(await isEmpty()));
    });
    this.server.add('demo', files);
    for (const [name, fault] of Object.entries(faults)) this.server.setFault(`/demo/${name}`, fault);
    this.server.takeRequests();
  }

  /** Checks that the model loads. */
  async checkGood(options) {
    assert.deepEqual(await this.load(options), { fingerprint: this.fingerprint, warnings: [] });
  }

  /** Removes the fault, and checks that the model loads. */
  async checkRecovered() {
    this.server.clearFaults();
    this.server.add('demo', this.model);
    await this.checkGood();
  }

  /** The ranges of a file that were requested. */
  ranges(name) {
    const requests = this.server.takeRequests();
    const gets = requests.filter(({ method, path }) => method === 'GET' && path === `/demo/${name}`);
    return gets.map(({ range }) => range);
  }
}
