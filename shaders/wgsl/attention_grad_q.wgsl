// Back through causal softmax attention within sequences, as far as the queries (the backward pass of arXiv 2205.14135): the weights
// p_ts = exp(scale q_t . k_s - max_t) / sum_t are made again from what attention.wgsl left, and with ds_ts = p_ts (do_t . v_s - delta_t),
//   delta_t = do_t . o_t, dq_t = scale sum_s ds_ts k_s
// A lane takes 4 queries of a head and goes through the keys four by four: a product of two 4 x 4 matrices for 8 loads. It waits for
// nobody; dq grows in memory, since a lane has no registers for it.
// Mesa's driver for CPUs ends a lane's loops, without a word, once they come to 65535 turns: there the caller keeps
// `attention_grad_turns` below that.
struct Params {
    count: u32,        // rows of a sequence
    heads: u32,
    heads_per_kv: u32, // query heads that share a key/value head
    dim4: u32,         // head width / 4
    window: u32,       // a query sees this many rows up to its own; 0: all of them
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

// The weights of a query over 4 keys.
fn weights(scores: vec4<f32>, before: vec2<f32>, query: u32, keys: vec4<u32>) -> vec4<f32> {
    var seen = keys <= vec4<u32>(query);
    if p.window != 0u {
        seen = seen & (keys + p.window > vec4<u32>(query));
    }
    return select(vec4<f32>(), exp(scores * p.scale - before.x) / before.y, seen);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = (p.count + 3u) / 4u;
    if id.x >= blocks * p.heads {
        return;
    }
    let head = id.x / blocks;
    let query = id.x % blocks * 4u;
    // Rows behind the last one are read as that one, and written nowhere.
    let present = min(4u, p.count - query);
    let row0 = id.z * p.count;
    let items = (row0 + query + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(present - 1u))) * p.heads + head;
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

    // the first key that any of the queries sees, at the start of a four
    var begin = 0u;
    if p.window != 0u && query + 1u > p.window {
        begin = (query + 1u - p.window) / 4u * 4u;
    }
    for (var key = begin; key < query + present; key += 4u) {
        let keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
        let rows = (row0 + min(keys, vec4<u32>(p.count - 1u))) * 2u * kv_dim4 + kv_head;
        let v_rows = rows + kv_dim4;
        // a column for each query, a row for each key
        var scores = mat4x4<f32>();
        var products = mat4x4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            let queries = mat4x4<f32>(q[at.x + d], q[at.y + d], q[at.z + d], q[at.w + d]);
            scores += transpose(mat4x4<f32>(kv[rows.x + d], kv[rows.y + d], kv[rows.z + d], kv[rows.w + d])) * queries;
            let outputs = mat4x4<f32>(d_o[at.x + d], d_o[at.y + d], d_o[at.z + d], d_o[at.w + d]);
            products += transpose(mat4x4<f32>(kv[v_rows.x + d], kv[v_rows.y + d], kv[v_rows.z + d], kv[v_rows.w + d])) * outputs;
        }
        let ds = p.scale * mat4x4<f32>(
            weights(scores[0], before0, query, keys) * (products[0] - deltas.x),
            weights(scores[1], before1, query + 1u, keys) * (products[1] - deltas.y),
            weights(scores[2], before2, query + 2u, keys) * (products[2] - deltas.z),
            weights(scores[3], before3, query + 3u, keys) * (products[3] - deltas.w),
        );
        for (var d = 0u; d < p.dim4; d++) {
            var sum = mat4x4<f32>(kv[rows.x + d], kv[rows.y + d], kv[rows.z + d], kv[rows.w + d]) * ds;
            if key > begin {
                sum += mat4x4<f32>(dq[at.x + d], dq[at.y + d], dq[at.z + d], dq[at.w + d]);
            }
            dq[at.x + d] = sum[0];
            if present > 1u { dq[at.y + d] = sum[1]; }
            if present > 2u { dq[at.z + d] = sum[2]; }
            if present > 3u { dq[at.w + d] = sum[3]; }
        }
    }
}
