/** Folders that are picked or dropped. */

/** A file and where it is in what was picked: `folder/config.json`. */
export interface Found {
  path: string;
  file: File;
}

/** The files of one folder. */
export interface Folder {
  name: string;
  files: Record<string, Blob>;
}

/** Levels of folders that are looked into: a checkpoint may lie in a folder of the folder that was dropped. */
const DEPTH = 2;

/** What a file picker gives. */
export function picked(files: Iterable<File>): Found[] {
  return Array.from(files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** What was dropped. Has to be called within the event: browsers forget the entries behind it. */
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
    // It comes in portions of 100 or so, the last of which is empty.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return found;
    for (const child of some) found.push(...(await walk(child, `${path}/${child.name}`, depth - 1)));
  }
}

/** The folder with the checkpoint: that of the `config.json` nearest to the top, or else whatever is at the top. */
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
