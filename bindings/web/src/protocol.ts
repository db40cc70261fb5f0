/** What page and worker say to each other. */

import type { FetchOptions } from './types.js';
import type { PlainError } from './errors.js';

/** How an environment is made. */
export interface Loading {
  constraints: boolean;
  wasmUrl: string | undefined;
}

/** `FetchOptions` without what cannot cross. */
export type Fetching = FetchOptions;

/** From the page. */
export type Request =
  | { start: Loading }
  | { id: number; call: string; args: unknown }
  | { id: number; abort: true };

/** From the worker. */
export type Reply =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number; error: PlainError };
