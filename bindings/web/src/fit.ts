/** Estimates whether a model fits, from its sizes and what the browser reports about the machine. */

import { type Device, NO_ADAPTER } from './device.js';
import type { AdapterInfo, Fit, Probe } from './types.js';

/** Memory to assume where the browser reports nothing. */
const USUAL_MEMORY = 4 * 2 ** 30;
/** Memory of the wasm module, which holds the weights if the CPU computes, less what it needs otherwise. */
const WASM_MEMORY = 3.5 * 2 ** 30;

/** Why an adapter cannot run models, or `null`. */
export function lackOf(adapter: AdapterInfo | null): string | null {
  if (!adapter) return NO_ADAPTER;
  return adapter.unusable && `the GPU cannot be used: ${adapter.unusable}`;
}

interface Sizes {
  parameters: number;
  weightBytes: Record<string, number>;
  workBytes: { software: number; gpu: number; cpu: number };
  sessionBytes: number;
}

/** Estimates from sizes as JSON, for what would compute; nothing is known without a device. */
export function fitting(
  json: string,
  device: Device | null,
  adapter: AdapterInfo | null,
): NonNullable<Probe['model']> {
  const { parameters, weightBytes, workBytes, sessionBytes } = JSON.parse(json) as Sizes;
  // In GiB, rounded down to a power of two, and at most 8.
  const told = (globalThis.navigator as { deviceMemory?: number } | undefined)?.deviceMemory;
  const memory = told ? told * 2 ** 30 : USUAL_MEMORY;
  const known = told && told < 8 ? memory : Infinity;
  const most = device === 'cpu' ? Math.min(known, WASM_MEMORY) : known;
  const work = device === 'cpu' ? workBytes.cpu : adapter?.software ? workBytes.software : workBytes.gpu;
  const formats = Object.entries(weightBytes).map(([format, weights]): Fit => {
    const bytes = weights + work + sessionBytes;
    const fits = !device ? 'unknown' : bytes > most ? 'no' : bytes > memory / 2 ? 'perhaps' : 'yes';
    return { format, bytes, fits };
  });
  const best = formats.find(({ fits }) => fits === 'yes') ?? formats.find(({ fits }) => fits === 'perhaps');
  return { parameters, formats, recommended: best?.format ?? null };
}
