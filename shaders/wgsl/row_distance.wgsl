// The Euclidean distance between corresponding rows of x and y. One workgroup per pair of rows.
struct Params {
    rows: u32,
    dim4: u32,      // row length / 4
    x_offset4: u32, // offset of row 0 in x, / 4
    x_stride4: u32, // row stride of x, / 4
    y_offset4: u32,
    y_stride4: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [rows, dim] at x_offset, x_stride
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;         // [rows, dim] at y_offset, y_stride
@group(0) @binding(3) var<storage, read_write> out: array<f32>;       // [rows]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.x) {
        return;
    }
    let x0 = p.x_offset4 + group.x * p.x_stride4;
    let y0 = p.y_offset4 + group.x * p.y_stride4;
    var squares = vec4<f32>();
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let d = x[x0 + i] - y[y0 + i];
        squares += d * d;
    }
    let s = workgroup_sum(squares);
    if lane == 0u {
        out[group.x] = sqrt(s.x + s.y + s.z + s.w);
    }
}
