// A whole mLSTM cell for few rows, from q, k, v and the gates to the gated output of the layer (docs/model.md, "Local
// layer (mLSTM)"): mlstm_gates, mlstm_step and mlstm_norm in one dispatch. One workgroup per head, row after row.
//   ig = cap(x_i), lf = logsigmoid(cap(x_f)),  m' = max(lf + m, ig),  f = exp(lf + m - m'),  i = exp(ig - m')
//   C' = f C + i k vᵀ,  n' = f n + i k,  h = qᵀ C' / sqrt(dk) / (max(|q · n'| / sqrt(dk), exp(-m')) + 1e-6)
//   out = sigmoid(o) * LayerNorm(h) * scale   (mean subtracted, no bias)
// n is stored as column dv of C, as if v had one more value that is always 1.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,       // at most 256
    stride: u32,   // row stride of x
    q_offset: u32, // offset of head 0 in a row of x
    k_offset: u32,
    v_offset: u32,
    i_offset: u32, // offset of head 0's input gate
    f_offset: u32, // offset of head 0's forget gate
    o_offset: u32, // offset of head 0's output gate
    cap: f32,      // soft cap of both pre-activations: cap tanh(x / cap)
    scale: f32,    // dk ^ -0.5
    eps: f32,      // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at the offsets, stride
@group(0) @binding(2) var<storage, read_write> c: array<f32>;         // [heads, dk, dv + 1]
@group(0) @binding(3) var<storage, read_write> m: array<f32>;         // [heads]
@group(0) @binding(4) var<storage, read> norm: array<f32>;            // [heads, dv]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;       // [rows, heads, dv]

// Lanes of the workgroup: 64 columns of C times the number of slices of its rows, or a single lane.
override LANES: u32 = 64u;

var<workgroup> parts: array<f32, 256>; // [LANES]
var<workgroup> sums: array<f32, 320>;  // [dv + 1], qᵀ C' / sqrt(dk)
var<workgroup> partial: array<f32, 16>;

// The sum over j < dv of sums[j] - shift, squared or not. Must be called in uniform control flow.
fn sum_over(lane: u32, shift: f32, squared: bool) -> f32 {
    let adders = min(LANES, 16u);
    if lane < adders {
        var s = 0.0;
        for (var j = lane; j < p.dv; j += adders) {
            let d = sums[j] - shift;
            s += select(d, d * d, squared);
        }
        partial[lane] = s;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < adders; i++) {
        total += partial[i];
    }
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if halted(0u) {
        return;
    }
    let head = group.x;
    let columns = p.dv + 1u;
    let width = min(LANES, 64u); // columns at a time
    let slices = LANES / width;
    let slice = lane / width;
    var state = m[head];
    for (var t = 0u; t < p.rows; t++) {
        let row = t * p.stride;
        let ig = p.cap * tanh_accurate(x[row + p.i_offset + head] / p.cap);
        let decayed = log_sigmoid(p.cap * tanh_accurate(x[row + p.f_offset + head] / p.cap)) + state;
        state = max(decayed, ig);
        let keep = exp_accurate(decayed - state);
        let add = exp_accurate(ig - state);
        let q0 = row + p.q_offset + head * p.dk;
        let k0 = row + p.k_offset + head * p.dk;
        for (var first = 0u; first < columns; first += width) {
            let column = first + lane % width;
            var sum = 0.0;
            if column < columns {
                var v = add;
                if column < p.dv {
                    v *= x[row + p.v_offset + head * p.dv + column];
                }
                for (var i = slice; i < p.dk; i += slices) {
                    let at = (head * p.dk + i) * columns + column;
                    let value = keep * c[at] + x[k0 + i] * v;
                    c[at] = value;
                    sum += x[q0 + i] * value;
                }
            }
            parts[lane] = sum;
            workgroupBarrier();
            if slice == 0u && column < columns {
                for (var s = 1u; s < slices; s++) {
                    sum += parts[width * s + lane];
                }
                sums[column] = sum * p.scale;
            }
            workgroupBarrier();
        }
        let normalizer = max(abs(sums[p.dv]), exp_accurate(-state)) + 1e-6;
        let mean = sum_over(lane, 0.0, false) / f32(p.dv);
        // LayerNorm of y / normalizer, with numerator and denominator multiplied by the normalizer.
        let variance = sum_over(lane, mean, true) / f32(p.dv);
        let r = 1.0 / sqrt(variance / (normalizer * normalizer) + p.eps) / normalizer;
        for (var j = lane; j < p.dv; j += LANES) {
            let at = head * p.dv + j;
            let gate = 1.0 / (1.0 + exp(-x[row + p.o_offset + at]));
            out[t * p.heads * p.dv + at] = gate * (sums[j] - mean) * r * norm[at];
        }
        // The next row writes to sums.
        workgroupBarrier();
    }
    if lane == 0u {
        m[head] = state;
    }
}
