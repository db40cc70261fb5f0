// Chunkwise mLSTM, step 3 of 3, as `../mlstm_chunk_out.wgsl`, by one subgroup of 8 lanes that computes 16 rows of 32
// columns in registers: for adapters on CPUs, where loads, made lane by lane, cost more than arithmetic. Per-row values
// are distributed over the lanes, two rows each, and broadcast. A lane computes four columns, 8 apart. The last column,
// q · n, is one more sum in each lane for its own rows.
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
const PITCH: u32 = 65u; // row stride of weight
var<workgroup> weight: array<f32, 1040>; // [row of 16, source of 64]

// The weight of source row s with gates `gate` in row t with running sum `g`, without q · k.
fn decay(t: u32, g: f32, s: u32, gate: vec4<f32>) -> f32 {
    if t < s {
        return 0.0;
    }
    return exp(g - gate.w) * gate.y;
}

// Writes one row of outputs: columns n, n + 8, n + 16 and n + 24.
fn put(t: u32, head: u32, n: u32, value: vec4<f32>) {
    if t >= p.rows {
        return;
    }
    let at = (t * p.heads + head) * (p.dv + 1u) + n;
    for (var c = 0u; c < 4u; c++) {
        if n + 8u * c < p.dv {
            y[at + 8u * c] = value[c];
        }
    }
}

fn put_last(t: u32, head: u32, value: f32) {
    if t < p.rows {
        y[(t * p.heads + head) * (p.dv + 1u) + p.dv] = value;
    }
}

// The grid is tiles of rows by heads by tiles of columns.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let row0 = group.x * TILE;
    let head = group.y;
    let chunk = row0 / CHUNK;
    let begin = chunk * CHUNK;
    let sources = min(row0 + TILE, p.rows) - begin; // causal: no sources past the tile
    // This lane's rows. Rows past the last one repeat it and are not written.
    let t0 = min(row0 + lane, p.rows - 1u);
    let t1 = min(row0 + 8u + lane, p.rows - 1u);
    let q0 = t0 * p.stride + p.q_offset + head * p.dk;
    let q1 = t1 * p.stride + p.q_offset + head * p.dk;
    let g0 = gates[t0 * p.heads + head].w;
    let g1 = gates[t1 * p.heads + head].w;

    // The weights of all rows, eight sources at a time.
    for (var first = 0u; first < sources; first += 8u) {
        let s = begin + min(first + lane, sources - 1u);
        let k0 = s * p.stride + p.k_offset + head * p.dk;
        var d0 = vec4<f32>(); // rows 0 .. 3
        var d1 = vec4<f32>(); // rows 4 .. 7
        var d2 = vec4<f32>(); // rows 8 .. 11
        var d3 = vec4<f32>(); // rows 12 .. 15
        for (var i = 0u; i < p.dk; i++) {
            let k = x[k0 + i];
            let a = x[q0 + i];
            let b = x[q1 + i];
            d0 += k * vec4<f32>(
                subgroupBroadcast(a, 0u),
                subgroupBroadcast(a, 1u),
                subgroupBroadcast(a, 2u),
                subgroupBroadcast(a, 3u),
            );
            d1 += k * vec4<f32>(
                subgroupBroadcast(a, 4u),
                subgroupBroadcast(a, 5u),
                subgroupBroadcast(a, 6u),
                subgroupBroadcast(a, 7u),
            );
            d2 += k * vec4<f32>(
                subgroupBroadcast(b, 0u),
                subgroupBroadcast(b, 1u),
                subgroupBroadcast(b, 2u),
                subgroupBroadcast(b, 3u),
            );
            d3 += k * vec4<f32>(
                subgroupBroadcast(b, 4u),
                subgroupBroadcast(b, 5u),
                subgroupBroadcast(b, 6u),
                subgroupBroadcast(b, 7u),
            );
        }
        let gate = gates[s * p.heads + head];
        let to = first + lane;
        weight[to] = p.scale * d0.x * decay(row0 + 0u, subgroupBroadcast(g0, 0u), s, gate);
        weight[1u * PITCH + to] = p.scale * d0.y * decay(row0 + 1u, subgroupBroadcast(g0, 1u), s, gate);
        weight[2u * PITCH + to] = p.scale * d0.z * decay(row0 + 2u, subgroupBroadcast(g0, 2u), s, gate);
        weight[3u * PITCH + to] = p.scale * d0.w * decay(row0 + 3u, subgroupBroadcast(g0, 3u), s, gate);
        weight[4u * PITCH + to] = p.scale * d1.x * decay(row0 + 4u, subgroupBroadcast(g0, 4u), s, gate);
        weight[5u * PITCH + to] = p.scale * d1.y * decay(row0 + 5u, subgroupBroadcast(g0, 5u), s, gate);
        weight[6u * PITCH + to] = p.scale * d1.z * decay(row0 + 6u, subgroupBroadcast(g0, 6u), s, gate);
        weight[7u * PITCH + to] = p.scale * d1.w * decay(row0 + 7u, subgroupBroadcast(g0, 7u), s, gate);
        weight[8u * PITCH + to] = p.scale * d2.x * decay(row0 + 8u, subgroupBroadcast(g1, 0u), s, gate);
        weight[9u * PITCH + to] = p.scale * d2.y * decay(row0 + 9u, subgroupBroadcast(g1, 1u), s, gate);
        weight[10u * PITCH + to] = p.scale * d2.z * decay(row0 + 10u, subgroupBroadcast(g1, 2u), s, gate);
        weight[11u * PITCH + to] = p.scale * d2.w * decay(row0 + 11u, subgroupBroadcast(g1, 3u), s, gate);
        weight[12u * PITCH + to] = p.scale * d3.x * decay(row0 + 12u, subgroupBroadcast(g1, 4u), s, gate);
        weight[13u * PITCH + to] = p.scale * d3.y * decay(row0 + 13u, subgroupBroadcast(g1, 5u), s, gate);
        weight[14u * PITCH + to] = p.scale * d3.z * decay(row0 + 14u, subgroupBroadcast(g1, 6u), s, gate);
        weight[15u * PITCH + to] = p.scale * d3.w * decay(row0 + 15u, subgroupBroadcast(g1, 7u), s, gate);
    }
    workgroupBarrier();

    let column = group.z * 32u + lane;
    let c0 = min(column, p.dv - 1u);
    let c1 = min(column + 8u, p.dv - 1u);
    let c2 = min(column + 16u, p.dv - 1u);
    let c3 = min(column + 24u, p.dv - 1u);
    let keep0 = exp(g0) * p.scale;
    let keep1 = exp(g1) * p.scale;
    // The last column of this lane's rows.
    var last0 = 0.0;
    var last1 = 0.0;
    // One variable per row: columns column + 0, 8, 16, 24.
    var y0 = vec4<f32>();
    var y1 = vec4<f32>();
    var y2 = vec4<f32>();
    var y3 = vec4<f32>();
    var y4 = vec4<f32>();
    var y5 = vec4<f32>();
    var y6 = vec4<f32>();
    var y7 = vec4<f32>();
    var y8 = vec4<f32>();
    var y9 = vec4<f32>();
    var y10 = vec4<f32>();
    var y11 = vec4<f32>();
    var y12 = vec4<f32>();
    var y13 = vec4<f32>();
    var y14 = vec4<f32>();
    var y15 = vec4<f32>();
    for (var i = 0u; i < p.dk; i++) {
        let at = ((chunk * p.heads + head) * p.dk + i) * (p.dv + 1u);
        let v = vec4<f32>(states[at + c0], states[at + c1], states[at + c2], states[at + c3]);
        let n = states[at + p.dv];
        let a = keep0 * x[q0 + i];
        let b = keep1 * x[q1 + i];
        last0 += a * n;
        last1 += b * n;
        y0 = fma(vec4<f32>(subgroupBroadcast(a, 0u)), v, y0);
        y1 = fma(vec4<f32>(subgroupBroadcast(a, 1u)), v, y1);
        y2 = fma(vec4<f32>(subgroupBroadcast(a, 2u)), v, y2);
        y3 = fma(vec4<f32>(subgroupBroadcast(a, 3u)), v, y3);
        y4 = fma(vec4<f32>(subgroupBroadcast(a, 4u)), v, y4);
        y5 = fma(vec4<f32>(subgroupBroadcast(a, 5u)), v, y5);
        y6 = fma(vec4<f32>(subgroupBroadcast(a, 6u)), v, y6);
        y7 = fma(vec4<f32>(subgroupBroadcast(a, 7u)), v, y7);
        y8 = fma(vec4<f32>(subgroupBroadcast(b, 0u)), v, y8);
        y9 = fma(vec4<f32>(subgroupBroadcast(b, 1u)), v, y9);
        y10 = fma(vec4<f32>(subgroupBroadcast(b, 2u)), v, y10);
        y11 = fma(vec4<f32>(subgroupBroadcast(b, 3u)), v, y11);
        y12 = fma(vec4<f32>(subgroupBroadcast(b, 4u)), v, y12);
        y13 = fma(vec4<f32>(subgroupBroadcast(b, 5u)), v, y13);
        y14 = fma(vec4<f32>(subgroupBroadcast(b, 6u)), v, y14);
        y15 = fma(vec4<f32>(subgroupBroadcast(b, 7u)), v, y15);
    }
    for (var s = 0u; s < sources; s++) {
        let at = (begin + s) * p.stride + p.v_offset + head * p.dv;
        let v = vec4<f32>(x[at + c0], x[at + c1], x[at + c2], x[at + c3]);
        let a = weight[lane * PITCH + s];
        let b = weight[(8u + lane) * PITCH + s];
        last0 += a;
        last1 += b;
        y0 = fma(vec4<f32>(subgroupBroadcast(a, 0u)), v, y0);
        y1 = fma(vec4<f32>(subgroupBroadcast(a, 1u)), v, y1);
        y2 = fma(vec4<f32>(subgroupBroadcast(a, 2u)), v, y2);
        y3 = fma(vec4<f32>(subgroupBroadcast(a, 3u)), v, y3);
        y4 = fma(vec4<f32>(subgroupBroadcast(a, 4u)), v, y4);
        y5 = fma(vec4<f32>(subgroupBroadcast(a, 5u)), v, y5);
        y6 = fma(vec4<f32>(subgroupBroadcast(a, 6u)), v, y6);
        y7 = fma(vec4<f32>(subgroupBroadcast(a, 7u)), v, y7);
        y8 = fma(vec4<f32>(subgroupBroadcast(b, 0u)), v, y8);
        y9 = fma(vec4<f32>(subgroupBroadcast(b, 1u)), v, y9);
        y10 = fma(vec4<f32>(subgroupBroadcast(b, 2u)), v, y10);
        y11 = fma(vec4<f32>(subgroupBroadcast(b, 3u)), v, y11);
        y12 = fma(vec4<f32>(subgroupBroadcast(b, 4u)), v, y12);
        y13 = fma(vec4<f32>(subgroupBroadcast(b, 5u)), v, y13);
        y14 = fma(vec4<f32>(subgroupBroadcast(b, 6u)), v, y14);
        y15 = fma(vec4<f32>(subgroupBroadcast(b, 7u)), v, y15);
    }
    put(row0, head, column, y0);
    put(row0 + 1u, head, column, y1);
    put(row0 + 2u, head, column, y2);
    put(row0 + 3u, head, column, y3);
    put(row0 + 4u, head, column, y4);
    put(row0 + 5u, head, column, y5);
    put(row0 + 6u, head, column, y6);
    put(row0 + 7u, head, column, y7);
    put(row0 + 8u, head, column, y8);
    put(row0 + 9u, head, column, y9);
    put(row0 + 10u, head, column, y10);
    put(row0 + 11u, head, column, y11);
    put(row0 + 12u, head, column, y12);
    put(row0 + 13u, head, column, y13);
    put(row0 + 14u, head, column, y14);
    put(row0 + 15u, head, column, y15);
    if group.z == 0u {
        put_last(row0 + lane, head, last0);
        put_last(row0 + 8u + lane, head, last1);
    }
}
