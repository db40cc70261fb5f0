// Backwards through mlstm_norm (SPEC 4): from the gradient of the layer's gated output to those of the cell's sums, of the output
// gates and of the norm's weight. One lane a row and head. With N = max(|q · n|, exp(-m)) + 1e-6, h = y / N, its norm
// z = (h - mean) r, r = 1 / sqrt(variance + eps), and e = dout sigmoid(o) scale, what z is asked for:
//   dscale = dout sigmoid(o) z,  do = e z (1 - sigmoid(o)),  dy = (e - mean(e) - z mean(e z)) r / N
//   d(q · n) = -Σ dh h / N sign(q · n) where |q · n| exceeds exp(-m), else 0
// A norm hardly feels the size of what it gets, so Σ dh h is small among its terms: it is eps r² Σ e z, written out.
struct Params {
    rows: u32,
    heads: u32,
    dv: u32,
    x_stride: u32, // of a row of x and of dx
    o_offset: u32, // of head 0's output gate in a row of x and of dx
    eps: f32,      // of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;               // [rows, heads, dv + 1], the last column q · n
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> x: array<f32>;               // [rows, ...] at o_offset, x_stride
@group(0) @binding(4) var<storage, read> scale: array<f32>;           // [heads, dv]
@group(0) @binding(5) var<storage, read> dout: array<f32>;            // [rows, heads, dv]
@group(0) @binding(6) var<storage, read_write> dy: array<f32>;        // [rows, heads, dv + 1]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [rows, ...] at o_offset, x_stride
@group(0) @binding(8) var<storage, read_write> dscale: array<f32>;    // [rows, heads, dv], this row's share

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.rows * p.heads {
        return;
    }
    let head = id.x % p.heads;
    let t = id.x / p.heads;
    let y0 = id.x * (p.dv + 1u);
    let out0 = id.x * p.dv;
    let o0 = t * p.x_stride + p.o_offset + head * p.dv;
    let product = y[y0 + p.dv];
    let least = exp(-gates[id.x].z);
    let normaliser = max(abs(product), least) + 1e-6;

    var sum = 0.0;
    for (var j = 0u; j < p.dv; j++) {
        sum += y[y0 + j] / normaliser;
    }
    let mean = sum / f32(p.dv);
    var squares = 0.0;
    for (var j = 0u; j < p.dv; j++) {
        let d = y[y0 + j] / normaliser - mean;
        squares += d * d;
    }
    let r = 1.0 / sqrt(squares / f32(p.dv) + p.eps);

    // dy holds e until its sums are known.
    var asked = 0.0; // Σ e
    var along = 0.0; // Σ e z
    for (var j = 0u; j < p.dv; j++) {
        let z = (y[y0 + j] / normaliser - mean) * r;
        let gate = 1.0 / (1.0 + exp(-x[o0 + j]));
        let wanted = dout[out0 + j] * gate;
        let e = wanted * scale[head * p.dv + j];
        dscale[out0 + j] = wanted * z;
        dx[o0 + j] = e * z / (1.0 + exp(x[o0 + j]));
        dy[y0 + j] = e;
        asked += e;
        along += e * z;
    }
    let factor = r / normaliser;
    for (var j = 0u; j < p.dv; j++) {
        let z = (y[y0 + j] / normaliser - mean) * r;
        dy[y0 + j] = (dy[y0 + j] - asked / f32(p.dv) - z * (along / f32(p.dv))) * factor;
    }
    let outweighs = abs(product) > least;
    dy[y0 + p.dv] = select(0.0, -p.eps * r * r * along / normaliser * sign(product), outweighs);
}
