/** Estimates whether a model fits, from its sizes and what the browser reports about the machine. */

import type { AdapterInfo, Fit, Probe } from './types.js';

/** Memory to assume where the browser reports nothing. */
const USUAL_MEMORY = 4 * 2 ** 30;

/** Why an adapter cannot run models, or `null`. */
export function lackOf(adapter: AdapterInfo | null): string | null {
  if (!adapter) {
    return 'this browser supports WebGPU but has no usable GPU; see chrome://gpu or about:support for the reason';
  }
  return adapter.unusable && `the GPU cannot be used: ${adapter.unusable}`;
}

interface Sizes {
  parameters: number;
  weightBytes: Record<string, number>;
  workBytes: { software: number; gpu: number };
  sessionBytes: number;
}

/** Estimates from sizes as JSON; nothing is known without an adapter. */
export function fitting(json: string, adapter: AdapterInfo | null): NonNullable<Probe['model']> {
  const { parameters, weightBytes, workBytes, sessionBytes } = JSON.parse(json) as Sizes;
  // In GiB, rounded down to a power of two, and at most 8.
  const told = (globalThis.navigator as { deviceMemory?: number } | undefined)?.deviceMemory;
  const memory = told ? told * 2 ** 30 : USUAL_MEMORY;
  const most = told && told < 8 ? memory : Infinity;
  const formats = Object.entries(weightBytes).map(([format, weights]): Fit => {
    const bytes = weights + (adapter?.software ? workBytes.software : workBytes.gpu) + sessionBytes;
    const fits = !adapter ? 'unknown' : bytes > most ? 'no' : bytes > memory / 2 ? 'perhaps' : 'yes';
    return { format, bytes, fits };
  });
  const best = formats.find(({ fits }) => fits === 'yes') ?? formats.find(({ fits }) => fits === 'perhaps');
  return { parameters, formats, recommended: best?.format ?? null };
}
