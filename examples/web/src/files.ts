/** Folders that are picked or dropped. */

/** A file and its path in what was picked: `folder/config.json`. */
export interface Found {
  path: string;
  file: File;
}

/** The files of one folder. */
export interface Folder {
  name: string;
  files: Record<string, Blob>;
}

/** Maximum depth of the search: a checkpoint may be in a subfolder of the dropped folder. */
const DEPTH = 2;

/** Files of a file picker. */
export function picked(files: Iterable<File>): Found[] {
  return Array.from(files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** Dropped files. Must be called inside the event: browsers forget the entries afterwards. */
export async function dropped(data: DataTransfer): Promise<Found[]> {
  const entries = Array.from(data.items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  return (await Promise.all(entries.map((entry) => walk(entry, entry.name, DEPTH)))).flat();
}

async function walk(entry: FileSystemEntry, path: string, depth: number): Promise<Found[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ path, file }];
  }
  if (depth === 0) return [];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: Found[] = [];
  for (;;) {
    // Entries come in batches of about 100; the last batch is empty.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return found;
    for (const child of some) found.push(...(await walk(child, `${path}/${child.name}`, depth - 1)));
  }
}

/** The checkpoint folder: that of the topmost `config.json`, or else the topmost folder. */
export function checkpointFolder(found: Found[]): Folder | undefined {
  const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/') + 1);
  const configs = found.filter(({ path }) => /(^|\/)config\.json$/.test(path));
  const candidates = (configs.length > 0 ? configs : found).map(({ path }) => folderOf(path));
  const depth = (folder: string): number => folder.split('/').length;
  const [folder] = candidates.sort((a, b) => depth(a) - depth(b));
  if (folder === undefined) return undefined;
  const inside = found.filter(({ path }) => folderOf(path) === folder);
  const name = folder.split('/').at(-2) ?? 'your files';
  return { name, files: Object.fromEntries(inside.map(({ path, file }) => [path.slice(folder.length), file])) };
}
