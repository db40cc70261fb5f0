/** The options and results of the package. */

/** Where a checkpoint folder is: its address, or its files as a user has picked or dropped them, or blobs by name. */
export type Source = string | URL | Iterable<File> | Record<string, Blob>;

/** How much is done. */
export interface LoadProgress {
  /** Bytes of weights that are on the device. */
  loaded: number;
  /** Bytes of weights in all; 0 until they are known. */
  total: number;
  /** Bytes that came over the network so far. */
  fetched: number;
  /** Bytes that came from the cache so far. */
  cached: number;
}

export interface EnvironmentOptions {
  /** Run in a worker, so that the page stays quick (the default), or on the page's own thread. */
  worker?: boolean;
  /** Load the larger wasm file, with which `regex` and `jsonSchema` can be used. */
  constraints?: boolean;
  /** Where the wasm file is, unless beside the package's own files. */
  wasmUrl?: string | URL;
  /** Makes the worker, where a bundler doesn't follow `new Worker(new URL(…))`. It has to run the module `bolmo-web/worker`. */
  createWorker?: () => Worker;
}

export interface FetchOptions {
  /** Headers for every request, such as a key. */
  headers?: Record<string, string>;
  /** As that of `fetch`. */
  credentials?: RequestCredentials;
  /** Keep what is fetched in the browser's storage and look there first (the default). Where there is no room, loading goes on without. */
  cache?: boolean;
  /** Milliseconds without a byte after which a request counts as failed: 30 000 unless given. */
  stallTimeout?: number;
  /** How often a failed request is made again: 3 unless given. */
  retries?: number;
}

export interface LoadOptions extends EnvironmentOptions, FetchOptions {
  /**
   * How weights are kept on the device: `f32`, `f16`, `q8` or `q4`, or a format and parts that differ, as in `q4,local=q8`. Unless given, as the
   * checkpoint was quantised ahead, or `f32`.
   */
  quantize?: string;
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

/** The browser's adapter. */
export interface AdapterInfo {
  name: string;
  /** Whether it computes on the CPU. */
  software: boolean;
  maxBufferBytes: number;
  maxBindingBytes: number;
  /** What it lacks, if it cannot be used. */
  unusable: string | null;
}

/** How a format would fit. No browser tells how much memory its GPU has: this is reckoned from the machine's own. */
export interface Fit {
  format: string;
  /** Bytes of device memory: weights, working memory, and a session of a text of some pages. */
  bytes: number;
  /**
   * `yes` within half of the machine's memory as the browser tells it; `perhaps` above; `no` above all of it; `unknown` where no adapter can be used. Browsers
   * tell of 8 GiB at most, or of nothing: then nothing above 2 GiB is more than `perhaps`.
   */
  fits: 'yes' | 'perhaps' | 'no' | 'unknown';
}

/** What is known before any weights are fetched. */
export interface Probe {
  /** Whether models can run here. */
  ok: boolean;
  /** Why not. */
  reason: string | null;
  adapter: AdapterInfo | null;
  /** Of the checkpoint that was given. */
  model: {
    parameters: number;
    /** From the largest format to the smallest; the only one, if the checkpoint was quantised ahead. */
    formats: Fit[];
    /** The largest format that fits, or perhaps fits. */
    recommended: string | null;
  } | null;
  /** The browser's storage for this origin: bytes in use and at most, where it tells. */
  storage: { usage: number; quota: number } | null;
}

export interface ModelInfo {
  parameters: number;
  hiddenSize: number;
  /** How weights are kept on the device. */
  formats: string;
  /** Snapshots restore on models with the same. */
  fingerprint: string;
  /** What was odd about the checkpoint but did not keep it from loading. */
  warnings: string[];
  /** Patches that the model was made for. */
  maxPositions: number;
  /** Bytes of the weights on the device. */
  weightBytes: number;
  adapter: AdapterInfo;
}

/** What a model's device was asked for so far, and what it holds. */
export interface Usage {
  dispatches: number;
  submits: number;
  readbacks: number;
  /** Bytes of all buffers now, and the most at one time. */
  deviceBytes: number;
  peakDeviceBytes: number;
  /** Bytes of the wasm module's memory. */
  wasmBytes: number;
}

export interface GenerateOptions {
  /** The most bytes to generate: 256 unless given. */
  maxBytes?: number;
  /** 0 takes the most probable byte (the default); 1 draws as the model says. */
  temperature?: number;
  /** Draw only from so many most probable bytes; 0 is off. */
  topK?: number;
  /** Draw only from the most probable bytes that together have this probability; 1 is off. */
  topP?: number;
  /** Draw only from bytes with this share of the most probable one's probability; 0 is off. */
  minP?: number;
  /** Above 1 discourages bytes that were seen lately; 1 is off. */
  repetitionPenalty?: number;
  /** How many of the last bytes count as seen lately: 64 unless given. */
  repetitionWindow?: number;
  /** Added to the logit of the end of the text. */
  endBias?: number;
  /** Added to the logits of patch ends: above 0 makes patches shorter. */
  boundaryBias?: number;
  /** Where random numbers begin: equal seeds draw equal texts. */
  seed?: number;
  /** Strings, or bytes, that end the text and are not part of it. */
  stop?: (string | Uint8Array)[];
  /** The whole text has to match this regular expression; needs `constraints`. */
  regex?: string;
  /** The text has to be JSON that fits this schema; needs `constraints`. */
  jsonSchema?: unknown;
  /** Ends the generation; what has come so far stays. */
  signal?: AbortSignal;
}

/** A piece of a generated text. */
export interface Piece {
  /** Whole characters; U+FFFD for bytes that are no UTF-8. */
  text: string;
  /** The bytes that `text` was made of. */
  bytes: Uint8Array;
  /** After how many of these bytes a patch ends. */
  patchEnds: number[];
}

/** How a generation ended. */
export interface Generation {
  stop: 'budget' | 'end' | 'stop-string' | 'complete' | 'cancelled';
  /** Bytes that were generated. */
  bytes: number;
  /** Patches that they ended. */
  patches: number;
  /** Whether the text matches `regex` or `jsonSchema`, where there is one. */
  matched: boolean | null;
}

export interface AppendOptions {
  /** Bytes done, and in all. */
  onProgress?: (done: number, all: number) => void;
  /** Ends the work; the session keeps the bytes that were done. */
  signal?: AbortSignal;
}

export interface SessionOptions {
  /** Begin with the id that begins texts (the default). */
  bos?: boolean;
}

/** What a session holds. */
export interface SessionState {
  /** Bytes of its text. */
  length: number;
  /** After how many bytes of it each patch ends; that of the last byte may still be open. */
  patchEnds: number[];
  /** Bytes of device memory. */
  deviceBytes: number;
}

export interface Score {
  bytes: number;
  patches: number;
  bytesPerPatch: number | null;
  /** Bits a byte of bytes and patch ends together. */
  bitsPerByteJoint: number;
  /** Bits a byte whatever the patch ends. */
  bitsPerByteFolded: number;
}
