// The gates of an mLSTM layer and their stabiliser, row after row (SPEC 4). One lane a head of a sequence.
//   ig = cap(x_i), lf = logsigmoid(cap(x_f)),  m' = max(lf + m, ig),  f = exp(lf + m - m'),  i = exp(ig - m')
// g is the running sum of lf + m - m' since the start of the row's chunk: exp(g_t - g_s) i_s is the weight of source row s in
// row t of the same chunk, and exp(g_t) that of the state at the chunk's start. Nothing in them exceeds 1.
// Rows are those of one sequence or of several, one behind the other; the grid is heads by sequences.
struct Params {
    rows: u32,
    heads: u32,
    stride: u32,   // of a row of x
    i_offset: u32, // of head 0's input gate in a row of x
    f_offset: u32, // of head 0's forget gate
    chunk: u32,    // rows of a chunk
    cap: f32,      // soft cap of both pre-activations: cap tanh(x / cap); 0: none
    period: u32,   // rows of a sequence; the last one may have fewer
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                    // [rows, ...] at i_offset, f_offset, stride
@group(0) @binding(2) var<storage, read_write> m: array<f32>;              // [sequences, heads], carried from call to call
@group(0) @binding(3) var<storage, read_write> gates: array<vec4<f32>>;    // [rows, heads] of f, i, m, g

fn cap(x: f32) -> f32 {
    if p.cap == 0.0 {
        return x;
    }
    return p.cap * tanh_accurate(x / p.cap);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.x;
    if head >= p.heads {
        return;
    }
    let first = id.y * p.period;
    let end = min(first + p.period, p.rows);
    var state = m[id.y * p.heads + head];
    var g = 0.0;
    for (var t = first; t < end; t++) {
        let i = cap(x[t * p.stride + p.i_offset + head]);
        let decayed = log_sigmoid(cap(x[t * p.stride + p.f_offset + head])) + state;
        state = max(decayed, i);
        let lost = decayed - state;
        g = select(g, 0.0, (t - first) % p.chunk == 0u) + lost;
        gates[t * p.heads + head] = vec4<f32>(exp_accurate(lost), exp_accurate(i - state), state, g);
    }
    m[id.y * p.heads + head] = state;
}
