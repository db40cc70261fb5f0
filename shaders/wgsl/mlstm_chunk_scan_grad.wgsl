// Gradient of the chunkwise mLSTM, step 2 of 4 (docs/model.md, "Local layer (mLSTM)"): carries the gradient of the
// state from chunk to chunk, last chunk first.
//   dC = exp(g_end) dC' + added, dC' at the end of a chunk, dC at its start
// The gradient contribution of each chunk is replaced by the gradient of the state at its end; that is 0 at the end of
// a sequence. One lane per element of the state, over the chunks of a sequence in reverse.
struct Params {
    rows: u32,
    heads: u32,
    size: u32,   // elements of a head's state: dk (dv + 1)
    chunk: u32,  // rows of a chunk
    period: u32, // rows of a sequence, whole chunks if there are several; the last may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(2) var<storage, read_write> dstates: array<f32>;   // [chunks, heads, size]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.size {
        return;
    }
    let head = id.y;
    let first = id.z * p.period;
    let limit = min(first + p.period, p.rows); // the end of the sequence
    var state = 0.0;
    for (var left = (limit - first + p.chunk - 1u) / p.chunk; left > 0u; left--) {
        let begin = first + (left - 1u) * p.chunk;
        let end = min(begin + p.chunk, limit);
        let at = (begin / p.chunk * p.heads + head) * p.size + id.x;
        let added = dstates[at];
        dstates[at] = state;
        state = exp(gates[(end - 1u) * p.heads + head].w) * state + added;
    }
}
