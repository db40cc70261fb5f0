// Chunkwise mLSTM, second of three (SPEC 4): carries the state from chunk to chunk. What a chunk adds is replaced by the state
// at its start; the state behind the last chunk goes to c. One lane an element, chunk after chunk of a sequence.
struct Params {
    rows: u32,
    heads: u32,
    size: u32,   // elements of a head's state: dk (dv + 1)
    chunk: u32,  // rows of a chunk
    period: u32, // rows of a sequence, whole chunks where there are several; the last one may have fewer
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
    let behind = min((id.z + 1u) * p.period, p.rows); // the sequence's last row
    let own = (id.z * p.heads + head) * p.size + id.x;
    var state = c[own];
    for (var begin = id.z * p.period; begin < behind; begin += p.chunk) {
        let end = min(begin + p.chunk, behind);
        let at = (begin / p.chunk * p.heads + head) * p.size + id.x;
        let added = states[at];
        states[at] = state;
        state = exp(gates[(end - 1u) * p.heads + head].w) * state + added;
    }
    c[own] = state;
}
