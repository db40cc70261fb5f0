// Gradient of mlstm_norm (docs/model.md, "Local layer (mLSTM)"): from the gradient of the gated output to the gradients
// of the cell's sums, the output gates and the norm's weight. One workgroup per row and head. With
// N = max(|q · n|, exp(-m)) + 1e-6, h = y / N, z = (h - mean) r, r = 1 / sqrt(variance + eps), and the gradient by z,
// e = dout sigmoid(o) scale:
//   dscale = dout sigmoid(o) z,  do = e z (1 - sigmoid(o)),  dy = (e - mean(e) - z mean(e z)) r / N
//   d(q · n) = -Σ dh h / N sign(q · n) where |q · n| exceeds exp(-m), else 0
// A norm is nearly invariant to the scale of its input, so Σ dh h would suffer from cancellation. It equals
// eps r² Σ e z, which is computed instead.
struct Params {
    rows: u32,
    heads: u32,
    dv: u32,
    x_stride: u32, // row stride of x and dx
    o_offset: u32, // offset of head 0's output gate in a row of x and dx
    eps: f32,      // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;               // [rows, heads, dv + 1], the last column q · n
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> x: array<f32>;               // [rows, ...] at o_offset, x_stride
@group(0) @binding(4) var<storage, read> scale: array<f32>;           // [heads, dv]
@group(0) @binding(5) var<storage, read> dout: array<f32>;            // [rows, heads, dv]
@group(0) @binding(6) var<storage, read_write> dy: array<f32>;        // [rows, heads, dv + 1]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [rows, ...] at o_offset, x_stride
@group(0) @binding(8) var<storage, read_write> dscale: array<f32>;    // [rows, heads, dv], not summed over rows

fn run(group: vec3<u32>, lane: u32) {
    let head = group.x;
    let t = group.y;
    let at = t * p.heads + head;
    let y0 = at * (p.dv + 1u);
    let out0 = at * p.dv;
    let o0 = t * p.x_stride + p.o_offset + head * p.dv;
    let product = y[y0 + p.dv];
    let least = exp(-gates[at].z);
    let normalizer = max(abs(product), least) + 1e-6;

    var sum = 0.0;
    for (var j = lane; j < p.dv; j += WORKGROUP) {
        sum += y[y0 + j] / normalizer;
    }
    let mean = workgroup_sum(vec4<f32>(sum, 0.0, 0.0, 0.0)).x / f32(p.dv);
    var squares = 0.0;
    for (var j = lane; j < p.dv; j += WORKGROUP) {
        let d = y[y0 + j] / normalizer - mean;
        squares += d * d;
    }
    let variance = workgroup_sum(vec4<f32>(squares, 0.0, 0.0, 0.0)).x / f32(p.dv);
    let r = 1.0 / sqrt(variance + p.eps);

    // dy holds e until its sums are known.
    var e_sum = 0.0;
    var ez_sum = 0.0;
    for (var j = lane; j < p.dv; j += WORKGROUP) {
        let z = (y[y0 + j] / normalizer - mean) * r;
        let gate = 1.0 / (1.0 + exp(-x[o0 + j]));
        let wanted = dout[out0 + j] * gate;
        let e = wanted * scale[head * p.dv + j];
        dscale[out0 + j] = wanted * z;
        dx[o0 + j] = e * z / (1.0 + exp(x[o0 + j]));
        dy[y0 + j] = e;
        e_sum += e;
        ez_sum += e * z;
    }
    let sums = workgroup_sum(vec4<f32>(e_sum, ez_sum, 0.0, 0.0));
    let factor = r / normalizer;
    // Each lane reads back only values that it wrote itself.
    for (var j = lane; j < p.dv; j += WORKGROUP) {
        let z = (y[y0 + j] / normalizer - mean) * r;
        dy[y0 + j] = (dy[y0 + j] - sums.x / f32(p.dv) - z * (sums.y / f32(p.dv))) * factor;
    }
    if lane == 0u {
        let outweighs = abs(product) > least;
        dy[y0 + p.dv] = select(0.0, -p.eps * r * r * sums.y / normalizer * sign(product), outweighs);
    }
}
