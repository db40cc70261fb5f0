// Gradient of rms_norm.wgsl, y = scale * x * r with r = 1 / sqrt(mean(x^2) + eps) over each group of a row:
//   dx = r (dy * scale) - x r^3 / dim sum(dy * scale * x), or dx += it, and dscale = dy * x * r
// One workgroup per group. Each group writes its own row of dscale; the caller sums the rows.
struct Params {
    rows: u32,
    groups: u32,     // per row
    dim4: u32,       // group length / 4
    x_offset4: u32,  // offset of row 0 in x, / 4
    x_stride4: u32,  // row stride of x, / 4
    dy_offset4: u32,
    dy_stride4: u32,
    dx_offset4: u32,
    dx_stride4: u32,
    add: u32,        // 1: dx += gradient, 0: dx = gradient
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scale: array<vec4<f32>>;         // [dim]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;             // [rows, groups, dim] at x_offset, x_stride
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;            // [rows, groups, dim] at dy_offset, dy_stride
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<f32>>;      // [rows, groups, dim] at dx_offset, dx_stride
@group(0) @binding(5) var<storage, read_write> dscale: array<vec4<f32>>;  // [rows, groups, dim]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.y) {
        return;
    }
    let x0 = p.x_offset4 + group.y * p.x_stride4 + group.x * p.dim4;
    let dy0 = p.dy_offset4 + group.y * p.dy_stride4 + group.x * p.dim4;
    let dx0 = p.dx_offset4 + group.y * p.dx_stride4 + group.x * p.dim4;
    let dscale0 = (group.y * p.groups + group.x) * p.dim4;
    var squares = vec4<f32>();
    var products = vec4<f32>();
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let v = x[x0 + i];
        squares += v * v;
        products += dy[dy0 + i] * scale[i] * v;
    }
    let one = vec4<f32>(1.0);
    let s = workgroup_sum(vec4<f32>(dot(squares, one), dot(products, one), 0.0, 0.0));
    let n = f32(4u * p.dim4);
    let r = 1.0 / sqrt(s.x / n + p.eps);
    let mean = s.y * r / n;
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let unit = x[x0 + i] * r;
        let d = dy[dy0 + i];
        dscale[dscale0 + i] = d * unit;
        let v = r * (d * scale[i] - unit * mean);
        if p.add != 0u {
            dx[dx0 + i] += v;
        } else {
            dx[dx0 + i] = v;
        }
    }
}
