/** The runtime on this thread: commands by name, for the worker and for the direct mode. */

import type { AdapterInfo, LoadProgress, ModelInfo, Usage } from './types.js';
import type { Cancel, InitOutput, WebModel, WebSession } from './wasm/bolmo.js';
import type { Folder } from './folder.js';
import { type PlainSource, openFolder } from './source.js';
import { forgetAll } from './cache.js';
import { lackOf } from './fit.js';
import { BolmoError } from './errors.js';
import type { Fetching, Loading, Overrides } from './protocol.js';

/** The generated module. There are three wasm files, each with a module of the same shape. */
type Wasm = typeof import('./wasm/bolmo.js');

/** Sends an event of a running call to the page. */
export type Tell = (event: unknown) => void;

/** Milliseconds after loading until the kernels that the first byte doesn't need are compiled. */
const WARM_AFTER = 500;

interface Loaded {
  model: WebModel;
  source: PlainSource;
  fetching: Fetching;
  overrides: Overrides;
  sessions: Set<number>;
}

/** Models and sessions, by number. */
export class Core {
  readonly #loading: Loading;
  #started: Promise<{ module: Wasm; output: InitOutput }> | undefined;
  readonly #models = new Map<number, Loaded>();
  readonly #sessions = new Map<number, { session: WebSession; model: number }>();
  #numbers = 0;
  /** Set after a trap, which leaves the module's memory in an unknown state. */
  #crash: BolmoError | undefined;

  constructor(loading: Loading) {
    this.#loading = loading;
  }

  /** The wasm module, started at first use. A failed start is tried again. */
  get #wasm(): Promise<{ module: Wasm; output: InitOutput }> {
    if (!this.#started) {
      const started = start(this.#loading);
      started.catch(() => (this.#started = undefined));
      this.#started = started;
    }
    return this.#started;
  }

  /** Runs a command. */
  async call(name: string, args: unknown, tell: Tell, signal: AbortSignal): Promise<unknown> {
    if (this.#crash) throw this.#crash;
    const command = (this as unknown as Record<string, unknown>)[`do_${name}`];
    if (typeof command !== 'function') throw new BolmoError('internal', `unknown command ${name}`);
    try {
      return await command.call(this, args, tell, signal);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) {
        const message = `the wasm module crashed (${error.message}); reload the page, and please report this`;
        this.#crash = new BolmoError('internal', message);
        throw this.#crash;
      }
      // The abort may have become any other error on its way through the layers.
      if (signal.aborted) throw new BolmoError('cancelled', 'the call was aborted');
      throw error;
    }
  }

  #model(number: number): Loaded {
    const found = this.#models.get(number);
    if (!found) throw new BolmoError('invalid argument', 'the model is closed');
    return found;
  }

  #session(number: number): WebSession {
    const found = this.#sessions.get(number);
    if (!found) throw new BolmoError('invalid argument', 'the session or its model is closed');
    return found.session;
  }

  #register(session: unknown, model: number): number {
    const number = ++this.#numbers;
    this.#sessions.set(number, { session: session as WebSession, model });
    this.#model(model).sessions.add(number);
    return number;
  }

  async do_probe(
    { source, fetching, adapter: ask }: { source?: PlainSource; fetching: Fetching; adapter: boolean },
    _: Tell,
    signal: AbortSignal,
  ): Promise<{ adapter: AdapterInfo | null; model: string | null }> {
    const { module } = await this.#wasm;
    const adapter = ask ? await named(JSON.parse((await module.probeAdapter()) as string) as AdapterInfo | null) : null;
    const model = source ? ((await module.probeModel(openFolder(source, fetching, signal))) as string) : null;
    return { adapter, model };
  }

  async do_load(
    { source, overrides, fetching }: { source: PlainSource; overrides: Overrides; fetching: Fetching },
    tell: Tell,
    signal: AbortSignal,
  ): Promise<{ model: number; info: ModelInfo }> {
    const model = await this.#load(source, overrides, fetching, tell, signal);
    const number = ++this.#numbers;
    this.#models.set(number, { model, source, fetching, overrides, sessions: new Set() });
    return { model: number, info: await infoOf(model) };
  }

  async do_reload({ model: number }: { model: number }, tell: Tell, signal: AbortSignal): Promise<ModelInfo> {
    const loaded = this.#model(number);
    this.#closeSessions(loaded);
    loaded.model.destroy();
    const model = await this.#load(loaded.source, loaded.overrides, loaded.fetching, tell, signal);
    loaded.model.free();
    loaded.model = model;
    return infoOf(model);
  }

  async #load(
    source: PlainSource,
    overrides: Overrides,
    fetching: Fetching,
    tell: Tell,
    signal: AbortSignal,
  ): Promise<WebModel> {
    const { module } = await this.#wasm;
    const adapter = JSON.parse((await module.probeAdapter()) as string) as AdapterInfo | null;
    const lack = lackOf(adapter);
    if (lack) throw new BolmoError('no webgpu', lack);
    const folder = openFolder(source, fetching, signal);
    const progress = (loaded: number, total: number): boolean => {
      tell({ loaded, total, ...folder.counts } satisfies LoadProgress);
      return !signal.aborted;
    };
    progress(0, 0);
    try {
      const model = (await module.load(folder, JSON.stringify(overrides), progress)) as WebModel;
      this.#warmSoon(model);
      return model;
    } catch (error) {
      await forgetIfBad(folder, error);
      throw error;
    }
  }

  /** Compiles the remaining kernels while the page is idle, or after the first byte if it is not. */
  #warmSoon(model: WebModel): void {
    setTimeout(() => {
      const open = [...this.#models.values()].some((loaded) => loaded.model === model);
      if (open) model.warm();
    }, WARM_AFTER);
  }

  async do_lost({ model }: { model: number }): Promise<unknown> {
    return this.#model(model).model.lost();
  }

  async do_session({ model, bos }: { model: number; bos: boolean }): Promise<number> {
    return this.#register(await this.#model(model).model.session(bos), model);
  }

  async do_restore({ model, snapshot }: { model: number; snapshot: Uint8Array }): Promise<number> {
    return this.#register(await this.#model(model).model.restore(snapshot), model);
  }

  async do_fork({ session }: { session: number }): Promise<number> {
    const model = this.#sessions.get(session)?.model ?? 0;
    return this.#register(await this.#session(session).fork(), model);
  }

  async do_append(
    { session, text }: { session: number; text: Uint8Array },
    tell: Tell,
    signal: AbortSignal,
  ): Promise<void> {
    const found = this.#session(session);
    await cancelling(signal, found, () => found.append(text, (done: number, all: number) => tell({ done, all })));
  }

  async do_generate(
    { session, options }: { session: number; options: string },
    tell: Tell,
    signal: AbortSignal,
  ): Promise<unknown> {
    const found = this.#session(session);
    const onPiece = (text: string, bytes: Uint8Array, patchEnds: Uint32Array): void =>
      tell({ text, bytes, patchEnds: Array.from(patchEnds) });
    return cancelling(signal, found, () => found.generate(options, onPiece));
  }

  async do_snapshot({ session }: { session: number }): Promise<unknown> {
    return this.#session(session).snapshot();
  }

  async do_state({ session }: { session: number }): Promise<unknown> {
    const { length, deviceBytes } = this.#session(session);
    return { length, deviceBytes, patchEnds: Array.from(this.#session(session).patchEnds()) };
  }

  async do_score(
    { model, text }: { model: number; text: Uint8Array },
    tell: Tell,
    signal: AbortSignal,
  ): Promise<unknown> {
    const { module } = await this.#wasm;
    const cancel: Cancel = new module.Cancel();
    const progress = (done: number, all: number): void => tell({ done, all });
    try {
      return await cancelling(signal, cancel, () => this.#model(model).model.score(text, cancel, progress));
    } finally {
      cancel.free();
    }
  }

  async do_usage({ model }: { model: number }): Promise<Usage> {
    const { output } = await this.#wasm;
    const usage = JSON.parse(this.#model(model).model.usage()) as Usage;
    return { ...usage, wasmBytes: output.memory.buffer.byteLength };
  }

  async do_closeSession({ session }: { session: number }): Promise<void> {
    const found = this.#sessions.get(session);
    if (!found) return;
    this.#sessions.delete(session);
    this.#models.get(found.model)?.sessions.delete(session);
    // A running call ends soon, and holds what it needs.
    found.session.cancel();
    found.session.free();
  }

  async do_closeModel({ model }: { model: number }): Promise<void> {
    const loaded = this.#models.get(model);
    if (!loaded) return;
    this.#closeSessions(loaded);
    this.#models.delete(model);
    loaded.model.destroy();
    loaded.model.free();
  }

  async do_clearCache(): Promise<void> {
    await forgetAll();
  }

  #closeSessions(loaded: Loaded): void {
    for (const session of loaded.sessions) void this.do_closeSession({ session });
  }
}

async function infoOf(model: WebModel): Promise<ModelInfo> {
  const info = JSON.parse(model.info()) as ModelInfo;
  await named(info.adapter);
  return info;
}

/** Most browsers hide a GPU's name, but report its vendor and architecture. */
async function named<T extends AdapterInfo | null>(adapter: T): Promise<T> {
  if (adapter?.name === 'unnamed adapter') {
    const found = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
    const words = [found?.info.vendor, found?.info.architecture].filter(Boolean);
    if (words.length > 0) adapter.name = words.join(' ');
  }
  return adapter;
}

/** Fetches and starts the wasm module. */
async function start({ device, constraints, wasmUrl }: Loading): Promise<{ module: Wasm; output: InitOutput }> {
  const { module, beside } = await (device === 'cpu' ? cpuFile() : constraints ? constraintsFile() : plainFile());
  const url = wasmUrl ?? beside;
  try {
    return { module, output: await module.default({ module_or_path: url }) };
  } catch (error) {
    const message = `${String(url)}: the wasm file cannot be started (${String(error)})`;
    const option = device === 'cpu' ? 'cpuWasmUrl' : 'wasmUrl';
    throw new BolmoError('io', `${message}; check that the server has it there, or set ${option}`);
  }
}

// Bundlers recognize the addresses in this form only.

async function plainFile(): Promise<{ module: Wasm; beside: URL }> {
  return { module: await import('./wasm/bolmo.js'), beside: new URL('./wasm/bolmo_bg.wasm', import.meta.url) };
}

async function constraintsFile(): Promise<{ module: Wasm; beside: URL }> {
  const module = (await import('./wasm-constraints/bolmo.js')) as Wasm;
  return { module, beside: new URL('./wasm-constraints/bolmo_bg.wasm', import.meta.url) };
}

async function cpuFile(): Promise<{ module: Wasm; beside: URL }> {
  const module = (await import('./wasm-cpu/bolmo.js')) as unknown as Wasm;
  return { module, beside: new URL('./wasm-cpu/bolmo_bg.wasm', import.meta.url) };
}

/** Cancels `call` when the signal is aborted. */
async function cancelling<T>(signal: AbortSignal, what: { cancel(): void }, call: () => Promise<T>): Promise<T> {
  const cancel = (): void => what.cancel();
  signal.throwIfAborted();
  const result = call();
  // The call has started by now; it ignores requests from before its start.
  signal.addEventListener('abort', cancel);
  try {
    return await result;
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

/** Deletes a damaged checkpoint from the cache, which would return it forever. */
async function forgetIfBad(folder: Folder, error: unknown): Promise<void> {
  if ((error as { kind?: unknown }).kind === 'bad checkpoint') await folder.forget();
}
