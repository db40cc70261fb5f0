/** Checkpoint folders as the wasm module reads them: file by file, range by range. */

import type { FetchOptions, Source } from './types.js';
import { BolmoError, InvalidArgumentError } from './errors.js';
import type { FileReader, Folder } from './folder.js';
import { HttpFolder } from './http.js';

/** A source in the form that crosses to the worker. */
export type PlainSource = { url: string } | { files: [name: string, file: Blob][] };

/** Converts a source from any of its forms. */
export function plainSource(source: Source): PlainSource {
  if (typeof source === 'string' || source instanceof URL) {
    try {
      return { url: new URL(source, globalThis.location?.href).href };
    } catch {
      const message = `${JSON.stringify(source)}: expected the address of a checkpoint folder`;
      throw new InvalidArgumentError('invalid argument', message);
    }
  }
  const iterable = Symbol.iterator in source;
  const files = iterable
    ? Array.from(source as Iterable<File>, (file): [string, Blob] => [file.webkitRelativePath || file.name, file])
    : Object.entries(source as Record<string, Blob>);
  const wrong = files.find(([, file]) => !(file instanceof Blob));
  if (wrong) throw new InvalidArgumentError('invalid argument', `${wrong[0]}: expected a File or a Blob`);
  return { files: checkpointFiles(files) };
}

/** The files of the topmost folder that has a `config.json`: picking a folder includes its subfolders. */
function checkpointFiles(files: [path: string, file: Blob][]): [name: string, file: Blob][] {
  const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/') + 1);
  const depth = (path: string): number => path.split('/').length;
  const configs = files.map(([path]) => path).filter((path) => path === 'config.json' || path.endsWith('/config.json'));
  const top = configs.sort((a, b) => depth(a) - depth(b))[0];
  const folder = folderOf(top ?? files[0]?.[0] ?? '');
  return files.filter(([path]) => folderOf(path) === folder).map(([path, file]) => [path.slice(folder.length), file]);
}

/** Opens a source. */
export function openFolder(source: PlainSource, options: FetchOptions, signal?: AbortSignal): Folder {
  return 'url' in source ? new HttpFolder(source.url, options, signal) : new BlobFolder(source.files);
}

class BlobFolder implements Folder {
  readonly origin = 'the chosen folder';
  readonly counts = { fetched: 0, cached: 0 };
  readonly #files: Map<string, Blob>;

  constructor(files: [string, Blob][]) {
    this.#files = new Map(files);
  }

  async open(name: string): Promise<FileReader | undefined> {
    const file = this.#files.get(name);
    if (!file) return undefined;
    const read = async (offset: number, length: number): Promise<Uint8Array> => {
      try {
        return new Uint8Array(await file.slice(offset, offset + length).arrayBuffer());
      } catch (error) {
        // Browsers report files that have changed, moved or become unreadable only when they are read.
        const message = `${name}: the file cannot be read any more (${String(error)}); choose the folder again`;
        throw new BolmoError('io', message);
      }
    };
    return { size: file.size, read };
  }

  async forget(): Promise<void> {}
}
