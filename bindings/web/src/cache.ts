/**
 * Fetched files in the browser's storage: the origin private file system, or the Cache API where that is missing.
 *
 * A file is stored in chunks, each with its SHA-256, under the file's address and the version that its server reports.
 * A chunk appears only when it is complete, so that an interrupted load continues where it stopped. Nothing here
 * throws: storage that is full, denied or damaged counts as a missing chunk.
 */

/** The chunks of one version of a file. */
export interface ChunkStore {
  get(index: number): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Stores a chunk. Resolves to whether it was stored. */
  put(index: number, bytes: Uint8Array<ArrayBuffer>): Promise<boolean>;
}

const ROOT = 'bolmo-web';

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function key(text: string): Promise<string> {
  return (await sha256(new TextEncoder().encode(text))).slice(0, 32);
}

async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch {
    return undefined;
  }
}

/**
 * Opens the store for this version of the file at `url`, and deletes other versions. `undefined` where nothing can be
 * stored.
 */
export async function openStore(url: string, version: string): Promise<ChunkStore | undefined> {
  // Only secure pages have this, and storage.
  if (!globalThis.crypto?.subtle) return undefined;
  const [file, name] = await Promise.all([key(url), key(version)]);
  return (await attempt(() => FileStore.open(file, name))) ?? (await attempt(() => CacheStore.open(file, name)));
}

/** Deletes all versions of the file at `url`. */
export async function forgetFile(url: string): Promise<void> {
  if (!globalThis.crypto?.subtle) return;
  const file = await key(url);
  await attempt(async () => (await FileStore.root()).removeEntry(file, { recursive: true }));
  await attempt(() => caches.delete(`${ROOT}/${file}`));
}

/** Deletes everything that this package has stored for this origin. */
export async function forgetAll(): Promise<void> {
  await attempt(async () => (await navigator.storage.getDirectory()).removeEntry(ROOT, { recursive: true }));
  await attempt(async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith(`${ROOT}/`));
    await Promise.all(names.map((name) => caches.delete(name)));
  });
}

/** One file per chunk, named `index-hash`. */
class FileStore implements ChunkStore {
  private constructor(
    readonly folder: FileSystemDirectoryHandle,
    readonly hashes: Map<number, string>,
  ) {}

  static async root(): Promise<FileSystemDirectoryHandle> {
    return (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT, { create: true });
  }

  static async open(file: string, version: string): Promise<FileStore> {
    const versions = await (await this.root()).getDirectoryHandle(file, { create: true });
    for await (const name of versions.keys()) {
      if (name !== version) await attempt(() => versions.removeEntry(name, { recursive: true }));
    }
    const folder = await versions.getDirectoryHandle(version, { create: true });
    const hashes = new Map<number, string>();
    for await (const name of folder.keys()) {
      const [index, hash] = name.split('-');
      // Leftovers of an interrupted write have other names.
      if (index && hash && /^\d+$/.test(index) && /^[0-9a-f]{64}$/.test(hash)) hashes.set(Number(index), hash);
    }
    return new FileStore(folder, hashes);
  }

  async get(index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const hash = this.hashes.get(index);
    if (!hash) return undefined;
    const name = `${index}-${hash}`;
    const bytes = await attempt(async () => {
      const file = await (await this.folder.getFileHandle(name)).getFile();
      return new Uint8Array(await file.arrayBuffer());
    });
    if (bytes && (await sha256(bytes)) === hash) return bytes;
    this.hashes.delete(index);
    await attempt(() => this.folder.removeEntry(name));
    return undefined;
  }

  async put(index: number, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const hash = await sha256(bytes);
    const name = `${index}-${hash}`;
    const stored = await attempt(async () => {
      const handle = await this.folder.getFileHandle(name, { create: true });
      const file = await handle.createWritable();
      await file.write(bytes);
      await file.close(); // the contents appear only now
      this.hashes.set(index, hash);
      return true;
    });
    if (!stored) await attempt(() => this.folder.removeEntry(name));
    return stored ?? false;
  }
}

/** One response per chunk, with its hash in a header. */
class CacheStore implements ChunkStore {
  private constructor(readonly cache: Cache, readonly version: string) {}

  static async open(file: string, version: string): Promise<CacheStore> {
    const cache = await caches.open(`${ROOT}/${file}`);
    for (const request of await cache.keys()) {
      if (!new URL(request.url).pathname.startsWith(`/${version}/`)) await cache.delete(request);
    }
    return new CacheStore(cache, version);
  }

  /** The Cache API needs addresses; nothing is ever fetched from this one. */
  private address(index: number): string {
    return `https://bolmo-web.invalid/${this.version}/${index}`;
  }

  async get(index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const found = await attempt(async () => {
      const response = await this.cache.match(this.address(index));
      if (!response) return undefined;
      return { hash: response.headers.get('x-sha256'), bytes: new Uint8Array(await response.arrayBuffer()) };
    });
    if (!found) return undefined;
    if ((await sha256(found.bytes)) === found.hash) return found.bytes;
    await attempt(() => this.cache.delete(this.address(index)));
    return undefined;
  }

  async put(index: number, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const headers = { 'x-sha256': await sha256(bytes) };
    const stored = await attempt(async () => {
      await this.cache.put(this.address(index), new Response(bytes, { headers }));
      return true;
    });
    return stored ?? false;
  }
}
