// y[t] = table[index[t]], or y[t] += table[index[t]]: byte and suffix embeddings, pooling and depooling (docs/model.md,
// "Suffix table", "Patches and pooling" and "Depooling").
// A table larger than a binding is sliced by rows. Each slice takes one dispatch, and all but the first add to y.
struct Params {
    count: u32,     // rows to gather
    dim4: u32,      // row length / 4
    first_row: u32, // first row of this slice of the table
    rows: u32,      // rows of this slice
    add: u32,       // 1: y += row, 0: y = row (zero if the row is in another slice)
    y_row: u32,     // row of y for index[0]
}
@group(0) @binding(0) var<uniform> p: Params;
// binding 1: w, this slice of the table                                 [rows, dim]
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
