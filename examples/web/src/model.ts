/** The model that the page writes with, and how it is exchanged for another. */

import { type AdapterInfo, Bolmo, type DeviceLostError, type LoadProgress, type Model, NoWebGpuError, type Probe, type Source } from 'bolmo-web';

/** Where a model comes from. */
export interface Origin {
  name: string;
  source: Source;
}

/** How one is loaded. */
export interface Loading {
  /** A format, or what suits the machine best. */
  quantize?: string | undefined;
  signal: AbortSignal;
  onProbe: (probe: Probe) => Promise<void>;
  onProgress: (progress: LoadProgress) => void;
}

/** A model that is there. */
export interface Loaded {
  model: Model;
  origin: Origin;
  probe: Probe;
  milliseconds: number;
  /** Bytes that were read for it: over the network, and from the browser's storage. */
  fetched: number;
  cached: number;
}

export class Shelf {
  #loaded: Loaded | undefined;
  readonly #onLost: (error: DeviceLostError) => void;

  constructor(onLost: (error: DeviceLostError) => void) {
    this.#onLost = onLost;
  }

  get loaded(): Loaded | undefined {
    return this.#loaded;
  }

  /** Loads a model and closes the one before it. If that fails, the former one stays. */
  async load(origin: Origin, { quantize, signal, onProbe, onProgress }: Loading): Promise<Loaded> {
    const begun = performance.now();
    const probe = await Bolmo.probe(origin.source, { signal });
    await onProbe(probe);
    if (!probe.ok) throw new NoWebGpuError(probe.reason ?? 'models cannot run here');
    const formats = probe.model?.formats ?? [];
    // One that was quantised ahead is loaded as it is.
    const format = formats.length > 1 ? (quantize ?? probe.model?.recommended ?? undefined) : undefined;
    const counts = { fetched: 0, cached: 0 };
    const model = await Bolmo.load(origin.source, {
      ...(format !== undefined && { quantize: format }),
      signal,
      onProgress: (progress) => {
        counts.fetched = progress.fetched;
        counts.cached = progress.cached;
        onProgress(progress);
      },
    });
    this.#loaded?.model.close();
    this.#loaded = { model, origin, probe, milliseconds: performance.now() - begun, ...counts };
    this.#watch(model);
    return this.#loaded;
  }

  /** Brings the model back after its device was lost. */
  async reload(signal: AbortSignal, onProgress: (progress: LoadProgress) => void): Promise<Loaded> {
    const loaded = this.#loaded;
    if (!loaded) throw new Error('there is no model to reload');
    const begun = performance.now();
    await loaded.model.reload({ signal, onProgress });
    loaded.milliseconds = performance.now() - begun;
    this.#watch(loaded.model);
    return loaded;
  }

  #watch(model: Model): void {
    void model.lost.then((error) => {
      if (this.#loaded?.model === model) this.#onLost(error);
    });
  }
}

/** The adapter in words. */
export function adapterWords({ name, software }: AdapterInfo): string {
  return software ? `${name}, computing on the CPU` : name;
}
