// y = scale * x / sqrt(mean(x^2) + eps) over each group of a row. With `add`, the result is added to y, as in the
// blocks of OLMo (docs/model.md, "Global blocks"). A row holds `groups` contiguous groups of `dim` values: one for a
// norm over the whole row, one per head for a norm per head. One workgroup per group: workgroup.x is the group,
// workgroup.y the row. `halted` is from shared/guard.wgsl, `workgroup_sum` and `WORKGROUP` from shared/reduce_*.wgsl.
struct Params {
    rows: u32,
    groups: u32,    // per row
    dim4: u32,      // group length / 4
    x_offset4: u32, // offset of row 0 in x, / 4
    x_stride4: u32, // row stride of x, / 4
    y_offset4: u32,
    y_stride4: u32,
    add: u32,       // 1: y += norm(x), 0: y = norm(x)
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scale: array<vec4<f32>>;     // [dim]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;         // [rows, groups, dim] at x_offset, x_stride
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;   // [rows, groups, dim] at y_offset, y_stride

fn run(workgroup: vec3<u32>, lane: u32) {
    if halted(workgroup.y) {
        return;
    }
    let x0 = p.x_offset4 + workgroup.y * p.x_stride4 + workgroup.x * p.dim4;
    let y0 = p.y_offset4 + workgroup.y * p.y_stride4 + workgroup.x * p.dim4;
    var squares = vec4<f32>();
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let v = x[x0 + i];
        squares += v * v;
    }
    let s = workgroup_sum(squares);
    let r = 1.0 / sqrt((s.x + s.y + s.z + s.w) / f32(4u * p.dim4) + p.eps);
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let v = x[x0 + i] * r * scale[i];
        if p.add != 0u {
            y[y0 + i] += v;
        } else {
            y[y0 + i] = v;
        }
    }
}
