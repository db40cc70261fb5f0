// The gates of an mLSTM layer and their stabilizer, row after row (docs/model.md, "Local layer (mLSTM)"). One workgroup
// per head and sequence: its lanes compute the pre-activations of 64 rows, lane 0 runs the recurrence over them, and
// all lanes take the exponentials.
//   ig = cap(x_i), lf = logsigmoid(cap(x_f)),  m' = max(lf + m, ig),  f = exp(lf + m - m'),  i = exp(ig - m')
// g is the running sum of lf + m - m' since the start of the row's chunk: exp(g_t - g_s) i_s is the weight of source
// row s in row t of the same chunk, and exp(g_t) the weight of the state at the start of the chunk. Neither exceeds 1.
// The rows of several sequences are contiguous; the grid is heads by sequences. A sequence must have fewer than 64000
// rows: Mesa's CPU driver silently ends a lane's loops after 65535 iterations in total.
struct Params {
    rows: u32,
    heads: u32,
    stride: u32,   // row stride of x
    i_offset: u32, // offset of head 0's input gate in a row of x
    f_offset: u32, // offset of head 0's forget gate
    chunk: u32,    // rows of a chunk
    cap: f32,      // soft cap of both pre-activations: cap tanh(x / cap); 0: no cap
    period: u32,   // rows of a sequence, below 64000; the last sequence may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                  // [rows, ...] at i_offset, f_offset, stride
@group(0) @binding(2) var<storage, read_write> m: array<f32>;            // [sequences, heads], the carried state
@group(0) @binding(3) var<storage, read_write> gates: array<vec4<f32>>;  // [rows, heads] of f, i, m, g

fn cap(x: f32) -> f32 {
    if p.cap == 0.0 {
        return x;
    }
    return p.cap * tanh_accurate(x / p.cap);
}

const ROWS: u32 = 64u;
var<workgroup> capped: array<vec2<f32>, ROWS>; // per row: ig, lf
var<workgroup> logs: array<vec4<f32>, ROWS>;   // per row: log f, log i, m, g

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let first = group.y * p.period;
    let end = min(first + p.period, p.rows);
    // The state that lane 0 carries from row to row.
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
                logs[row] = vec4<f32>(lost, gate.x - state, state, g);
            }
        }
        workgroupBarrier();
        if t < end {
            let row = logs[lane];
            gates[t * p.heads + head] = vec4<f32>(exp_accurate(row.x), exp_accurate(row.y), row.z, row.w);
        }
    }
    if lane == 0u {
        m[group.y * p.heads + head] = state;
    }
}
