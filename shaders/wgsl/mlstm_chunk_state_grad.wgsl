// Gradient of the chunkwise mLSTM, step 1 of 4 (docs/model.md, "Local layer (mLSTM)"): the contribution of the rows of
// each chunk to the gradient of the state at the start of the chunk.
//   added[c] = Σ_t exp(g_t) q_t dy_tᵀ / sqrt(dk)  over the rows t of chunk c
// All chunks run in parallel. One lane per four rows of one column of the state, as in mlstm_chunk_state.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,
    stride: u32,   // row stride of x
    q_offset: u32, // offset of head 0 in a row of x
    chunk: u32,    // rows of a chunk; the last chunk may be shorter
    scale: f32,    // dk ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at q_offset, stride
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> dy: array<f32>;              // [rows, heads, dv + 1]
@group(0) @binding(4) var<storage, read_write> dstates: array<f32>;   // [chunks, heads, dk, dv + 1]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let columns = p.dv + 1u;
    let column = id.x % columns;
    let row = id.x / columns * 4u;
    if row >= p.dk {
        return;
    }
    let head = id.y;
    let begin = id.z * p.chunk;
    let end = min(begin + p.chunk, p.rows);
    // Rows past dk repeat the last row and are not written
    let r1 = min(row + 1u, p.dk - 1u);
    let r2 = min(row + 2u, p.dk - 1u);
    let r3 = min(row + 3u, p.dk - 1u);
    var sum = vec4<f32>();
    for (var t = begin; t < end; t++) {
        let at = t * p.heads + head;
        let q0 = t * p.stride + p.q_offset + head * p.dk;
        let d = exp(gates[at].w) * p.scale * dy[at * columns + column];
        sum += d * vec4<f32>(x[q0 + row], x[q0 + r1], x[q0 + r2], x[q0 + r3]);
    }
    let at = ((id.z * p.heads + head) * p.dk + row) * columns + column;
    dstates[at] = sum.x;
    if row + 1u < p.dk { dstates[at + columns] = sum.y; }
    if row + 2u < p.dk { dstates[at + 2u * columns] = sum.z; }
    if row + 3u < p.dk { dstates[at + 3u * columns] = sum.w; }
}
