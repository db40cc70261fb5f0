// From the sums of the mLSTM cell to the gated output of the layer (docs/model.md, "Local layer (mLSTM)"). One
// workgroup per row and head.
//   h = y / (max(|q · n|, exp(-m)) + 1e-6),  out = sigmoid(o) * LayerNorm(h) * scale   (mean subtracted, no bias)
struct Params {
    rows: u32,
    heads: u32,
    dv: u32,
    x_stride: u32, // row stride of x
    o_offset: u32, // offset of head 0's output gate in a row of x
    eps: f32,      // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;               // [rows, heads, dv + 1], the last column q · n
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> x: array<f32>;               // [rows, ...] at o_offset, x_stride
@group(0) @binding(4) var<storage, read> scale: array<f32>;           // [heads, dv]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;       // [rows, heads, dv]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.y) {
        return;
    }
    let head = group.x;
    let t = group.y;
    let y0 = (t * p.heads + head) * (p.dv + 1u);
    let normalizer = max(abs(y[y0 + p.dv]), exp(-gates[t * p.heads + head].z)) + 1e-6;
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
    for (var j = lane; j < p.dv; j += WORKGROUP) {
        let at = head * p.dv + j;
        let gate = 1.0 / (1.0 + exp(-x[t * p.x_stride + p.o_offset + at]));
        out[t * p.heads * p.dv + at] = gate * (y[y0 + j] / normalizer - mean) * r * scale[at];
    }
}
