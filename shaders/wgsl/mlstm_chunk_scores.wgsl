// Gradient of the chunkwise mLSTM, step 3 of 4 (docs/model.md, "Local layer (mLSTM)"): the scores between each row t of
// a chunk and each source row s of the same chunk.
//   a_ts = w_ts (q_t · k_s) / sqrt(dk),  b_ts = w_ts (dy_t · (v_s, 1)) / sqrt(dk)
//   w_ts = exp(g_t - g_s) i_s for s ≤ t, else 0
// a_ts is the weight of v_s in row t; b_ts times q_t is the gradient by k_s. One lane per four rows and four sources.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,
    stride: u32,   // row stride of x
    q_offset: u32, // offset of head 0 in a row of x
    k_offset: u32,
    v_offset: u32,
    scale: f32,    // dk ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> dy: array<f32>;              // [rows, heads, dv + 1]
@group(0) @binding(4) var<storage, read_write> a: array<vec4<f32>>;   // [rows, heads, 64], by source within the chunk
@group(0) @binding(5) var<storage, read_write> b: array<vec4<f32>>;   // [rows, heads, 64]

const CHUNK: u32 = 64u; // rows of a chunk
const QUADS: u32 = CHUNK / 4u;

// The outer product: column j is `column` times element j of `row`.
fn outer(column: vec4<f32>, row: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(column * row.x, column * row.y, column * row.z, column * row.w);
}

fn four(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}

fn gradient(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(dy[at.x], dy[at.y], dy[at.z], dy[at.w]);
}

// Four rows from t on. Rows past the end repeat the last one.
fn rows_from(t: u32) -> vec4<u32> {
    return min(vec4<u32>(t, t + 1u, t + 2u, t + 3u), vec4<u32>(p.rows - 1u));
}

fn put(t: u32, head: u32, quad: u32, s: u32, from_k: vec4<f32>, from_v: vec4<f32>, g: vec4<f32>, i: vec4<f32>) {
    if t >= p.rows {
        return;
    }
    let at = t * p.heads + head;
    let seen = vec4<u32>(s, s + 1u, s + 2u, s + 3u) <= vec4<u32>(t);
    let weight = select(vec4<f32>(), exp(gates[at].w - g) * i * p.scale, seen);
    a[at * QUADS + quad] = weight * from_k;
    b[at * QUADS + quad] = weight * from_v;
}

// The grid is 4 by heads by chunks.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.y;
    let begin = id.z * CHUNK;
    let quad = id.x % QUADS;
    let t = begin + id.x / QUADS * 4u;
    let s = begin + quad * 4u;
    if t >= min(begin + CHUNK, p.rows) {
        return;
    }
    let to = rows_from(t);
    let sources = rows_from(s);
    // A column per row, an element per source.
    var from_k = mat4x4<f32>();
    var from_v = mat4x4<f32>();
    if s <= t {
        let q0 = to * p.stride + p.q_offset + head * p.dk;
        let k0 = sources * p.stride + p.k_offset + head * p.dk;
        for (var i = 0u; i < p.dk; i++) {
            from_k += outer(four(k0 + i), four(q0 + i));
        }
        let d0 = (to * p.heads + head) * (p.dv + 1u);
        let v0 = sources * p.stride + p.v_offset + head * p.dv;
        from_v = outer(vec4<f32>(1.0), gradient(d0 + p.dv));
        for (var j = 0u; j < p.dv; j++) {
            from_v += outer(four(v0 + j), gradient(d0 + j));
        }
    }
    let gate0 = gates[sources.x * p.heads + head];
    let gate1 = gates[sources.y * p.heads + head];
    let gate2 = gates[sources.z * p.heads + head];
    let gate3 = gates[sources.w * p.heads + head];
    let g = vec4<f32>(gate0.w, gate1.w, gate2.w, gate3.w);
    let i = vec4<f32>(gate0.y, gate1.y, gate2.y, gate3.y);
    put(t, head, quad, s, from_k[0], from_v[0], g, i);
    put(t + 1u, head, quad, s, from_k[1], from_v[1], g, i);
    put(t + 2u, head, quad, s, from_k[2], from_v[2], g, i);
    put(t + 3u, head, quad, s, from_k[3], from_v[3], g, i);
}
