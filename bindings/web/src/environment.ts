/** Destination of calls: a core on this thread, or one in a worker. */

import { Core } from './core.js';
import type { Device } from './device.js';
import { type PlainError, BolmoError, errorOf, plain } from './errors.js';
import type { Loading, Reply, Request } from './protocol.js';
import type { EnvironmentOptions } from './types.js';

/** Runs commands of `Core`. */
export interface Environment {
  call<T>(name: string, args: unknown, options?: CallOptions): Promise<T>;
  /** Ends the environment, unless others use it. */
  end?(): void;
}

export interface CallOptions {
  onEvent?: ((event: never) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const environments = new Map<string, Environment>();

/**
 * The environment for a device and these options, created at first use. Models share one, unless the page creates its
 * own workers.
 */
export function environment(device: Device, options: EnvironmentOptions): Environment {
  const wasmUrl = device === 'cpu' ? options.cpuWasmUrl : options.wasmUrl;
  const loading: Loading = {
    device,
    // The file for the CPU always has them.
    constraints: device === 'cpu' || (options.constraints ?? false),
    wasmUrl: wasmUrl === undefined ? undefined : new URL(wasmUrl, globalThis.location?.href).href,
  };
  const worker = options.worker ?? true;
  if (worker && options.createWorker) {
    const own = new WorkerEnvironment(loading, options.createWorker);
    return { call: (name, args, callOptions) => own.call(name, args, callOptions), end: () => own.terminate() };
  }
  const key = JSON.stringify([worker, loading]);
  const known = environments.get(key);
  if (known) return known;
  const make = () => new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'bolmo' });
  const made = worker
    ? new WorkerEnvironment(loading, make, () => environments.delete(key))
    : new DirectEnvironment(loading);
  environments.set(key, made);
  return made;
}

/** An error as the caller gets it: the signal's own reason if it was aborted. */
function outward(error: PlainError, signal: AbortSignal | undefined): unknown {
  if (error.kind !== 'cancelled') return errorOf(error);
  return signal?.aborted ? signal.reason : new DOMException('the call was cancelled', 'AbortError');
}

class DirectEnvironment implements Environment {
  readonly #core: Core;

  constructor(loading: Loading) {
    this.#core = new Core(loading);
  }

  async call<T>(name: string, args: unknown, { onEvent, signal }: CallOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    try {
      const tell = (event: unknown): void => onEvent?.(event as never);
      return (await this.#core.call(name, args, tell, signal ?? new AbortController().signal)) as T;
    } catch (error) {
      throw outward(plain(error), signal);
    }
  }
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
  onEvent: ((event: never) => void) | undefined;
  signal: AbortSignal | undefined;
}

class WorkerEnvironment implements Environment {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #ids = 0;
  #failure: BolmoError | undefined;

  constructor(loading: Loading, make: () => Worker, onFailure: () => void = () => {}) {
    this.#worker = make();
    this.#worker.addEventListener('message', ({ data }: MessageEvent<Reply>) => this.#take(data));
    this.#worker.addEventListener('error', (event) => {
      event.preventDefault();
      this.#failure = event.message
        ? new BolmoError('internal', `the worker crashed: ${event.message}; load the model again`)
        : new BolmoError('io', 'the worker cannot be loaded; check where the package is served, or set createWorker');
      // The next call gets a new worker.
      onFailure();
      const pending = [...this.#pending.values()];
      this.#pending.clear();
      for (const call of pending) call.reject(errorOf(this.#failure));
    });
    this.#post({ start: loading });
  }

  terminate(): void {
    this.#worker.terminate();
    this.#failure = new BolmoError('invalid argument', 'the model is closed');
  }

  #post(request: Request): void {
    this.#worker.postMessage(request);
  }

  #take(reply: Reply): void {
    const call = this.#pending.get(reply.id);
    if (!call) return;
    if ('event' in reply) {
      call.onEvent?.(reply.event as never);
      return;
    }
    this.#pending.delete(reply.id);
    if ('error' in reply) call.reject(outward(reply.error, call.signal));
    else call.resolve(reply.result);
  }

  async call<T>(name: string, args: unknown, { onEvent, signal }: CallOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    if (this.#failure) throw errorOf(this.#failure);
    const id = ++this.#ids;
    const abort = (): void => this.#post({ id, abort: true });
    signal?.addEventListener('abort', abort);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject, onEvent, signal });
        try {
          this.#post({ id, call: name, args });
        } catch (error) {
          this.#pending.delete(id);
          const message = `an argument cannot be sent to the worker: ${String(error)}`;
          reject(errorOf({ kind: 'invalid argument', message }));
        }
      });
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }
}
