/** Reading and writing of safetensors files. */

/** @returns {{ header: Record<string, any>, data: Buffer }} */
export function read(file) {
  const length = Number(file.readBigUInt64LE(0));
  return { header: JSON.parse(file.toString('utf8', 8, 8 + length)), data: file.subarray(8 + length) };
}

/** A file with this header and data. Spaces after the header pad it to `headerBytes`. */
export function write(header, data, headerBytes = 0) {
  const text = Buffer.from(JSON.stringify(header).padEnd(headerBytes));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** Splits a checkpoint folder's weights into `count` shards with an index. */
export function shard(folder, count) {
  const { header, data } = read(folder.get('model.safetensors'));
  const names = Object.keys(header).filter((name) => name !== '__metadata__');
  const files = new Map(folder);
  files.delete('model.safetensors');
  const map = {};
  for (let i = 0; i < count; i++) {
    const name = `model-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.safetensors`;
    const parts = [];
    const tensors = {};
    let offset = 0;
    for (const tensor of names.filter((_, at) => at % count === i)) {
      const [start, end] = header[tensor].data_offsets;
      parts.push(data.subarray(start, end));
      tensors[tensor] = { ...header[tensor], data_offsets: [offset, offset + end - start] };
      offset += end - start;
      map[tensor] = name;
    }
    files.set(name, write(tensors, Buffer.concat(parts)));
  }
  const index = { metadata: { total_size: data.length }, weight_map: map };
  files.set('model.safetensors.index.json', Buffer.from(JSON.stringify(index)));
  return files;
}
