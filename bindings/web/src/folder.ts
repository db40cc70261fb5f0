/** Folders of files that can be read at any offset. */

/** A file, read at any offset. */
export interface FileReader {
  readonly size: number;
  /** Reads exactly `length` bytes at `offset`. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** A folder of files. */
export interface Folder {
  /** Its location, for messages. */
  readonly origin: string;
  /** Opens the file of that name; `undefined` if there is none. */
  open(name: string): Promise<FileReader | undefined>;
  /** Bytes read so far: over the network, and from a cache. */
  readonly counts: { fetched: number; cached: number };
  /** Deletes its files from the cache. */
  forget(): Promise<void>;
}
