// Back through causal softmax attention within sequences, as far as keys and values (see attention_grad_q.wgsl, which runs first):
//   dk_s = scale sum_t ds_ts q_t, dv_s = sum_t p_ts do_t, over the queries t that see key s, in all heads that share it
// A lane takes 4 keys of a head and goes through the queries four by four: sums have one order, and nobody adds to another's. It waits
// for nobody; dkv grows in memory, since a lane has no registers for it.
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
@group(0) @binding(4) var<storage, read> d_o: array<vec4<f32>>;           // [rows, heads, dim]
@group(0) @binding(5) var<storage, read> delta: array<f32>;               // [rows, heads]
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>;     // [rows, 2, kv_heads, dim]

// The weights of a key for 4 queries.
fn weights(scores: vec4<f32>, top: vec4<f32>, sums: vec4<f32>, queries: vec4<u32>, key: u32) -> vec4<f32> {
    var seen = (queries >= vec4<u32>(key)) & (queries < vec4<u32>(p.count));
    if p.window != 0u {
        seen = seen & (queries < vec4<u32>(key + p.window));
    }
    return select(vec4<f32>(), exp(scores * p.scale - top) / sums, seen);
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
    // Rows behind the last one are read as that one, and written nowhere.
    let present = min(4u, p.count - key);
    let row0 = id.z * p.count;
    let kv_dim4 = kv_heads * p.dim4;
    let there = row0 + key + min(vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(present - 1u));
    let rows = there * 2u * kv_dim4 + kv_head * p.dim4;
    let v_rows = rows + kv_dim4;

    // behind the last query that sees any of the keys
    var end = p.count;
    if p.window != 0u {
        end = min(end, key + 3u + p.window);
    }
    let first_head = kv_head * p.heads_per_kv;
    for (var head = first_head; head < first_head + p.heads_per_kv; head++) {
        for (var query = key; query < end; query += 4u) {
            let queries = vec4<u32>(query) + vec4<u32>(0u, 1u, 2u, 3u);
            let items = (row0 + min(queries, vec4<u32>(p.count - 1u))) * p.heads + head;
            let at = items * p.dim4;
            // a column for each key, a row for each query
            var scores = mat4x4<f32>();
            var products = mat4x4<f32>();
            for (var d = 0u; d < p.dim4; d++) {
                let keys = mat4x4<f32>(kv[rows.x + d], kv[rows.y + d], kv[rows.z + d], kv[rows.w + d]);
                scores += transpose(mat4x4<f32>(q[at.x + d], q[at.y + d], q[at.z + d], q[at.w + d])) * keys;
                let values = mat4x4<f32>(kv[v_rows.x + d], kv[v_rows.y + d], kv[v_rows.z + d], kv[v_rows.w + d]);
                products += transpose(mat4x4<f32>(d_o[at.x + d], d_o[at.y + d], d_o[at.z + d], d_o[at.w + d])) * values;
            }
            let before0 = running[items.x];
            let before1 = running[items.y];
            let before2 = running[items.z];
            let before3 = running[items.w];
            let top = vec4<f32>(before0.x, before1.x, before2.x, before3.x);
            let sums = vec4<f32>(before0.y, before1.y, before2.y, before3.y);
            let deltas = vec4<f32>(delta[items.x], delta[items.y], delta[items.z], delta[items.w]);
            let w = mat4x4<f32>(
                weights(scores[0], top, sums, queries, key),
                weights(scores[1], top, sums, queries, key + 1u),
                weights(scores[2], top, sums, queries, key + 2u),
                weights(scores[3], top, sums, queries, key + 3u),
            );
            let ds = p.scale * mat4x4<f32>(
                w[0] * (products[0] - deltas),
                w[1] * (products[1] - deltas),
                w[2] * (products[2] - deltas),
                w[3] * (products[3] - deltas),
            );
            let fresh = head == first_head && query == key;
            for (var d = 0u; d < p.dim4; d++) {
                var dk = mat4x4<f32>(q[at.x + d], q[at.y + d], q[at.z + d], q[at.w + d]) * ds;
                var dv = mat4x4<f32>(d_o[at.x + d], d_o[at.y + d], d_o[at.z + d], d_o[at.w + d]) * w;
                if !fresh {
                    dk += mat4x4<f32>(dkv[rows.x + d], dkv[rows.y + d], dkv[rows.z + d], dkv[rows.w + d]);
                    dv += mat4x4<f32>(dkv[v_rows.x + d], dkv[v_rows.y + d], dkv[v_rows.z + d], dkv[v_rows.w + d]);
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
