/**
 * A static server for the tests: the built package, a page that imports it, and folders in memory. Faults can change
 * the responses for any address, so that the package meets what real servers and networks do.
 */

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = path.dirname(fileURLToPath(import.meta.url));
/** The built package; `BOLMO_WEB` names another build. */
export const built = process.env.BOLMO_WEB ?? path.join(here, '../../bindings/web/dist');

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
};

/**
 * How one request is answered. Faults change this.
 *
 * @typedef {object} Answer
 * @property {Buffer} body The whole file.
 * @property {string} etag
 * @property {number} [status] Answer with this status, without a file.
 * @property {boolean} ranges Whether ranges are supported.
 * @property {boolean} gzip Whether the file is sent compressed.
 * @property {Record<string, string>} headers Further headers.
 * @property {number} [stallAfter] Send this many bytes, then nothing, and keep the connection open.
 * @property {number} [cutAfter] Send this many bytes, then break the connection.
 */

/**
 * Changes an answer. `count` is the number of requests for this address before this one.
 *
 * @typedef {(answer: Answer, request: http.IncomingMessage, count: number) => void} Fault
 */

export class Server {
  /** @type {Map<string, Map<string, Buffer>>} Folders by name. */
  #folders = new Map();
  /** @type {Map<string, Fault>} Faults by address. */
  #faults = new Map();
  /**
   * @type {{ method: string, path: string, range: string | undefined }[]} Every request for a file of a folder, in
   * order.
   */
  requests = [];
  #http = http.createServer((request, response) => {
    this.#answer(request, response).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });

  /** @param {Record<string, Map<string, Buffer>>} folders Folders by address. */
  static async start(folders = {}) {
    const server = new Server();
    for (const [name, files] of Object.entries(folders)) server.add(name, files);
    await new Promise((resolve) => server.#http.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get origin() {
    return `http://127.0.0.1:${this.#http.address().port}`;
  }

  /** Serves a folder at `/name/`. */
  add(name, files) {
    this.#folders.set(name, files);
  }

  /** Lets a fault change all answers for `/folder/file`, until `clearFaults`. */
  setFault(address, fault) {
    this.#faults.set(address, fault);
  }

  clearFaults() {
    this.#faults.clear();
  }

  /** Returns the recorded requests, and starts a new record. */
  takeRequests() {
    return this.requests.splice(0);
  }

  async stop() {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  async #answer(request, response) {
    const address = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    const [, folder, ...rest] = address.split('/');
    if (address === '/') return sendFile(response, path.join(here, 'page.html'));
    if (address === '/page.js') return sendFile(response, path.join(here, 'page.js'));
    if (folder === 'package') return sendFile(response, path.join(built, path.normalize(`/${rest.join('/')}`)));

    const count = this.requests.filter((before) => before.path === address && before.method === request.method).length;
    this.requests.push({ method: request.method, path: address, range: request.headers.range });
    const body = this.#folders.get(folder)?.get(rest.join('/'));
    const etag = body ? `"${createHash('sha1').update(body).digest('hex')}"` : '';
    const answer = { body, etag, status: body ? undefined : 404, ranges: true, gzip: false, headers: {} };
    this.#faults.get(address)?.(answer, request, count);
    send(answer, request, response, address);
  }
}

async function sendFile(response, file) {
  const body = await readFile(file).catch(() => undefined);
  response.writeHead(body ? 200 : 404, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream' });
  response.end(body);
}

/** @param {Answer} answer */
function send({ body, etag, status, ranges, gzip, headers: more, stallAfter, cutAfter }, request, response, address) {
  if (status !== undefined) {
    response.writeHead(status).end();
    return;
  }
  const headers = { etag, 'content-type': types[path.extname(address)] ?? 'application/octet-stream', ...more };
  const range = ranges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') : null;
  let part = body;
  if (range) {
    const [first, last] = [Number(range[1]), Math.min(Number(range[2]), body.length - 1)];
    part = body.subarray(first, last + 1);
    headers['content-range'] = `bytes ${first}-${last}/${body.length}`;
  } else if (gzip) {
    part = gzipSync(body);
    headers['content-encoding'] = 'gzip';
  }
  if (ranges) headers['accept-ranges'] = 'bytes';
  headers['content-length'] = part.length;
  response.writeHead(range ? 206 : 200, headers);
  if (request.method === 'HEAD') {
    response.end();
  } else if (cutAfter !== undefined) {
    // The first bytes must leave before the connection breaks.
    response.write(part.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 20));
  } else if (stallAfter !== undefined) {
    response.write(part.subarray(0, stallAfter));
  } else {
    response.end(part);
  }
}
