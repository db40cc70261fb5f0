// Gradient of the chunkwise mLSTM, step 4 of 4 (docs/model.md, "Local layer (mLSTM)"): the gradients of q, k and v,
// from the scores a and b of mlstm_chunk_scores within the chunk, the state C at the start of the chunk and the
// gradient dC of the state at its end.
//   dq_t = Σ_{s ≤ t} b_ts k_s + exp(g_t) C dy_t / sqrt(dk)
//   dk_s = Σ_{t ≥ s} b_ts q_t + exp(g_end - g_s) i_s dC (v_s, 1)
//   dv_s = Σ_{t ≥ s} a_ts dy_t + exp(g_end - g_s) i_s dCᵀ k_s,  both without their last column
// One lane per four rows of four columns of q, k or v.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,
    stride: u32,   // row stride of x and dx
    q_offset: u32, // offset of head 0 in a row of x and dx
    k_offset: u32,
    v_offset: u32,
    scale: f32,    // dk ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read> states: array<f32>;          // [chunks, heads, dk, dv + 1]
@group(0) @binding(4) var<storage, read> dstates: array<f32>;         // [chunks, heads, dk, dv + 1]
@group(0) @binding(5) var<storage, read> dy: array<f32>;              // [rows, heads, dv + 1]
@group(0) @binding(6) var<storage, read> a: array<vec4<f32>>;         // [rows, heads, 64], by source within the chunk
@group(0) @binding(7) var<storage, read> b: array<vec4<f32>>;         // [rows, heads, 64]
@group(0) @binding(8) var<storage, read_write> dx: array<f32>;        // [rows, ...] at the q, k, v offsets, stride

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

fn state_gradient(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(dstates[at.x], dstates[at.y], dstates[at.z], dstates[at.w]);
}

// Four consecutive indices from `first` on, below `count`. Indices past the end repeat the last one and are not
// written.
fn four_of(first: u32, count: u32) -> vec4<u32> {
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u));
}

// The weights of four source rows in the state at the end of the chunk.
fn kept(sources: vec4<u32>, head: u32, end: u32) -> vec4<f32> {
    let gate0 = gates[sources.x * p.heads + head];
    let gate1 = gates[sources.y * p.heads + head];
    let gate2 = gates[sources.z * p.heads + head];
    let gate3 = gates[sources.w * p.heads + head];
    let g_end = gates[(end - 1u) * p.heads + head].w;
    return exp(g_end - vec4<f32>(gate0.w, gate1.w, gate2.w, gate3.w)) * vec4<f32>(gate0.y, gate1.y, gate2.y, gate3.y);
}

// Writes four columns of row t. `at` is the offset of the row's head in dx.
fn put(t: u32, at: u32, column: u32, width: u32, value: vec4<f32>) {
    if t >= p.rows {
        return;
    }
    dx[at + column] = value.x;
    if column + 1u < width { dx[at + column + 1u] = value.y; }
    if column + 2u < width { dx[at + column + 2u] = value.z; }
    if column + 3u < width { dx[at + column + 3u] = value.w; }
}

// Writes rows t .. t + 3: column j of `sums` plus `weight[j]` times column j of `far` goes to row t + j.
fn put_all(t: u32, offset: u32, column: u32, width: u32, sums: mat4x4<f32>, far: mat4x4<f32>, weight: vec4<f32>) {
    let at = t * p.stride + offset;
    put(t, at, column, width, sums[0] + weight.x * far[0]);
    put(t + 1u, at + p.stride, column, width, sums[1] + weight.y * far[1]);
    put(t + 2u, at + 2u * p.stride, column, width, sums[2] + weight.z * far[2]);
    put(t + 3u, at + 3u * p.stride, column, width, sums[3] + weight.w * far[3]);
}

fn query_gradient(t: u32, column: u32, chunk: u32, head: u32) {
    let begin = chunk * CHUNK;
    let rows = four_of(t, p.rows);
    let columns = four_of(column, p.dk);
    let at = rows * p.heads + head;
    let k0 = columns + p.k_offset + head * p.dk;
    var sums = mat4x4<f32>();
    for (var quad = 0u; quad <= (t - begin) / 4u; quad++) {
        let s = four_of(begin + quad * 4u, p.rows) * p.stride;
        let keys = mat4x4<f32>(four(k0 + s.x), four(k0 + s.y), four(k0 + s.z), four(k0 + s.w));
        sums += keys * mat4x4<f32>(
            b[at.x * QUADS + quad],
            b[at.y * QUADS + quad],
            b[at.z * QUADS + quad],
            b[at.w * QUADS + quad],
        );
    }
    let d0 = at * (p.dv + 1u);
    let state0 = ((chunk * p.heads + head) * p.dk + columns) * (p.dv + 1u);
    var far = mat4x4<f32>();
    for (var j = 0u; j <= p.dv; j++) {
        let i = state0 + j;
        far += outer(vec4<f32>(states[i.x], states[i.y], states[i.z], states[i.w]), gradient(d0 + j));
    }
    let carried = exp(vec4<f32>(gates[at.x].w, gates[at.y].w, gates[at.z].w, gates[at.w].w)) * p.scale;
    put_all(t, p.q_offset + head * p.dk, column, p.dk, sums, far, carried);
}

fn key_gradient(s: u32, column: u32, chunk: u32, head: u32) {
    let begin = chunk * CHUNK;
    let end = min(begin + CHUNK, p.rows);
    let sources = four_of(s, p.rows);
    let columns = four_of(column, p.dk);
    let q0 = columns + p.q_offset + head * p.dk;
    var sums = mat4x4<f32>();
    for (var t = s; t < end; t++) {
        sums += outer(four(q0 + t * p.stride), b[(t * p.heads + head) * QUADS + (s - begin) / 4u]);
    }
    let v0 = sources * p.stride + p.v_offset + head * p.dv;
    let state0 = ((chunk * p.heads + head) * p.dk + columns) * (p.dv + 1u);
    var far = outer(state_gradient(state0 + p.dv), vec4<f32>(1.0));
    for (var j = 0u; j < p.dv; j++) {
        far += outer(state_gradient(state0 + j), four(v0 + j));
    }
    put_all(s, p.k_offset + head * p.dk, column, p.dk, sums, far, kept(sources, head, end));
}

fn value_gradient(s: u32, column: u32, chunk: u32, head: u32) {
    let begin = chunk * CHUNK;
    let end = min(begin + CHUNK, p.rows);
    let sources = four_of(s, p.rows);
    let columns = four_of(column, p.dv);
    var sums = mat4x4<f32>();
    for (var t = s; t < end; t++) {
        let at = t * p.heads + head;
        sums += outer(gradient(columns + at * (p.dv + 1u)), a[at * QUADS + (s - begin) / 4u]);
    }
    let k0 = sources * p.stride + p.k_offset + head * p.dk;
    let state0 = columns + (chunk * p.heads + head) * p.dk * (p.dv + 1u);
    var far = mat4x4<f32>();
    for (var i = 0u; i < p.dk; i++) {
        far += outer(state_gradient(state0 + i * (p.dv + 1u)), four(k0 + i));
    }
    put_all(s, p.v_offset + head * p.dv, column, p.dv, sums, far, kept(sources, head, end));
}

// The grid is (columns of q, k and v / 4 times rows / 4) by heads by chunks.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.y;
    let chunk = id.z;
    let keys = (p.dk + 3u) / 4u;
    let values = (p.dv + 3u) / 4u;
    // Lanes of q come first, then those of k, then those of v. Within each, the columns of four rows are adjacent.
    let k_lane = keys * QUADS;
    let v_lane = 2u * k_lane;
    if id.x < k_lane {
        let t = chunk * CHUNK + id.x / keys * 4u;
        if t < p.rows {
            query_gradient(t, id.x % keys * 4u, chunk, head);
        }
    } else if id.x < v_lane {
        let s = chunk * CHUNK + (id.x - k_lane) / keys * 4u;
        if s < p.rows {
            key_gradient(s, (id.x - k_lane) % keys * 4u, chunk, head);
        }
    } else if id.x < v_lane + values * QUADS {
        let s = chunk * CHUNK + (id.x - v_lane) / values * 4u;
        if s < p.rows {
            value_gradient(s, (id.x - v_lane) % values * 4u, chunk, head);
        }
    }
}
