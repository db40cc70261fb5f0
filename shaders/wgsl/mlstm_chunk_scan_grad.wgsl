// Backwards through the chunkwise mLSTM, second (SPEC 4): carries the state's gradient from chunk to chunk, last one first.
//   dC = exp(g_end) dC' + added, dC' at a chunk's end, dC at its start
// What a chunk asks of the state at its start is replaced by the gradient of the state at its end, which behind a sequence is 0.
// One lane an element, chunk after chunk of a sequence.
struct Params {
    rows: u32,
    heads: u32,
    size: u32,   // elements of a head's state: dk (dv + 1)
    chunk: u32,  // rows of a chunk
    period: u32, // rows of a sequence, whole chunks where there are several; the last one may have fewer
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
    let behind = min(first + p.period, p.rows); // the sequence's last row
    var state = 0.0;
    for (var left = (behind - first + p.chunk - 1u) / p.chunk; left > 0u; left--) {
        let begin = first + (left - 1u) * p.chunk;
        let end = min(begin + p.chunk, behind);
        let at = (begin / p.chunk * p.heads + head) * p.size + id.x;
        let added = dstates[at];
        dstates[at] = state;
        state = exp(gates[(end - 1u) * p.heads + head].w) * state + added;
    }
}
