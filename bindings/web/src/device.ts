/** The choice of what computes: the GPU through WebGPU, or the CPU. */

import { InvalidArgumentError, NoWebGpuError, UnsupportedError } from './errors.js';
import type { EnvironmentOptions } from './types.js';

/** What computes. */
export type Device = 'gpu' | 'cpu';

/** What is known about the devices before any wasm file is fetched. */
export interface Choice {
  /** The devices to try, in order. */
  devices: Device[];
  /** Why there are none, or `null`. */
  reason: string | null;
  /** Why the GPU cannot be used, or `null` if nothing speaks against it yet. */
  lackOfGpu: string | null;
}

/** Why the page has no WebGPU, or `null` if it has. */
function lackOfWebGpu(): string | null {
  if (globalThis.isSecureContext === false) {
    return 'WebGPU needs a secure page; serve this one over https, or from localhost';
  }
  if (!globalThis.navigator?.gpu) {
    const current = 'a current version of Chrome, Edge, Safari or Firefox';
    return `this browser has no WebGPU, or it is turned off; use ${current}`;
  }
  return null;
}

/** What a browser with WebGPU lacks if it offers no adapter. */
export const NO_ADAPTER =
  'this browser supports WebGPU but has no usable GPU; see chrome://gpu or about:support for the reason';

async function offersAdapter(): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  return adapter !== null;
}

/** A module with one function, which adds up vectors. */
const VECTORS = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** Why the CPU cannot compute with these options, or `null` if it can. */
function lackOfCpu({ worker }: EnvironmentOptions): string | null {
  if (worker === false) return 'the CPU computes in a worker only, because it would block the page';
  if (!WebAssembly.validate(VECTORS)) {
    return 'the CPU cannot be used, because this browser has no vectors in WebAssembly (SIMD); use a current version';
  }
  return null;
}

/** Chooses what computes, as far as the page can tell. Rejects for options that contradict each other. */
export async function choose(options: EnvironmentOptions): Promise<Choice> {
  const { device = 'auto' } = options;
  if (!['auto', 'gpu', 'cpu'].includes(device)) {
    const found = JSON.stringify(device);
    throw new InvalidArgumentError('invalid argument', `device: expected 'auto', 'gpu' or 'cpu', found ${found}`);
  }
  if (device === 'cpu' && options.worker === false) {
    const message = "device: 'cpu' computes in a worker only, because it would block the page; leave out worker: false";
    throw new InvalidArgumentError('invalid argument', message);
  }
  const lackOfGpu = lackOfWebGpu();
  if (device === 'gpu') return { devices: lackOfGpu === null ? ['gpu'] : [], reason: lackOfGpu, lackOfGpu };
  const lack = lackOfCpu(options);
  if (device === 'cpu') return { devices: lack === null ? ['cpu'] : [], reason: lack, lackOfGpu };
  if (lack !== null) {
    return { devices: lackOfGpu === null ? ['gpu'] : [], reason: lackOfGpu && `${lackOfGpu}; ${lack}`, lackOfGpu };
  }
  if (lackOfGpu !== null) return { devices: ['cpu'], reason: null, lackOfGpu };
  // Asked here, so that the file for the GPU is not fetched for nothing.
  if (!(await offersAdapter())) return { devices: ['cpu'], reason: null, lackOfGpu: NO_ADAPTER };
  return { devices: ['gpu', 'cpu'], reason: null, lackOfGpu: null };
}

/** The devices to try, at least one. */
export async function devicesFor(options: EnvironmentOptions): Promise<Device[]> {
  const { devices, reason } = await choose(options);
  if (reason !== null) {
    throw options.device === 'cpu' ? new UnsupportedError('unsupported', reason) : new NoWebGpuError(reason);
  }
  return devices;
}
