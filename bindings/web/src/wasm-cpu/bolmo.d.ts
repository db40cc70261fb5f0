/* tslint:disable */
/* eslint-disable */

/**
 * Cancels a call that has no session.
 */
export class Cancel {
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Asks the call to stop.
     */
    cancel(): void;
    /**
     * Creates a token.
     */
    constructor();
}

/**
 * A model. It has its own device, so that a failure there doesn't affect other models.
 */
export class WebModel {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Releases the device, with everything on it.
     */
    destroy(): void;
    /**
     * Properties of the model, as JSON.
     */
    info(): string;
    /**
     * Resolves to a message if the device is lost, and never otherwise.
     */
    lost(): Promise<any>;
    /**
     * Restores a session from a snapshot.
     */
    restore(snapshot: Uint8Array | number[]): Promise<any>;
    /**
     * Scores a text; the result is JSON. `progress` is called with the bytes done and the total.
     */
    score(text: Uint8Array | number[], cancel: Cancel, progress: Function): Promise<any>;
    /**
     * Creates a session, with `<bos>` at the start if `bos` is set.
     */
    session(bos: boolean): Promise<any>;
    /**
     * The device's work so far and the memory in use, as JSON.
     */
    usage(): string;
    /**
     * Starts compiling the kernels that the first byte doesn't need.
     */
    warm(): void;
}

/**
 * One sequence. A call during another one is rejected as `busy`.
 */
export class WebSession {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * Appends bytes of text. `progress` is called with the bytes done and the total.
     */
    append(text: Uint8Array | number[], progress: Function): Promise<any>;
    /**
     * Asks the running call to stop.
     */
    cancel(): void;
    /**
     * Creates another session with the same text.
     */
    fork(): Promise<any>;
    /**
     * Generates. `on_piece` receives a piece's text, bytes and patch ends. Resolves to a JSON object.
     */
    generate(options: string, on_piece: Function): Promise<any>;
    /**
     * Offsets into the text after which a patch ends. Whether one ends after the last byte may still be undecided.
     */
    patchEnds(): Uint32Array;
    /**
     * Saves the session as bytes.
     */
    snapshot(): Promise<any>;
    /**
     * Device memory of the session, in bytes.
     */
    readonly deviceBytes: number;
    /**
     * Number of bytes of text.
     */
    readonly length: number;
}

/**
 * Loads the checkpoint in `folder`. `options` is JSON: `quantize`, a format or formats by part; `ropeTheta` and
 * `ropeScaling`, which override those of the checkpoint. `progress` is called with the bytes done and the total; it
 * cancels the load by returning `false`.
 */
export function load(folder: any, options: string, progress: Function): Promise<any>;

/**
 * The adapter that is used as JSON, or `null` if there is none: the browser's, or the CPU device in builds that have it.
 */
export function probeAdapter(): Promise<any>;

/**
 * Memory needs of the checkpoint in `folder`, from its `config.json` alone, as JSON.
 */
export function probeModel(folder: any): Promise<any>;

/**
 * Prints warnings to the console, and panics, which are bugs in this library, with their location.
 */
export function start(): void;

/**
 * The library's version.
 */
export function version(): string;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_cancel_free: (a: number, b: number) => void;
    readonly __wbg_webmodel_free: (a: number, b: number) => void;
    readonly __wbg_websession_free: (a: number, b: number) => void;
    readonly cancel_cancel: (a: number) => void;
    readonly cancel_new: () => number;
    readonly load: (a: any, b: number, c: number, d: any) => any;
    readonly probeAdapter: () => any;
    readonly probeModel: (a: any) => any;
    readonly start: () => void;
    readonly version: () => [number, number];
    readonly webmodel_destroy: (a: number) => void;
    readonly webmodel_info: (a: number) => [number, number];
    readonly webmodel_lost: (a: number) => any;
    readonly webmodel_restore: (a: number, b: number, c: number) => any;
    readonly webmodel_score: (a: number, b: number, c: number, d: number, e: any) => any;
    readonly webmodel_session: (a: number, b: number) => any;
    readonly webmodel_usage: (a: number) => [number, number];
    readonly webmodel_warm: (a: number) => void;
    readonly websession_append: (a: number, b: number, c: number, d: any) => any;
    readonly websession_cancel: (a: number) => void;
    readonly websession_deviceBytes: (a: number) => [number, number, number];
    readonly websession_fork: (a: number) => any;
    readonly websession_generate: (a: number, b: number, c: number, d: any) => any;
    readonly websession_length: (a: number) => [number, number, number];
    readonly websession_patchEnds: (a: number) => [number, number, number, number];
    readonly websession_snapshot: (a: number) => any;
    readonly wasm_bindgen__convert__closures_____invoke__h70d357cc3a7b7fb2: (a: number, b: number, c: any, d: any) => void;
    readonly wasm_bindgen__convert__closures_____invoke__hd6d32ac5d27370a3: (a: number, b: number, c: any) => [number, number];
    readonly wasm_bindgen__convert__closures_____invoke__h4bd5da89a9ec6da1: (a: number, b: number) => void;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __wbindgen_exn_store: (a: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_destroy_closure: (a: number, b: number) => void;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
