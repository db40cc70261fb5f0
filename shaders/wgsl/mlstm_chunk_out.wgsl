// Chunkwise mLSTM, step 3 of 3 (docs/model.md, "Local layer (mLSTM)"): the output of every row from its own chunk and
// the state at the start of the chunk.
//   y_t = Σ_{s ≤ t} exp(g_t - g_s) i_s (q_t · k_s) (v_s, 1) + exp(g_t) q_tᵀ C,  all / sqrt(dk)
// The last column is q · n, as in mlstm_step. A workgroup of 64 lanes handles 16 rows of one chunk and head. It first
// computes their weights for the sources of the chunk in workgroup memory; then each lane computes columns of all 16
// rows.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,       // at most 128
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
@group(0) @binding(3) var<storage, read> states: array<f32>;          // [chunks, heads, dk, dv + 1]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [rows, heads, dv + 1]

const CHUNK: u32 = 64u; // rows of a chunk
const TILE: u32 = 16u;  // rows of a workgroup
var<workgroup> q_tile: array<vec4<f32>, 512>;  // [dk of 128, row / 4 of 4] four rows each, scaled
var<workgroup> weight: array<vec4<f32>, 256>;  // [source of 64, row / 4 of 4] four rows each

fn query(t: u32, i: u32, head: u32) -> f32 {
    if t >= p.rows {
        return 0.0;
    }
    return x[t * p.stride + p.q_offset + head * p.dk + i] * p.scale;
}

// The weight of source row s in row t, without q · k.
fn decay(t: u32, s: u32, head: u32, g: f32, i: f32) -> f32 {
    if t < s || t >= p.rows {
        return 0.0;
    }
    return exp(gates[t * p.heads + head].w - g) * i;
}

// The weight of the state at the start of the chunk in row t.
fn carried(t: u32, head: u32) -> f32 {
    if t >= p.rows {
        return 0.0;
    }
    return exp(gates[t * p.heads + head].w);
}

fn put(t: u32, column: u32, head: u32, value: f32) {
    if t < p.rows {
        y[(t * p.heads + head) * (p.dv + 1u) + column] = value;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row0 = group.x * TILE;
    let head = group.y;
    let chunk = row0 / CHUNK;
    let begin = chunk * CHUNK;
    let sources = min(row0 + TILE, p.rows) - begin; // causal: no sources past the tile

    for (var e = lane; e < p.dk * 4u; e += 64u) {
        let i = e / 4u;
        let t = row0 + e % 4u * 4u;
        q_tile[e] = vec4<f32>(
            query(t, i, head),
            query(t + 1u, i, head),
            query(t + 2u, i, head),
            query(t + 3u, i, head),
        );
    }
    workgroupBarrier();
    for (var e = lane; e < sources * 4u; e += 64u) {
        let s = begin + e / 4u;
        let quad = e % 4u;
        let t = row0 + quad * 4u;
        let k0 = s * p.stride + p.k_offset + head * p.dk;
        var product = vec4<f32>();
        for (var i = 0u; i < p.dk; i++) {
            product += x[k0 + i] * q_tile[i * 4u + quad];
        }
        let gate = gates[s * p.heads + head];
        weight[e] = product * vec4<f32>(
            decay(t, s, head, gate.w, gate.y),
            decay(t + 1u, s, head, gate.w, gate.y),
            decay(t + 2u, s, head, gate.w, gate.y),
            decay(t + 3u, s, head, gate.w, gate.y),
        );
    }
    workgroupBarrier();
    let keep0 = vec4<f32>(
        carried(row0 + 0u, head),
        carried(row0 + 1u, head),
        carried(row0 + 2u, head),
        carried(row0 + 3u, head),
    );
    let keep1 = vec4<f32>(
        carried(row0 + 4u, head),
        carried(row0 + 5u, head),
        carried(row0 + 6u, head),
        carried(row0 + 7u, head),
    );
    let keep2 = vec4<f32>(
        carried(row0 + 8u, head),
        carried(row0 + 9u, head),
        carried(row0 + 10u, head),
        carried(row0 + 11u, head),
    );
    let keep3 = vec4<f32>(
        carried(row0 + 12u, head),
        carried(row0 + 13u, head),
        carried(row0 + 14u, head),
        carried(row0 + 15u, head),
    );
    for (var column = lane; column <= p.dv; column += 64u) {
        var y0 = vec4<f32>(); // rows row0 + 0 .. 3
        var y1 = vec4<f32>(); // rows row0 + 4 .. 7
        var y2 = vec4<f32>(); // rows row0 + 8 .. 11
        var y3 = vec4<f32>(); // rows row0 + 12 .. 15
        let state0 = (chunk * p.heads + head) * p.dk * (p.dv + 1u) + column;
        for (var i = 0u; i < p.dk; i++) {
            let state = states[state0 + i * (p.dv + 1u)];
            y0 += state * q_tile[i * 4u + 0u];
            y1 += state * q_tile[i * 4u + 1u];
            y2 += state * q_tile[i * 4u + 2u];
            y3 += state * q_tile[i * 4u + 3u];
        }
        y0 *= keep0;
        y1 *= keep1;
        y2 *= keep2;
        y3 *= keep3;
        for (var s = 0u; s < sources; s++) {
            var v = 1.0;
            if column < p.dv {
                v = x[(begin + s) * p.stride + p.v_offset + head * p.dv + column];
            }
            y0 += v * weight[s * 4u + 0u];
            y1 += v * weight[s * 4u + 1u];
            y2 += v * weight[s * 4u + 2u];
            y3 += v * weight[s * 4u + 3u];
        }
        put(row0 + 0u, column, head, y0.x);
        put(row0 + 1u, column, head, y0.y);
        put(row0 + 2u, column, head, y0.z);
        put(row0 + 3u, column, head, y0.w);
        put(row0 + 4u, column, head, y1.x);
        put(row0 + 5u, column, head, y1.y);
        put(row0 + 6u, column, head, y1.z);
        put(row0 + 7u, column, head, y1.w);
        put(row0 + 8u, column, head, y2.x);
        put(row0 + 9u, column, head, y2.y);
        put(row0 + 10u, column, head, y2.z);
        put(row0 + 11u, column, head, y2.w);
        put(row0 + 12u, column, head, y3.x);
        put(row0 + 13u, column, head, y3.y);
        put(row0 + 14u, column, head, y3.z);
        put(row0 + 15u, column, head, y3.w);
    }
}
