// Gradient of causal softmax attention within sequences, by keys and values; attention_grad_q.wgsl runs first:
//   dk_s = scale sum_t ds_ts q_t, dv_s = sum_t p_ts do_t, over the queries t that see key s, in all heads that share it
// A lane handles 4 keys of one head and visits the queries eight at a time, so each sum has a fixed order and a single
// writer. No barriers are needed. dkv accumulates in memory, since it does not fit in a lane's registers.
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
@group(0) @binding(4) var<storage, read> d_o: array<vec4<f32>>;           // [rows, heads, dim]
@group(0) @binding(5) var<storage, read> delta: array<f32>;               // [rows, heads]
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>;     // [rows, 2, kv_heads, dim]

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

fn dkv_at(rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(dkv[rows.x], dkv[rows.y], dkv[rows.z], dkv[rows.w]);
}

// The state of 4 queries.
struct Queries {
    positions: vec4<u32>,
    at: vec4<u32>,       // offsets of their rows in q and d_o
    tops: vec4<f32>,
    sums: vec4<f32>,
    deltas: vec4<f32>,
}

// Four queries from `first` on. Queries past the last one repeat it and get a weight of 0.
fn queries_from(first: u32, row0: u32, head: u32) -> Queries {
    let positions = first + vec4<u32>(0u, 1u, 2u, 3u);
    let items = (row0 + min(positions, vec4<u32>(p.count - 1u))) * p.heads + head;
    let before0 = running[items.x];
    let before1 = running[items.y];
    let before2 = running[items.z];
    let before3 = running[items.w];
    return Queries(
        positions,
        items * p.dim4,
        vec4<f32>(before0.x, before1.x, before2.x, before3.x),
        vec4<f32>(before0.y, before1.y, before2.y, before3.y),
        vec4<f32>(delta[items.x], delta[items.y], delta[items.z], delta[items.w]),
    );
}

// The attention weights of 4 queries for one key.
fn weights(scores: vec4<f32>, queries: Queries, key: u32) -> vec4<f32> {
    var seen = (queries.positions >= vec4<u32>(key)) & (queries.positions < vec4<u32>(p.count));
    if p.window != 0u {
        seen = seen & (queries.positions < vec4<u32>(key + p.window));
    }
    return select(vec4<f32>(), exp(scores * p.scale - queries.tops) / queries.sums, seen);
}

// The attention weights of 4 queries for 4 keys, from `key` on.
fn weights_of(scores: mat4x4<f32>, queries: Queries, key: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        weights(scores[0], queries, key),
        weights(scores[1], queries, key + 1u),
        weights(scores[2], queries, key + 2u),
        weights(scores[3], queries, key + 3u),
    );
}

// The gradients of the scores of 4 queries for 4 keys.
fn score_grads(w: mat4x4<f32>, products: mat4x4<f32>, queries: Queries) -> mat4x4<f32> {
    return p.scale * mat4x4<f32>(
        w[0] * (products[0] - queries.deltas),
        w[1] * (products[1] - queries.deltas),
        w[2] * (products[2] - queries.deltas),
        w[3] * (products[3] - queries.deltas),
    );
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = (p.count + 3u) / 4u;
    let kv_heads = p.heads / p.heads_per_kv;
    if id.x >= blocks * kv_heads {
        return;
    }
    let kv_head = id.x / blocks;
    let key = id.x % blocks * 4u;
    // Rows past the last one repeat it and are not written.
    let present = min(4u, p.count - key);
    let row0 = id.z * p.count;
    let kv_dim4 = kv_heads * p.dim4;
    let there = row0 + key + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(present - 1u));
    let rows = there * 2u * kv_dim4 + kv_head * p.dim4;
    let v_rows = rows + kv_dim4;

    // One past the last query that sees any of the keys.
    var end = p.count;
    if p.window != 0u {
        end = min(end, key + 3u + p.window);
    }
    let first_head = kv_head * p.heads_per_kv;
    for (var head = first_head; head < first_head + p.heads_per_kv; head++) {
        for (var query = key; query < end; query += 8u) {
            let low = queries_from(query, row0, head);
            let high = queries_from(query + 4u, row0, head);
            // A column per key, a row per query.
            var low_scores = mat4x4<f32>();
            var high_scores = mat4x4<f32>();
            var low_products = mat4x4<f32>();
            var high_products = mat4x4<f32>();
            for (var d = 0u; d < p.dim4; d++) {
                let keys = kv_at(rows + d);
                low_scores += transpose(q_at(low.at + d)) * keys;
                high_scores += transpose(q_at(high.at + d)) * keys;
                let values = kv_at(v_rows + d);
                low_products += transpose(d_o_at(low.at + d)) * values;
                high_products += transpose(d_o_at(high.at + d)) * values;
            }
            let low_weights = weights_of(low_scores, low, key);
            let high_weights = weights_of(high_scores, high, key);
            let low_ds = score_grads(low_weights, low_products, low);
            let high_ds = score_grads(high_weights, high_products, high);
            let fresh = head == first_head && query == key;
            for (var d = 0u; d < p.dim4; d++) {
                var dk = q_at(low.at + d) * low_ds + q_at(high.at + d) * high_ds;
                var dv = d_o_at(low.at + d) * low_weights + d_o_at(high.at + d) * high_weights;
                if !fresh {
                    dk += dkv_at(rows + d);
                    dv += dkv_at(v_rows + d);
                }
                dkv[rows.x + d] = dk[0];
                dkv[v_rows.x + d] = dv[0];
                if present > 1u {
                    dkv[rows.y + d] = dk[1];
                    dkv[v_rows.y + d] = dv[1];
                }
                if present > 2u {
                    dkv[rows.z + d] = dk[2];
                    dkv[v_rows.z + d] = dv[2];
                }
                if present > 3u {
                    dkv[rows.w + d] = dk[3];
                    dkv[v_rows.w + d] = dv[3];
                }
            }
        }
    }
}
