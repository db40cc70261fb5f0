// The gradient of weighted distances (row_distance.wgsl) by x: dx = weight (x - y) / max(distance, 1e-12), or dx += it.
// Equal rows have a gradient of 0. Each lane computes four columns of a row.
struct Params {
    rows: u32,
    dim4: u32,       // row length / 4
    x_offset4: u32,  // offset of row 0 in x, / 4
    x_stride4: u32,  // row stride of x, / 4
    y_offset4: u32,
    y_stride4: u32,
    dx_offset4: u32,
    dx_stride4: u32,
    add: u32,        // 1: dx += gradient, 0: dx = gradient
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [rows, dim] at x_offset, x_stride
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;         // [rows, dim] at y_offset, y_stride
@group(0) @binding(3) var<storage, read> distance: array<f32>;        // [rows] of row_distance
@group(0) @binding(4) var<storage, read> weight: array<f32>;          // [rows]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;  // [rows, dim] at dx_offset, dx_stride

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.dim4 || id.y >= p.rows {
        return;
    }
    let d = x[p.x_offset4 + id.y * p.x_stride4 + id.x] - y[p.y_offset4 + id.y * p.y_stride4 + id.x];
    // Divide first: weight / distance may overflow f32.
    let v = d / max(distance[id.y], 1e-12) * weight[id.y];
    let at = p.dx_offset4 + id.y * p.dx_stride4 + id.x;
    if p.add != 0u {
        dx[at] += v;
    } else {
        dx[at] = v;
    }
}
