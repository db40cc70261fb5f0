/**
 * Files over HTTP, read in chunks: from the cache; else by range requests, in the order that the loader needs; else, if
 * the server doesn't support ranges, from one stream that is stored until it is used. Requests that fail or stall are
 * retried from the byte where they stopped.
 */

import type { FetchOptions } from './types.js';
import type { FileReader, Folder } from './folder.js';
import { type ChunkStore, forgetFile, openStore } from './cache.js';
import { BolmoError } from './errors.js';

/** Bytes that are fetched and stored together. */
const CHUNK = 4 << 20;
/** Chunks held in memory: the loader alternates between two tensors, each reaching a little into the next chunk. */
const IN_MEMORY = 12;
/** Chunks to request ahead where reads are sequential. */
const AHEAD = 2;
/** Number of recent reads whose ends are remembered, to recognize sequential reads. */
const ENDS = 4;

type Bytes = Uint8Array<ArrayBuffer>;

/** Makes requests. */
class Client {
  readonly #options: FetchOptions;
  readonly #signal: AbortSignal | undefined;
  readonly counts: { fetched: number; cached: number };
  readonly #writing = new Set<Promise<boolean>>();
  #stopped = false;

  constructor(options: FetchOptions, signal: AbortSignal | undefined, counts: { fetched: number; cached: number }) {
    this.#options = options;
    this.#signal = signal;
    this.counts = counts;
  }

  /** Retries `attempt` while its errors are transient. Each attempt gets a signal, and must report that it is alive. */
  async retry<T>(name: string, attempt: (signal: AbortSignal, alive: () => void) => Promise<T>): Promise<T> {
    const { stallTimeout = 30_000, retries = 3 } = this.#options;
    for (let failures = 0; ; ) {
      this.#signal?.throwIfAborted();
      const controller = new AbortController();
      const abort = () => controller.abort(this.#signal?.reason);
      this.#signal?.addEventListener('abort', abort);
      let timer: ReturnType<typeof setTimeout> | undefined;
      let stalled = false;
      const alive = () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          stalled = true;
          controller.abort();
        }, stallTimeout);
      };
      try {
        alive();
        return await attempt(controller.signal, alive);
      } catch (error) {
        this.#signal?.throwIfAborted();
        if (error instanceof BolmoError && !(error instanceof TransientError)) throw error;
        failures += 1;
        if (failures > retries) {
          const why = stalled ? `sent nothing for ${stallTimeout / 1000} s` : reason(error);
          const often = failures === 1 ? '' : `, ${failures} times`;
          throw new BolmoError('io', `${name}: ${why}${often}; check the connection and the server, and try again`);
        }
        await pause(Math.min(100 * 4 ** (failures - 1), 3000), this.#signal);
      } finally {
        clearTimeout(timer);
        this.#signal?.removeEventListener('abort', abort);
      }
    }
  }

  async request(url: string, init: RequestInit): Promise<Response> {
    const { headers, credentials } = this.#options;
    const response = await fetch(url, {
      ...init,
      headers: { ...headers, ...(init.headers as Record<string, string> | undefined) },
      ...(credentials && { credentials }),
    });
    if (response.status >= 500 || response.status === 429 || response.status === 408) {
      throw new TransientError('io', `the server answered ${response.status} ${response.statusText}`.trimEnd());
    }
    return response;
  }

  get usesCache(): boolean {
    return this.#options.cache ?? true;
  }

  /** Writes a chunk to a store. Resolves to whether it was stored. */
  async save(store: ChunkStore | undefined, index: number, bytes: Bytes): Promise<boolean> {
    if (!store || this.#stopped) return false;
    const writing = store.put(index, bytes);
    this.#writing.add(writing);
    return writing.finally(() => this.#writing.delete(writing));
  }

  /** Stops storing chunks, and waits for writes that are under way. */
  async stopSaving(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#writing);
  }
}

/** Waits, until the signal is aborted. */
function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** A failure that may not recur. */
class TransientError extends BolmoError {}

function reason(error: unknown): string {
  if (error instanceof TransientError) return error.message;
  return `the connection failed (${error instanceof Error ? error.message : String(error)})`;
}

function refused(name: string, { status, statusText }: Response): BolmoError {
  return new BolmoError('io', `${name}: the server answered ${status} ${statusText}`.trimEnd());
}

function changed(name: string): BolmoError {
  return new BolmoError('io', `${name}: the file changed on the server while it was loaded; load it again`);
}

/** Rejects a response of another version than the first one's, if the server reports versions. */
function checkVersion(name: string, etag: string | null, response: Response): void {
  const now = response.headers.get('etag');
  if (etag && now && now !== etag) throw changed(name);
}

/** A folder on a server. */
export class HttpFolder implements Folder {
  readonly origin: string;
  readonly counts = { fetched: 0, cached: 0 };
  readonly #client: Client;
  /** Addresses of the files that were opened. */
  readonly #opened = new Set<string>();

  constructor(url: string, options: FetchOptions, signal?: AbortSignal) {
    this.origin = url.replace(/\/+$/, '');
    this.#client = new Client(options, signal, this.counts);
  }

  async open(name: string): Promise<FileReader | undefined> {
    const url = `${this.origin}/${name}`;
    this.#opened.add(url);
    return openFile(url, this.#client);
  }

  async forget(): Promise<void> {
    await this.#client.stopSaving();
    await Promise.all(Array.from(this.#opened, forgetFile));
  }
}

async function openFile(url: string, client: Client): Promise<FileReader | undefined> {
  const head = await client.retry(url, async (signal) => {
    const response = await client.request(url, { method: 'HEAD', signal, cache: 'no-cache' });
    // Some servers reject HEAD requests.
    if (response.status !== 405 && response.status !== 501) return response;
    const whole = await client.request(url, { signal, cache: 'no-cache' });
    await whole.body?.cancel();
    return whole;
  });
  if (head.status === 404 || head.status === 410) return undefined;
  if (!head.ok) throw refused(url, head);
  const length = head.headers.get('content-encoding') ? null : head.headers.get('content-length');
  if (length === null) return wholeFile(url, client);
  const size = Number(length);
  const version = [size, head.headers.get('etag'), head.headers.get('last-modified')].join(' ');
  const store = client.usesCache ? await openStore(url, version) : undefined;
  return new ChunkedFile(url, client, size, head.headers.get('etag'), store);
}

/** A file of unknown length, such as a small one that the server compresses. */
async function wholeFile(url: string, client: Client): Promise<FileReader> {
  const bytes = await client.retry(url, async (signal, alive) => {
    const response = await client.request(url, { signal });
    if (!response.ok) throw refused(url, response);
    return collect(response, alive);
  });
  client.counts.fetched += bytes.length;
  return { size: bytes.length, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

async function collect(response: Response, alive: () => void): Promise<Bytes> {
  const pieces: Bytes[] = [];
  for await (const piece of stream(response)) {
    alive();
    pieces.push(piece);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

async function* stream(response: Response): AsyncGenerator<Bytes> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    // A reader that stops early does not need the rest.
    await reader.cancel().catch(() => {});
  }
}

class ChunkedFile implements FileReader {
  /** Chunks that are in memory or being fetched, in order of last use. */
  readonly #chunks = new Map<number, Promise<Bytes>>();
  /** Ends of the last reads. */
  readonly #ends: number[] = [];
  /** Set once the server has turned out not to support ranges. */
  #whole: WholeStream | undefined;

  constructor(
    readonly url: string,
    readonly client: Client,
    readonly size: number,
    readonly etag: string | null,
    readonly store: ChunkStore | undefined,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (offset + length > this.size) {
      throw new BolmoError('internal', `${this.url}: ${length} bytes at ${offset} of ${this.size}`);
    }
    const first = Math.floor(offset / CHUNK);
    const last = Math.floor(Math.max(offset, offset + length - 1) / CHUNK);
    if (length === 0) return new Uint8Array(0);
    const wanted = Array.from({ length: last - first + 1 }, (_, i) => this.#at(first + i));
    this.#lookAhead(offset, offset + length);
    const chunks = await Promise.all(wanted);
    const [only] = chunks;
    if (only && chunks.length === 1) return only.subarray(offset - first * CHUNK, offset - first * CHUNK + length);
    const out = new Uint8Array(length);
    for (const [i, chunk] of chunks.entries()) {
      const start = (first + i) * CHUNK;
      const from = Math.max(offset, start);
      const to = Math.min(offset + length, start + CHUNK);
      out.set(chunk.subarray(from - start, to - start), from - offset);
    }
    return out;
  }

  /** Requests the next chunks for a sequential reader. */
  #lookAhead(offset: number, end: number): void {
    const follows = this.#ends.includes(offset);
    this.#ends.push(end);
    if (this.#ends.length > ENDS) this.#ends.shift();
    if (!follows) return;
    const next = Math.ceil(end / CHUNK);
    const count = Math.ceil(this.size / CHUNK);
    for (let index = next; index < Math.min(next + AHEAD, count); index++) {
      // The read that needs the chunk reports its failure.
      this.#at(index).catch(() => {});
    }
  }

  #at(index: number): Promise<Bytes> {
    const chunk = this.#chunks.get(index) ?? this.#load(index);
    this.#chunks.delete(index);
    this.#chunks.set(index, chunk);
    for (const old of this.#chunks.keys()) {
      if (this.#chunks.size <= IN_MEMORY) break;
      this.#chunks.delete(old);
    }
    return chunk;
  }

  #load(index: number): Promise<Bytes> {
    const loading = this.#find(index);
    loading.catch(() => {
      // A later read tries again.
      if (this.#chunks.get(index) === loading) this.#chunks.delete(index);
    });
    return loading;
  }

  async #find(index: number): Promise<Bytes> {
    const length = Math.min(CHUNK, this.size - index * CHUNK);
    const stored = await this.store?.get(index);
    if (stored?.length === length) {
      this.client.counts.cached += length;
      return stored;
    }
    const bytes = this.#whole ? undefined : await this.#fetch(index * CHUNK, length);
    // A stream stores its chunks itself.
    if (!bytes) return this.#stream().chunk(index);
    // The caller need not wait for the storage.
    void this.client.save(this.store, index, bytes);
    return bytes;
  }

  #stream(): WholeStream {
    return (this.#whole ??= new WholeStream(this.url, this.client, this.size, this.etag, this.store));
  }

  /** Fetches a range; `undefined` if the server sends whole files only. */
  async #fetch(start: number, length: number): Promise<Bytes | undefined> {
    const bytes = new Uint8Array(length);
    let done = 0;
    return this.client.retry(this.url, async (signal, alive) => {
      const range = `bytes=${start + done}-${start + length - 1}`;
      const response = await this.client.request(this.url, { signal, headers: { Range: range } });
      if (response.status === 200) {
        await response.body?.cancel();
        return undefined;
      }
      const total = response.headers.get('content-range')?.match(/\/(\d+)$/)?.[1];
      if (response.status === 416 || (total && Number(total) !== this.size)) throw changed(this.url);
      if (response.status !== 206) throw refused(this.url, response);
      checkVersion(this.url, this.etag, response);
      for await (const piece of stream(response)) {
        alive();
        if (piece.length > length - done) throw new TransientError('io', 'the server sent more bytes than requested');
        bytes.set(piece, done);
        done += piece.length;
        this.client.counts.fetched += piece.length;
      }
      if (done < length) throw new TransientError('io', `the server sent ${done} of ${length} bytes`);
      return bytes;
    });
  }
}

/**
 * A file that arrives in one stream. It goes to the store, or else to blobs, which browsers keep outside the page's
 * memory.
 */
class WholeStream {
  readonly #blobs = new Map<number, Blob>();
  readonly #arrived = new Set<number>();
  #wake: () => void = () => {};
  #change = new Promise<void>((resolve) => (this.#wake = resolve));
  #failure: unknown;

  constructor(
    readonly url: string,
    readonly client: Client,
    readonly size: number,
    readonly etag: string | null,
    readonly store: ChunkStore | undefined,
  ) {
    this.#run().catch((error: unknown) => {
      this.#failure = error ?? new BolmoError('io', `${url}: loading failed`);
      this.#notify();
    });
  }

  async chunk(index: number): Promise<Bytes> {
    while (!this.#arrived.has(index)) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#change;
    }
    const blob = this.#blobs.get(index);
    const bytes = blob ? new Uint8Array(await blob.arrayBuffer()) : await this.store?.get(index);
    if (!bytes) throw new BolmoError('io', `${this.url}: a stored part of the file is gone; load it again`);
    return bytes;
  }

  #notify(): void {
    const wake = this.#wake;
    this.#change = new Promise<void>((resolve) => (this.#wake = resolve));
    wake();
  }

  #run(): Promise<void> {
    return this.client.retry(this.url, async (signal, alive) => {
      const response = await this.client.request(this.url, { signal });
      if (!response.ok) throw refused(this.url, response);
      checkVersion(this.url, this.etag, response);
      let index = 0;
      let filled = 0;
      let chunk = new Uint8Array(Math.min(CHUNK, this.size));
      for await (let piece of stream(response)) {
        alive();
        this.client.counts.fetched += piece.length;
        while (piece.length > 0) {
          if (chunk.length === 0) {
            throw new TransientError('io', `the server sent more than the ${this.size} bytes it announced`);
          }
          const part = piece.subarray(0, chunk.length - filled);
          chunk.set(part, filled);
          filled += part.length;
          piece = piece.subarray(part.length);
          if (filled < chunk.length) continue;
          if (!this.#arrived.has(index)) {
            if (!(await this.client.save(this.store, index, chunk))) this.#blobs.set(index, new Blob([chunk]));
            this.#arrived.add(index);
            this.#notify();
          }
          index += 1;
          filled = 0;
          chunk = new Uint8Array(Math.max(0, Math.min(CHUNK, this.size - index * CHUNK)));
        }
      }
      const sent = index * CHUNK + filled;
      if (sent < this.size) throw new TransientError('io', `the server sent ${sent} of ${this.size} bytes`);
    });
  }
}
