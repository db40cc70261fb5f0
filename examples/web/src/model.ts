/** The page's model, and its replacement by another one. */

import {
  type AdapterInfo,
  Bolmo,
  type DeviceLostError,
  type LoadProgress,
  type Model,
  NoWebGpuError,
  type Probe,
  type Source,
} from 'bolmo-web';

/** Source of a model. */
export interface Origin {
  name: string;
  source: Source;
}

/** Options of a load. */
export interface Loading {
  /** A format; the best one for the machine if not given. */
  quantize?: string | undefined;
  signal: AbortSignal;
  onProbe: (probe: Probe) => Promise<void>;
  onProgress: (progress: LoadProgress) => void;
}

/** A loaded model. */
export interface Loaded {
  model: Model;
  origin: Origin;
  probe: Probe;
  milliseconds: number;
  /** Bytes read for it: over the network, and from the browser's storage. */
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

  /** Loads a model and closes the previous one. If loading fails, the previous model stays. */
  async load(origin: Origin, { quantize, signal, onProbe, onProgress }: Loading): Promise<Loaded> {
    const begun = performance.now();
    const probe = await Bolmo.probe(origin.source, { signal });
    await onProbe(probe);
    if (!probe.ok) throw new NoWebGpuError(probe.reason ?? 'models cannot run here');
    const formats = probe.model?.formats ?? [];
    // A model that is stored quantized is loaded in its own format.
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

  /** Loads the model again after its device was lost. */
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

/** Description of the adapter. */
export function adapterWords({ name, software }: AdapterInfo): string {
  return software ? `${name}, running on the CPU` : name;
}
