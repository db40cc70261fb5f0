// The gradient of a table that rows were picked from: dw[row] = the sum of dy over all positions that picked the row, or added to dw.
// The host sorts the positions by row: a segment is the positions of one row, so that no two lanes add to the same word and sums have a
// fixed order. Rows that nobody picked are left as they are. One lane four columns of a segment, whose count must be below 65536: there
// Mesa's driver for CPUs ends a lane's loop without a word.
struct Params {
    segments: u32,
    dim4: u32,      // row length / 4
    first_row: u32, // of this piece within the table
    rows: u32,      // of this piece; segments of other pieces are passed over
    add: u32,       // 1: dw += sum, 0: dw = sum
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;        // [.., dim]
@group(0) @binding(2) var<storage, read> order: array<u32>;           // [positions] rows of dy, by segment
@group(0) @binding(3) var<storage, read> segments: array<vec4<u32>>;  // [segments, 4]: row of the table, first and count in order, 0
@group(0) @binding(4) var<storage, read_write> dw: array<vec4<f32>>;  // [rows, dim]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.dim4 || id.y >= p.segments {
        return;
    }
    let segment = segments[id.y];
    if segment.x < p.first_row || segment.x - p.first_row >= p.rows {
        return;
    }
    var sum = vec4<f32>();
    for (var i = 0u; i < segment.z; i++) {
        sum += dy[order[segment.y + i] * p.dim4 + id.x];
    }
    let at = (segment.x - p.first_row) * p.dim4 + id.x;
    if p.add != 0u {
        dw[at] += sum;
    } else {
        dw[at] = sum;
    }
}
