// Chunkwise mLSTM, step 2 of 3 (docs/model.md, "Local layer (mLSTM)"): carries the state from chunk to chunk. The
// contribution of each chunk is replaced by the state at its start; the state after the last chunk goes to c.
// One lane per element of the state, over the chunks of a sequence in order.
struct Params {
    rows: u32,
    heads: u32,
    size: u32,   // elements of a head's state: dk (dv + 1)
    chunk: u32,  // rows of a chunk
    period: u32, // rows of a sequence, whole chunks if there are several; the last may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(2) var<storage, read_write> c: array<f32>;         // [sequences, heads, size]
@group(0) @binding(3) var<storage, read_write> states: array<f32>;    // [chunks, heads, size]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.size {
        return;
    }
    let head = id.y;
    let limit = min((id.z + 1u) * p.period, p.rows); // the end of the sequence
    let own = (id.z * p.heads + head) * p.size + id.x;
    var state = c[own];
    for (var begin = id.z * p.period; begin < limit; begin += p.chunk) {
        let end = min(begin + p.chunk, limit);
        let at = (begin / p.chunk * p.heads + head) * p.size + id.x;
        let added = states[at];
        states[at] = state;
        state = exp(gates[(end - 1u) * p.heads + head].w) * state + added;
    }
    c[own] = state;
}
