/** What can go wrong. Every error of this package is a `BolmoError`, but for aborted calls: these reject with the signal's own reason. */

/** What went wrong, in the coarse classes that callers can act on. */
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
  | 'no webgpu';

/** An error with a stable kind and one sentence that says what was expected and what was found. */
export class BolmoError extends Error {
  constructor(
    readonly kind: ErrorKind,
    message: string,
  ) {
    super(message);
    this.name = new.target.name;
  }
}

/** The browser has no WebGPU, or no adapter that can be used. */
export class NoWebGpuError extends BolmoError {
  constructor(message: string) {
    super('no webgpu', message);
  }
}
/** An argument is out of its range or contradicts another one. */
export class InvalidArgumentError extends BolmoError {}
/** A file that has to be there is not. */
export class NotFoundError extends BolmoError {}
/** A checkpoint, a vocabulary or a snapshot is damaged or contradicts itself. */
export class BadCheckpointError extends BolmoError {}
/** The input is well formed, but this build, model or adapter cannot do it. */
export class UnsupportedError extends BolmoError {}
/** The device or the page has not enough memory. */
export class OutOfMemoryError extends BolmoError {}
/** The device was lost; `model.reload()` gets a new one. */
export class DeviceLostError extends BolmoError {}
/** The session is at work. */
export class BusyError extends BolmoError {}
/** A server or a file could not be read. */
export class NetworkError extends BolmoError {}
/** A defect of this package; please report it. */
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

/** An error as it crosses from the worker. */
export interface PlainError {
  kind: string;
  message: string;
}

/** The error of a kind. */
export function errorOf({ kind, message }: PlainError): BolmoError {
  if (kind === 'no webgpu') return new NoWebGpuError(message);
  const known = classes[kind as ErrorKind];
  return known ? new known(kind as ErrorKind, message) : new InternalError('internal', message);
}

/** What was thrown, as it can cross to the page. Anything without a kind is a defect or a crash of the wasm module. */
export function plain(thrown: unknown): PlainError {
  if (isAbort(thrown)) return { kind: 'cancelled', message: 'the call was aborted' };
  const { kind, message } = (thrown ?? {}) as { kind?: unknown; message?: unknown };
  return { kind: typeof kind === 'string' ? kind : 'internal', message: String(message ?? thrown) };
}

/** Whether this is what an aborted `fetch` throws. */
export function isAbort(thrown: unknown): boolean {
  return (thrown as { name?: unknown } | null)?.name === 'AbortError';
}
