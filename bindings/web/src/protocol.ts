/** Messages between page and worker. */

import type { Device } from './device.js';
import type { FetchOptions, LoadOptions } from './types.js';
import type { PlainError } from './errors.js';

/** Options for starting an environment. */
export interface Loading {
  device: Device;
  constraints: boolean;
  wasmUrl: string | undefined;
}

/** The options of `LoadOptions` that the runtime reads. */
export type Overrides = Pick<LoadOptions, 'quantize' | 'ropeTheta' | 'ropeScaling'>;

/** `FetchOptions` without members that cannot be sent to the worker. */
export type Fetching = FetchOptions;

/** Messages from the page. */
export type Request =
  | { start: Loading }
  | { id: number; call: string; args: unknown }
  | { id: number; abort: true };

/** Messages from the worker. */
export type Reply =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number; error: PlainError };
