// Gradient of causal softmax attention within sequences, by the queries (the backward pass of arXiv 2205.14135). The
// attention weights p_ts = exp(scale q_t . k_s - max_t) / sum_t are recomputed from the maxima and sums that
// attention.wgsl leaves. With ds_ts = p_ts (do_t . v_s - delta_t):
//   delta_t = do_t . o_t, dq_t = scale sum_s ds_ts k_s
// A lane handles 4 queries of one head and visits the keys eight at a time: two products of 4 x 4 matrices per 12
// loads. No barriers are needed. dq accumulates in memory, since it does not fit in a lane's registers.
// Mesa's CPU driver silently ends a lane's loops after 65535 iterations in total; for that driver the caller keeps
// `attention_grad_iterations` below the limit.
struct Params {
    count: u32,        // rows of a sequence
    heads: u32,
    heads_per_kv: u32, // query heads that share a key/value head
    dim4: u32,         // head width / 4
    window: u32,       // a query sees this many rows up to its own; 0: all
    scale: f32,        // head width ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;             // [rows, heads, dim]
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;            // [rows, 2, kv_heads, dim]
@group(0) @binding(3) var<storage, read> running: array<vec2<f32>>;       // [rows, heads] maximum, sum
@group(0) @binding(4) var<storage, read> o: array<vec4<f32>>;             // [rows, heads, dim]
@group(0) @binding(5) var<storage, read> d_o: array<vec4<f32>>;           // [rows, heads, dim]
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;         // [rows, heads]
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;      // [rows, heads, dim]

// Four columns of 4 rows; each row is a column of the matrix.
fn q_at(rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(q[rows.x], q[rows.y], q[rows.z], q[rows.w]);
}

fn kv_at(rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(kv[rows.x], kv[rows.y], kv[rows.z], kv[rows.w]);
}

fn d_o_at(rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(d_o[rows.x], d_o[rows.y], d_o[rows.z], d_o[rows.w]);
}

fn dq_at(rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(dq[rows.x], dq[rows.y], dq[rows.z], dq[rows.w]);
}

// The gradients of a query's scores for 4 keys; 0 for keys that the query does not see.
fn score_grad(
    score: vec4<f32>,
    product: vec4<f32>,
    before: vec2<f32>,
    delta: f32,
    query: u32,
    keys: vec4<u32>,
) -> vec4<f32> {
    var seen = keys <= vec4<u32>(query);
    if p.window != 0u {
        seen = seen & (keys + p.window > vec4<u32>(query));
    }
    let weight = exp(score * p.scale - before.x) / before.y;
    return p.scale * select(vec4<f32>(), weight * (product - delta), seen);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = (p.count + 3u) / 4u;
    if id.x >= blocks * p.heads {
        return;
    }
    let head = id.x / blocks;
    let query = id.x % blocks * 4u;
    // Rows past the last one repeat it and are not written.
    let present = min(4u, p.count - query);
    let row0 = id.z * p.count;
    let four = vec4<u32>(0u, 1u, 2u, 3u);
    let items = (row0 + query + min(four, vec4<u32>(present - 1u))) * p.heads + head;
    let at = items * p.dim4;
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    let kv_head = head / p.heads_per_kv * p.dim4;

    var deltas = vec4<f32>();
    for (var d = 0u; d < p.dim4; d++) {
        deltas += vec4<f32>(
            dot(o[at.x + d], d_o[at.x + d]),
            dot(o[at.y + d], d_o[at.y + d]),
            dot(o[at.z + d], d_o[at.z + d]),
            dot(o[at.w + d], d_o[at.w + d]),
        );
    }
    delta[items.x] = deltas.x;
    if present > 1u { delta[items.y] = deltas.y; }
    if present > 2u { delta[items.z] = deltas.z; }
    if present > 3u { delta[items.w] = deltas.w; }
    let before0 = running[items.x];
    let before1 = running[items.y];
    let before2 = running[items.z];
    let before3 = running[items.w];

    // The first key that any of the queries sees, rounded down to a multiple of 8.
    var begin = 0u;
    if p.window != 0u && query + 1u > p.window {
        begin = (query + 1u - p.window) / 8u * 8u;
    }
    for (var key = begin; key < query + present; key += 8u) {
        let low_keys = key + four;
        let high_keys = low_keys + 4u;
        let low = (row0 + min(low_keys, vec4<u32>(p.count - 1u))) * 2u * kv_dim4 + kv_head;
        let high = (row0 + min(high_keys, vec4<u32>(p.count - 1u))) * 2u * kv_dim4 + kv_head;
        // A column per query, a row per key.
        var low_scores = mat4x4<f32>();
        var high_scores = mat4x4<f32>();
        var low_products = mat4x4<f32>();
        var high_products = mat4x4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            let queries = q_at(at + d);
            low_scores += transpose(kv_at(low + d)) * queries;
            high_scores += transpose(kv_at(high + d)) * queries;
            let outputs = d_o_at(at + d);
            low_products += transpose(kv_at(low + kv_dim4 + d)) * outputs;
            high_products += transpose(kv_at(high + kv_dim4 + d)) * outputs;
        }
        let low_ds = mat4x4<f32>(
            score_grad(low_scores[0], low_products[0], before0, deltas.x, query, low_keys),
            score_grad(low_scores[1], low_products[1], before1, deltas.y, query + 1u, low_keys),
            score_grad(low_scores[2], low_products[2], before2, deltas.z, query + 2u, low_keys),
            score_grad(low_scores[3], low_products[3], before3, deltas.w, query + 3u, low_keys),
        );
        let high_ds = mat4x4<f32>(
            score_grad(high_scores[0], high_products[0], before0, deltas.x, query, high_keys),
            score_grad(high_scores[1], high_products[1], before1, deltas.y, query + 1u, high_keys),
            score_grad(high_scores[2], high_products[2], before2, deltas.z, query + 2u, high_keys),
            score_grad(high_scores[3], high_products[3], before3, deltas.w, query + 3u, high_keys),
        );
        for (var d = 0u; d < p.dim4; d++) {
            var sum = kv_at(low + d) * low_ds + kv_at(high + d) * high_ds;
            if key > begin {
                sum += dq_at(at + d);
            }
            dq[at.x + d] = sum[0];
            if present > 1u { dq[at.y + d] = sum[1]; }
            if present > 2u { dq[at.z + d] = sum[2]; }
            if present > 3u { dq[at.w + d] = sum[3]; }
        }
    }
}
