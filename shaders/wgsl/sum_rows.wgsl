// y[j] = the sum of rows j per .. (j + 1) per of x, or y[j] += it: gradients of what rows share, such as the weights of
// a norm. One lane per column of a sum, row after row. Many rows take two dispatches, for speed and for accuracy.
struct Params {
    rows: u32,
    columns: u32,
    x_offset: u32, // offset of row 0 in x
    x_stride: u32, // row stride of x
    per: u32,      // rows of a sum, below 65536, where Mesa's CPU driver silently ends a lane's loop
    y_offset: u32, // offset of the first sum in y
    add: u32,      // 1: y += sum, 0: y = sum
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, columns] at x_offset, x_stride
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [rows / per, columns] at y_offset

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let begin = id.y * p.per;
    if id.x >= p.columns || begin >= p.rows {
        return;
    }
    let end = min(begin + p.per, p.rows);
    var sum = 0.0;
    for (var r = begin; r < end; r++) {
        sum += x[p.x_offset + r * p.x_stride + id.x];
    }
    let at = p.y_offset + id.y * p.columns + id.x;
    if p.add != 0u {
        y[at] += sum;
    } else {
        y[at] = sum;
    }
}
