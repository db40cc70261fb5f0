/** Options and results of the package. */

/** A checkpoint folder: its address, the files that a user picked or dropped, or blobs by name. */
export type Source = string | URL | Iterable<File> | Record<string, Blob>;

/** Progress of a load. */
export interface LoadProgress {
  /** Bytes of weights that are on the device. */
  loaded: number;
  /** Total bytes of weights; 0 until known. */
  total: number;
  /** Bytes fetched over the network so far. */
  fetched: number;
  /** Bytes read from the cache so far. */
  cached: number;
}

export interface EnvironmentOptions {
  /**
   * What computes. `auto` (the default): the GPU, or the CPU if the browser has no WebGPU or no usable GPU. `gpu`,
   * `cpu`: this one alone. The CPU computes on one thread, in a worker.
   */
  device?: 'auto' | 'gpu' | 'cpu';
  /**
   * Run in a worker, so that the page stays responsive (the default), or on the page's own thread, where only the GPU
   * computes.
   */
  worker?: boolean;
  /** Load the larger wasm file, which `regex` and `jsonSchema` need. The one for the CPU always has them. */
  constraints?: boolean;
  /** Address of the wasm file, if it is not beside the package's own files. */
  wasmUrl?: string | URL;
  /** Address of the wasm file for the CPU, if it is not beside the package's own files. */
  cpuWasmUrl?: string | URL;
  /**
   * Creates the worker, for bundlers that don't follow `new Worker(new URL(…))`. It must run the module
   * `bolmo-web/worker`.
   */
  createWorker?: () => Worker;
}

export interface FetchOptions {
  /** Headers for every request, such as an API key. */
  headers?: Record<string, string>;
  /** As for `fetch`. */
  credentials?: RequestCredentials;
  /**
   * Store fetched files in the browser's storage, and look there first (the default). Without room, loading continues
   * without.
   */
  cache?: boolean;
  /** Milliseconds without a byte after which a request counts as failed. Default: 30 000. */
  stallTimeout?: number;
  /** How often a failed request is retried. Default: 3. */
  retries?: number;
}

export interface LoadOptions extends EnvironmentOptions, FetchOptions {
  /**
   * Format of the weights on the device: `f32`, `f16`, `q8` or `q4`, or a format and parts that differ, as in
   * `q4,local=q8`. Default: the format in which the checkpoint is stored if it is quantized, else `f32`.
   */
  quantize?: string;
  /** Base of the rotary frequencies, instead of the checkpoint's, for one that lost it in conversion. */
  ropeTheta?: number;
  /**
   * Scaling of the rotary frequencies of full-attention layers, instead of the checkpoint's, for one that lost it in
   * conversion: `none`, or a kind and its values as in `yarn:factor=8,original_max_position_embeddings=8192`, or the
   * object `rope_scaling` of a `config.json`.
   */
  ropeScaling?: string | Record<string, string | number | boolean>;
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

export interface ReloadOptions {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

export interface ProbeOptions extends EnvironmentOptions, FetchOptions {
  signal?: AbortSignal;
}

/** The browser's adapter, or the CPU. */
export interface AdapterInfo {
  name: string;
  /** Whether it is a driver that runs shaders on the CPU. */
  software: boolean;
  maxBufferBytes: number;
  maxBindingBytes: number;
  /** Why it cannot be used, or `null`. */
  unusable: string | null;
}

/** Whether a format would fit. No browser reports the memory of the GPU; this is estimated from the machine's own. */
export interface Fit {
  format: string;
  /** Bytes of device memory: weights, working memory, and a session with a text of a few pages. */
  bytes: number;
  /**
   * `yes` up to half of the machine's memory as the browser reports it; `perhaps` above; `no` above all of it;
   * `unknown` where nothing can compute. Browsers report at most 8 GiB, or nothing: then anything above 2 GiB is
   * `perhaps`. On the CPU, `no` above 3.5 GiB, because WebAssembly has 4 GiB.
   */
  fits: 'yes' | 'perhaps' | 'no' | 'unknown';
}

/** What is known before any weights are fetched. */
export interface Probe {
  /** Whether models can run here, on the GPU or on the CPU. */
  ok: boolean;
  /** Why not, or `null`. */
  reason: string | null;
  /** What would compute, or `null` if nothing can. */
  device: 'gpu' | 'cpu' | null;
  /** Whether WebGPU works, and why not, or `null`. */
  webgpu: { ok: boolean; reason: string | null };
  /** The GPU that the browser offers, also one that cannot be used; `null` if there is none, or none is wanted. */
  adapter: AdapterInfo | null;
  /** The checkpoint at `source`. */
  model: {
    parameters: number;
    /** From the largest format to the smallest. Only one if the checkpoint is stored quantized. */
    formats: Fit[];
    /** The largest format that fits, or perhaps fits. */
    recommended: string | null;
  } | null;
  /** The browser's storage for this origin, in bytes, if the browser reports it. */
  storage: { usage: number; quota: number } | null;
}

export interface ModelInfo {
  /** What computes. */
  device: 'gpu' | 'cpu';
  parameters: number;
  hiddenSize: number;
  /** Formats of the weights on the device. */
  formats: string;
  /** Snapshots restore on models with the same fingerprint. */
  fingerprint: string;
  /** Non-fatal load warnings. */
  warnings: string[];
  /** Maximum number of patches that the model was trained for. */
  maxPositions: number;
  /** Bytes of the weights on the device. */
  weightBytes: number;
  adapter: AdapterInfo;
}

/** Work that a model's device has done so far, and the memory in use. */
export interface Usage {
  dispatches: number;
  submits: number;
  readbacks: number;
  /** Bytes of all buffers now. */
  deviceBytes: number;
  /** The most bytes of all buffers at one time. */
  peakDeviceBytes: number;
  /** Bytes of the wasm module's memory. */
  wasmBytes: number;
}

export interface GenerateOptions {
  /** Maximum number of bytes to generate. Default: 256. */
  maxBytes?: number;
  /** 0 chooses the most probable byte (the default); 1 samples from the model's distribution. */
  temperature?: number;
  /** Sample from the most probable `topK` bytes only; 0 is off. */
  topK?: number;
  /** Sample only from the most probable bytes whose probabilities add up to `topP`; 1 is off. */
  topP?: number;
  /** Sample only from bytes with at least `minP` times the probability of the most probable one; 0 is off. */
  minP?: number;
  /** Above 1 discourages recent bytes; 1 is off. Clamped to 100. */
  repetitionPenalty?: number;
  /** Number of last bytes that count as recent. Default: 64. */
  repetitionWindow?: number;
  /** Added to the logit of the end of the text. Clamped to -1000..=1000. */
  endBias?: number;
  /** Added to the logits of patch ends: above 0 makes patches shorter. Clamped to -1000..=1000. */
  boundaryBias?: number;
  /** Seed of the random numbers: the same seed gives the same text. */
  seed?: number;
  /** Strings, or bytes, that end the text and are not part of it. */
  stop?: (string | Uint8Array)[];
  /** The whole text must match this regular expression; needs `constraints`. */
  regex?: string;
  /** The text must be JSON that is valid against this schema; needs `constraints`. */
  jsonSchema?: unknown;
  /** Ends the generation; the text so far is kept. */
  signal?: AbortSignal;
}

/** A piece of a generated text. */
export interface Piece {
  /** Whole characters; U+FFFD for invalid UTF-8. */
  text: string;
  /** The bytes of `text`. */
  bytes: Uint8Array;
  /** Offsets into `bytes` after which a patch ends. */
  patchEnds: number[];
}

/** How a generation ended. */
export interface Generation {
  stop: 'budget' | 'end' | 'stop-string' | 'complete' | 'cancelled';
  /** Number of generated bytes. */
  bytes: number;
  /** Number of patches that they ended. */
  patches: number;
  /** Whether the text matches `regex` or `jsonSchema`; `null` without either. */
  matched: boolean | null;
}

export interface AppendOptions {
  /** Receives the bytes done, and the total. */
  onProgress?: (done: number, all: number) => void;
  /** Cancels the call; the session keeps the bytes that were done. */
  signal?: AbortSignal;
}

export interface SessionOptions {
  /** Begin with the id that begins a text (the default). */
  bos?: boolean;
}

/** State of a session. */
export interface SessionState {
  /** Bytes of its text. */
  length: number;
  /** Offsets into the text after which a patch ends; whether one ends after the last byte may still be undecided. */
  patchEnds: number[];
  /** Bytes of device memory. */
  deviceBytes: number;
}

export interface Score {
  bytes: number;
  patches: number;
  bytesPerPatch: number | null;
  /** Bits per byte, of the bytes together with the patch ends. */
  bitsPerByteJoint: number;
  /** Bits per byte, of the bytes alone. */
  bitsPerByteFolded: number;
}
