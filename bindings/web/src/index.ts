/**
 * Byte-level language models (Bolmo) in the browser, on WebGPU, or on the CPU where there is none.
 *
 * ```ts
 * import { Bolmo } from 'bolmo-web';
 *
 * const model = await Bolmo.load('/models/demo', { onProgress: ({ loaded, total }) => console.log(loaded, total) });
 * for await (const piece of model.generate('Once upon a time', { maxBytes: 200, temperature: 0.7 })) {
 *   document.body.append(piece.text);
 * }
 * model.close();
 * ```
 */

import { type Environment, environment } from './environment.js';
import { choose, devicesFor } from './device.js';
import { DeviceLostError, NoWebGpuError, errorOf } from './errors.js';
import { forgetAll } from './cache.js';
import { plainSource } from './source.js';
import { fitting, lackOf } from './fit.js';
import type {
  AdapterInfo,
  AppendOptions,
  FetchOptions,
  GenerateOptions,
  Generation,
  LoadOptions,
  LoadProgress,
  ModelInfo,
  Piece,
  Probe,
  ProbeOptions,
  ReloadOptions,
  Score,
  SessionOptions,
  SessionState,
  Source,
  Usage,
} from './types.js';

export * from './errors.js';
export type * from './types.js';

/** Text as bytes; strings are encoded as UTF-8. */
function bytesOf(text: string | Uint8Array): Uint8Array {
  if (typeof text === 'string') return new TextEncoder().encode(text);
  if (text instanceof Uint8Array) return text;
  throw errorOf({ kind: 'invalid argument', message: 'text: expected a string or a Uint8Array' });
}

function fetching({ headers, credentials, cache, stallTimeout, retries }: FetchOptions): FetchOptions {
  const all = { headers, credentials, cache, stallTimeout, retries };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Closes objects that were garbage-collected without being closed. */
const abandoned = new FinalizationRegistry<() => void>((close) => close());

/** The entry point: probing, loading, and the cache. */
export class Bolmo {
  private constructor() {}

  /**
   * Reports, before weights are fetched, whether models run here, and whether the one at `source` would fit. Rejects
   * only if the source cannot be read.
   */
  static async probe(source?: Source, options: ProbeOptions = {}): Promise<Probe> {
    const estimate = await globalThis.navigator?.storage?.estimate?.().catch(() => undefined);
    const storage = estimate ? { usage: estimate.usage ?? 0, quota: estimate.quota ?? 0 } : null;
    const { devices, reason: lack, lackOfGpu } = await choose(options);
    let [device = null, ...others] = devices;
    let [reason, gpuReason] = [lack, lackOfGpu];
    let adapter: AdapterInfo | null = null;
    let model: Probe['model'] = null;
    if (source !== undefined || device === 'gpu') {
      const plain = source === undefined ? undefined : plainSource(source);
      const place = environment(device ?? 'gpu', options);
      const asked = place.call<{ adapter: AdapterInfo | null; model: string | null }>(
        'probe',
        { source: plain, fetching: fetching(options), adapter: device === 'gpu' },
        options,
      );
      const found = await asked.finally(() => place.end?.());
      adapter = found.adapter;
      if (device === 'gpu') {
        gpuReason = lackOf(adapter);
        if (gpuReason !== null) device = others[0] ?? null;
        if (device === null) reason = gpuReason;
      }
      if (found.model) model = fitting(found.model, device, adapter);
    }
    const webgpu = { ok: gpuReason === null, reason: gpuReason };
    return { ok: device !== null, reason, device, webgpu, adapter, model, storage };
  }

  /** Loads a checkpoint folder onto the GPU, or for the CPU. */
  static async load(source: Source, options: LoadOptions = {}): Promise<Model> {
    const devices = await devicesFor(options);
    const { quantize, ropeTheta, ropeScaling } = options;
    const overrides = { quantize, ropeTheta, ropeScaling };
    const args = { source: plainSource(source), overrides, fetching: fetching(options) };
    for (;;) {
      const place = environment(devices.shift() ?? 'cpu', options);
      try {
        const { model, info } = await place.call<{ model: number; info: ModelInfo }>('load', args, {
          onEvent: options.onProgress as ((progress: LoadProgress) => void) | undefined,
          signal: options.signal,
        });
        return new Model(place, model, info);
      } catch (error) {
        place.end?.();
        // The adapter turned out to be unusable, before any weights were fetched.
        if (!(error instanceof NoWebGpuError) || devices.length === 0) throw error;
      }
    }
  }

  /** Deletes everything that this package has stored for this origin. */
  static async clearCache(): Promise<void> {
    await forgetAll();
  }
}

function closeModel(place: Environment, model: number): void {
  void place.call('closeModel', { model }).catch(() => {}).then(() => place.end?.());
}

/** A loaded model. Close it to free its memory; a model that is garbage-collected is closed some time later. */
export class Model {
  readonly #place: Environment;
  readonly #number: number;
  #info: ModelInfo;
  #lost: Promise<DeviceLostError>;

  /** Created by `Bolmo.load`. */
  constructor(place: Environment, number: number, info: ModelInfo) {
    this.#place = place;
    this.#number = number;
    this.#info = info;
    this.#lost = this.#watch();
    abandoned.register(this, () => closeModel(place, number), this);
  }

  #watch(): Promise<DeviceLostError> {
    const never = new Promise<never>(() => {});
    const watching = this.#place.call<string>('lost', { model: this.#number });
    return watching.then((message) => new DeviceLostError('device lost', message), () => never);
  }

  /** Properties of the model. */
  get info(): ModelInfo {
    return this.#info;
  }

  /**
   * Resolves if the device is lost. Calls then reject with a `DeviceLostError` until `reload`, which starts a new
   * promise.
   */
  get lost(): Promise<DeviceLostError> {
    return this.#lost;
  }

  /**
   * Continues `prompt` in a session of its own, and yields pieces as they are generated. Leaving the loop early, or
   * aborting the signal, ends the generation; an aborted loop throws the signal's reason. The generator's return value
   * says how the generation ended.
   */
  async *generate(prompt: string | Uint8Array, options: GenerateOptions = {}): AsyncGenerator<Piece, Generation> {
    const session = await this.session();
    try {
      const append: AppendOptions = options.signal ? { signal: options.signal } : {};
      await session.append(prompt, append);
      return yield* session.generate(options);
    } finally {
      session.close();
    }
  }

  /** Creates a session. */
  async session({ bos = true }: SessionOptions = {}): Promise<Session> {
    return new Session(this, this.#place, await this.#place.call<number>('session', { model: this.#number, bos }));
  }

  /** Restores a session from a snapshot, on this model or another one with the same fingerprint. */
  async restore(snapshot: Uint8Array): Promise<Session> {
    const number = await this.#place.call<number>('restore', { model: this.#number, snapshot: bytesOf(snapshot) });
    return new Session(this, this.#place, number);
  }

  /** Scores a text. */
  async score(text: string | Uint8Array, options: AppendOptions = {}): Promise<Score> {
    const args = { model: this.#number, text: bytesOf(text) };
    return JSON.parse(await this.#place.call<string>('score', args, appending(options))) as Score;
  }

  /** The device's work so far, and the memory in use. */
  async usage(): Promise<Usage> {
    return this.#place.call<Usage>('usage', { model: this.#number });
  }

  /**
   * Loads the model again, from the same source onto a new device, after the device was lost. Its sessions are closed.
   */
  async reload({ onProgress, signal }: ReloadOptions = {}): Promise<void> {
    const onEvent = onProgress as ((progress: LoadProgress) => void) | undefined;
    this.#info = await this.#place.call<ModelInfo>('reload', { model: this.#number }, { onEvent, signal });
    this.#lost = this.#watch();
  }

  /** Frees the model's memory, and closes its sessions. */
  close(): void {
    abandoned.unregister(this);
    closeModel(this.#place, this.#number);
  }
}

function appending({ onProgress, signal }: AppendOptions) {
  const onEvent = onProgress && (({ done, all }: { done: number; all: number }): void => onProgress(done, all));
  return { onEvent, signal };
}

/** One sequence on a model. One call at a time; a second one rejects with a `BusyError`. */
export class Session {
  /** The model of the session. */
  readonly model: Model;
  readonly #place: Environment;
  readonly #number: number;

  /** Created by `Model.session`. */
  constructor(model: Model, place: Environment, number: number) {
    this.model = model;
    this.#place = place;
    this.#number = number;
    abandoned.register(this, () => void place.call('closeSession', { session: number }).catch(() => {}), this);
  }

  /**
   * Appends text. Appending it in pieces gives the same state as appending it at once. An aborted call keeps the bytes
   * that were done.
   */
  async append(text: string | Uint8Array, options: AppendOptions = {}): Promise<void> {
    await this.#place.call('append', { session: this.#number, text: bytesOf(text) }, appending(options));
  }

  /** Continues the text, and appends what is generated. See `Model.generate`. */
  async *generate({ signal, stop, ...rest }: GenerateOptions = {}): AsyncGenerator<Piece, Generation> {
    const stops = stop?.map((text) => Array.from(bytesOf(text)));
    const options = JSON.stringify({ ...rest, ...(stops && { stop: stops }) });
    // Leaving the loop stops the work, as the signal does.
    const leaving = new AbortController();
    const both = signal ? AbortSignal.any([signal, leaving.signal]) : leaving.signal;
    const pieces: Piece[] = [];
    let wake: () => void = () => {};
    let ended: { how?: string; error?: unknown } | undefined;
    const onEvent = (piece: Piece): void => {
      pieces.push(piece);
      wake();
    };
    const end = (how: typeof ended): void => {
      ended = how;
      wake();
    };
    const call = this.#place.call<string>('generate', { session: this.#number, options }, { onEvent, signal: both });
    const over = call.then((how) => end({ how }), (error: unknown) => end({ error }));
    try {
      for (;;) {
        const piece = pieces.shift();
        if (piece) yield piece;
        else if (!ended) await new Promise<void>((resolve) => (wake = resolve));
        else if (ended.how !== undefined) return this.#generation(ended.how, signal);
        else throw ended.error;
      }
    } finally {
      leaving.abort();
      // The session is free only after the call has ended.
      await over;
    }
  }

  #generation(how: string, signal: AbortSignal | undefined): Generation {
    const made = JSON.parse(how) as Generation;
    if (made.stop === 'cancelled') signal?.throwIfAborted();
    return made;
  }

  /** Saves the session as bytes, to continue later or elsewhere. */
  async snapshot(): Promise<Uint8Array> {
    return this.#place.call<Uint8Array>('snapshot', { session: this.#number });
  }

  /** Creates an independent session with the same text. */
  async fork(): Promise<Session> {
    return new Session(this.model, this.#place, await this.#place.call<number>('fork', { session: this.#number }));
  }

  /** State of the session. */
  async state(): Promise<SessionState> {
    return this.#place.call<SessionState>('state', { session: this.#number });
  }

  /** Frees the session's memory. */
  close(): void {
    abandoned.unregister(this);
    void this.#place.call('closeSession', { session: this.#number }).catch(() => {});
  }
}
