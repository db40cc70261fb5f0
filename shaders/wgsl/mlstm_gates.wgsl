// The gates of an mLSTM layer and their stabiliser, row after row (SPEC 4). One workgroup a head of a sequence: its lanes cap 64 rows, one
// lane goes through them, and all lanes take the exponentials.
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
    period: u32,   // rows of a sequence, below 64000 (Mesa's driver for CPUs ends a lane's loops at 65535 turns); the last one may have fewer
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

const ROWS: u32 = 64u;
var<workgroup> capped: array<vec2<f32>, ROWS>; // of each row its input gate and the logarithm of its forget gate
var<workgroup> went: array<vec4<f32>, ROWS>;   // of each row the logarithms of f and i, m, g

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let first = group.y * p.period;
    let end = min(first + p.period, p.rows);
    // What the first lane carries from row to row.
    var state = m[group.y * p.heads + head];
    var g = 0.0;
    for (var begin = first; begin < end; begin += ROWS) {
        let t = begin + lane;
        if t < end {
            let at = t * p.stride + head;
            capped[lane] = vec2<f32>(cap(x[at + p.i_offset]), log_sigmoid(cap(x[at + p.f_offset])));
        }
        workgroupBarrier();
        if lane == 0u {
            let rows = min(ROWS, end - begin);
            for (var row = 0u; row < rows; row++) {
                let gate = capped[row];
                let decayed = gate.y + state;
                state = max(decayed, gate.x);
                let lost = decayed - state;
                g = select(g, 0.0, (begin + row - first) % p.chunk == 0u) + lost;
                went[row] = vec4<f32>(lost, gate.x - state, state, g);
            }
        }
        workgroupBarrier();
        if t < end {
            let row = went[lane];
            gates[t * p.heads + head] = vec4<f32>(exp_accurate(row.x), exp_accurate(row.y), row.z, row.w);
        }
    }
    if lane == 0u {
        m[group.y * p.heads + head] = state;
    }
}
