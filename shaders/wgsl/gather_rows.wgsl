// y[t] = table[index[t]], or added to what y[t] holds. Byte and suffix embeddings, pooling and depooling (SPEC 3, 5.3, 7).
// A table larger than a binding is cut by rows: one dispatch a piece, every piece after the first one adds.
struct Params {
    count: u32,     // rows of y
    dim4: u32,      // row length / 4
    first_row: u32, // of this piece within the table
    rows: u32,      // of this piece
    add: u32,       // 1: y += row, 0: y = row (zero where the row is in another piece)
    y_row: u32,     // row of y that index[0] writes to
}
@group(0) @binding(0) var<uniform> p: Params;
// binding 1: w, the piece of the table                                  [rows, dim]
@group(0) @binding(2) var<storage, read> index: array<u32>;           // [count]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;   // [y_row + count, dim]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if halted(id.y) || id.x >= p.dim4 || id.y >= p.count {
        return;
    }
    let row = index[id.y];
    let at = (p.y_row + id.y) * p.dim4 + id.x;
    let here = row >= p.first_row && row - p.first_row < p.rows;
    var v = vec4<f32>();
    if here {
        v = weights((row - p.first_row) * p.dim4 + id.x);
    }
    if p.add != 0u {
        if here {
            y[at] += v;
        }
    } else {
        y[at] = v;
    }
}
