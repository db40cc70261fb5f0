/**
 * Errors. Every error of this package is a `BolmoError`, except for aborted calls, which reject with the signal's own
 * reason.
 */

/** Coarse classes of errors that callers can act on. */
export type ErrorKind =
  | 'invalid argument'
  | 'not found'
  | 'bad checkpoint'
  | 'unsupported'
  | 'out of memory'
  | 'device lost'
  | 'cancelled'
  | 'busy'
  | 'io'
  | 'internal'
  | 'suspended'
  | 'no webgpu';

/** An error with a stable kind, and one sentence that says what is wrong and what to do. */
export class BolmoError extends Error {
  constructor(
    readonly kind: ErrorKind,
    message: string,
  ) {
    super(message);
    this.name = new.target.name;
  }
}

/** The browser has no WebGPU, or no usable adapter. */
export class NoWebGpuError extends BolmoError {
  constructor(message: string) {
    super('no webgpu', message);
  }
}
/** An argument is out of range or contradicts another one. */
export class InvalidArgumentError extends BolmoError {}
/** A required file does not exist. */
export class NotFoundError extends BolmoError {}
/** A checkpoint, a vocabulary or a snapshot is damaged or contradicts itself. */
export class BadCheckpointError extends BolmoError {}
/** The input is well formed, but this build, model or adapter does not support it. */
export class UnsupportedError extends BolmoError {}
/** The device or the page has too little memory. */
export class OutOfMemoryError extends BolmoError {}
/** The device was lost; `model.reload()` gets a new one. */
export class DeviceLostError extends BolmoError {}
/** The session is busy with another call. */
export class BusyError extends BolmoError {}
/** A server or a file could not be read. */
export class NetworkError extends BolmoError {}
/** A bug in this package; please report it. */
export class InternalError extends BolmoError {}

const classes: Partial<Record<ErrorKind, new (kind: ErrorKind, message: string) => BolmoError>> = {
  'invalid argument': InvalidArgumentError,
  'not found': NotFoundError,
  'bad checkpoint': BadCheckpointError,
  unsupported: UnsupportedError,
  'out of memory': OutOfMemoryError,
  'device lost': DeviceLostError,
  busy: BusyError,
  io: NetworkError,
};

/** An error in the form that crosses from the worker. */
export interface PlainError {
  kind: string;
  message: string;
}

/** Creates the error of a kind. */
export function errorOf({ kind, message }: PlainError): BolmoError {
  if (kind === 'no webgpu') return new NoWebGpuError(message);
  const known = classes[kind as ErrorKind];
  return known ? new known(kind as ErrorKind, message) : new InternalError('internal', message);
}

/**
 * A thrown value in the form that crosses to the page. Anything without a kind is a bug or a crash of the wasm module.
 */
export function plain(thrown: unknown): PlainError {
  if (isAbort(thrown)) return { kind: 'cancelled', message: 'the call was aborted' };
  const { kind, message } = (thrown ?? {}) as { kind?: unknown; message?: unknown };
  return { kind: typeof kind === 'string' ? kind : 'internal', message: String(message ?? thrown) };
}

/** Whether this is the error of an aborted `fetch`. */
export function isAbort(thrown: unknown): boolean {
  return (thrown as { name?: unknown } | null)?.name === 'AbortError';
}
