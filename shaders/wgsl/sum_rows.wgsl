// y[j] = the sum of the rows j per .. (j + 1) per of x, or added to y: what rows ask of something they share, such as the weights of a norm.
// One lane a column of a sum, row after row. Many rows go in two dispatches, for speed and for the sake of rounding.
struct Params {
    rows: u32,
    columns: u32,
    x_offset: u32, // of row 0 in x
    x_stride: u32, // from row to row of x
    per: u32,      // rows that go into one sum; below 65536, where a lane's loop on Mesa's CPU driver ends without a word
    y_offset: u32, // of the first sum in y
    add: u32,      // 1: y += sum, 0: y = sum
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, columns] at x_offset, x_stride
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [rows / per, columns] at y_offset, the last one may be of fewer rows

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
