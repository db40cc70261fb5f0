// Chunkwise mLSTM, step 1 of 3 (docs/model.md, "Local layer (mLSTM)"): the contribution of each chunk to the state at
// the end of the chunk.
//   added[c] = Σ_s exp(g_end - g_s) i_s k_s (v_s, 1)ᵀ  over the rows s of chunk c
// All chunks run in parallel. One lane per four rows of one column of the state.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,
    stride: u32,   // row stride of x
    k_offset: u32, // offset of head 0 in a row of x
    v_offset: u32,
    chunk: u32,    // rows of a chunk; the last chunk may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at k_offset, v_offset, stride
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read_write> states: array<f32>;    // [chunks, heads, dk, dv + 1]

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
    let g_end = gates[(end - 1u) * p.heads + head].w;
    // Rows past dk repeat the last row and are not written
    let r1 = min(row + 1u, p.dk - 1u);
    let r2 = min(row + 2u, p.dk - 1u);
    let r3 = min(row + 3u, p.dk - 1u);
    var sum = vec4<f32>();
    for (var s = begin; s < end; s++) {
        let gate = gates[s * p.heads + head];
        let k0 = s * p.stride + p.k_offset + head * p.dk;
        var v = exp(g_end - gate.w) * gate.y;
        if column < p.dv {
            v *= x[s * p.stride + p.v_offset + head * p.dv + column];
        }
        sum += v * vec4<f32>(x[k0 + row], x[k0 + r1], x[k0 + r2], x[k0 + r3]);
    }
    let at = ((id.z * p.heads + head) * p.dk + row) * columns + column;
    states[at] = sum.x;
    if row + 1u < p.dk { states[at + columns] = sum.y; }
    if row + 2u < p.dk { states[at + 2u * columns] = sum.z; }
    if row + 3u < p.dk { states[at + 3u * columns] = sum.w; }
}
