// The gradient of gather_rows.wgsl by the table: dw[row] = sum of dy over the positions that gathered the row, or
// dw += it. The host sorts the positions by row. A segment holds the positions of one row, so no two lanes write the
// same word and every sum has a fixed order. Rows without a segment are left unchanged.
// Each lane sums four columns of a segment. A segment must have fewer than 65536 positions, where Mesa's CPU driver
// silently ends a lane's loop.
struct Params {
    segments: u32,
    dim4: u32,      // row length / 4
    first_row: u32, // first row of this slice of the table
    rows: u32,      // rows of this slice; segments of other slices are skipped
    add: u32,       // 1: dw += sum, 0: dw = sum
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;        // [.., dim]
@group(0) @binding(2) var<storage, read> order: array<u32>;           // [positions], rows of dy, grouped by segment
@group(0) @binding(3) var<storage, read> segments: array<vec4<u32>>;  // [segments, 4]: table row, first, count, 0
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
