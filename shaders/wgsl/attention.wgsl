// Softmax attention of a few queries over one segment of the KV cache, without ever holding a row of scores (online softmax,
// arXiv 2205.14135). A cache of several segments takes a dispatch each, which pass running maximum, sum and output along.
// A workgroup of 64 takes 8 queries of one head, 8 lanes a query, and 16 keys at a time.
struct Params {
    count: u32,        // queries
    heads: u32,
    heads_per_kv: u32, // query heads that share a key/value head
    dim4: u32,         // head width / 4, at most 32
    query_first: u32,  // position of query 0
    key_first: u32,    // position of the segment's row 0
    keys: u32,         // rows of the segment that hold keys
    window: u32,       // a query sees this many positions up to its own; 0: all of them
    begin: u32,        // 1: first segment, nothing to go on from
    end: u32,          // 1: last segment, divide by the sum
    scale: f32,        // head width ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;                // [count, heads, dim]
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;               // [keys, 2, kv_heads, dim]
@group(0) @binding(3) var<storage, read_write> running: array<vec2<f32>>;    // [count, heads] maximum, sum
@group(0) @binding(4) var<storage, read_write> o: array<vec4<f32>>;          // [count, heads, dim]

const LOWEST: f32 = -3.0e38;
var<workgroup> q_tile: array<vec4<f32>, 256>;  // [query of 8, dim / 4 of 32]
var<workgroup> kv_tile: array<vec4<f32>, 512>; // [key of 16, dim / 4 of 32]; keys, then values
var<workgroup> scores: array<f32, 128>;        // [query of 8, key of 16]
var<workgroup> weight: array<f32, 128>;        // [query of 8, key of 16]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    let kv_head = head / p.heads_per_kv * p.dim4;
    let query = lane / 8u;
    let part = lane % 8u;
    let row = group.x * 8u + query;
    let live = row < p.count;
    let position = p.query_first + row;
    let at = (row * p.heads + head) * p.dim4;

    var top = LOWEST;
    var sum = 0.0;
    var o0 = vec4<f32>(); // dim / 4 = part, part + 8, part + 16, part + 24
    var o1 = vec4<f32>();
    var o2 = vec4<f32>();
    var o3 = vec4<f32>();
    if live {
        for (var i = part; i < p.dim4; i += 8u) {
            q_tile[query * 32u + i] = q[at + i] * p.scale;
        }
        if p.begin == 0u {
            let before = running[row * p.heads + head];
            top = before.x;
            sum = before.y;
            if part < p.dim4 { o0 = o[at + part]; }
            if part + 8u < p.dim4 { o1 = o[at + part + 8u]; }
            if part + 16u < p.dim4 { o2 = o[at + part + 16u]; }
            if part + 24u < p.dim4 { o3 = o[at + part + 24u]; }
        }
    }

    // the segment's rows that any query of this workgroup may see
    let earliest = p.query_first + group.x * 8u;
    let latest = p.query_first + min(group.x * 8u + 8u, p.count) - 1u;
    var begin = 0u;
    if p.window != 0u && earliest + 1u > p.window + p.key_first {
        begin = earliest + 1u - p.window - p.key_first;
    }
    var end = 0u;
    if latest + 1u > p.key_first {
        end = min(p.keys, latest + 1u - p.key_first);
    }

    for (var key0 = begin; key0 < end; key0 += 16u) {
        let keys = min(16u, end - key0);
        workgroupBarrier();
        for (var i = lane; i < keys * p.dim4; i += 64u) {
            let key = i / p.dim4;
            let d = i % p.dim4;
            kv_tile[key * 32u + d] = kv[(key0 + key) * 2u * kv_dim4 + kv_head + d];
        }
        workgroupBarrier();
        for (var key = part; key < 16u; key += 8u) {
            let there = p.key_first + key0 + key;
            var s = LOWEST;
            if key < keys && there <= position && (p.window == 0u || there + p.window > position) {
                var products = vec4<f32>();
                for (var d = 0u; d < p.dim4; d++) {
                    products += q_tile[query * 32u + d] * kv_tile[key * 32u + d];
                }
                s = products.x + products.y + products.z + products.w;
            }
            scores[query * 16u + key] = s;
        }
        workgroupBarrier();
        for (var i = lane; i < keys * p.dim4; i += 64u) {
            let key = i / p.dim4;
            let d = i % p.dim4;
            kv_tile[key * 32u + d] = kv[((key0 + key) * 2u + 1u) * kv_dim4 + kv_head + d];
        }
        var new_top = top;
        for (var key = 0u; key < 16u; key++) {
            new_top = max(new_top, scores[query * 16u + key]);
        }
        for (var key = part; key < 16u; key += 8u) {
            let s = scores[query * 16u + key];
            weight[query * 16u + key] = select(exp(s - new_top), 0.0, s == LOWEST);
        }
        let keep = exp(top - new_top);
        top = new_top;
        sum *= keep;
        o0 *= keep;
        o1 *= keep;
        o2 *= keep;
        o3 *= keep;
        workgroupBarrier();
        for (var key = 0u; key < keys; key++) {
            let a = weight[query * 16u + key];
            let first = key * 32u + part;
            sum += a;
            o0 += a * kv_tile[first];
            o1 += a * kv_tile[first + 8u];
            o2 += a * kv_tile[first + 16u];
            o3 += a * kv_tile[first + 24u];
        }
    }

    if live {
        if part == 0u {
            running[row * p.heads + head] = vec2<f32>(top, sum);
        }
        let d = select(1.0, sum, p.end != 0u);
        if part < p.dim4 { o[at + part] = o0 / d; }
        if part + 8u < p.dim4 { o[at + part + 8u] = o1 / d; }
        if part + 16u < p.dim4 { o[at + part + 16u] = o2 / d; }
        if part + 24u < p.dim4 { o[at + part + 24u] = o3 / d; }
    }
}
