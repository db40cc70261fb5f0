// Softmax attention of a few queries over one segment of the KV cache, without ever holding a row of scores (online softmax,
// arXiv 2205.14135). A cache of several segments takes a dispatch each, which pass running maximum, sum and output along.
// A workgroup of 64 takes 8 queries of one head and 256 keys at a time: first a lane scores four keys against all queries, then
// it adds up four columns of values over every `splits`-th key. Two barriers for 256 keys: on CPU-backed adapters barriers cost
// more than anything else.
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
const QUERIES: u32 = 8u;
const KEYS: u32 = 256u;
var<workgroup> q_tile: array<vec4<f32>, 256>;  // [dim / 4 of 32, query of 8], scaled
var<workgroup> weight: array<vec4<f32>, 512>;  // [key of 256, query / 4 of 2]; at the end [query of 8, lane of 64]
var<workgroup> shared_lanes: array<vec4<f32>, 128>; // [lane of 64, query / 4 of 2]

// The scores of 8 queries for one key.
struct Scores {
    low: vec4<f32>,  // queries 0 .. 3
    high: vec4<f32>, // queries 4 .. 7
}

fn visible(there: u32, positions: vec4<u32>) -> vec4<bool> {
    let after = vec4<u32>(there) <= positions;
    if p.window == 0u {
        return after;
    }
    return after & (vec4<u32>(there + p.window) > positions);
}

// The largest of every lane's scores. Called in uniform control flow.
fn workgroup_max(s: Scores, lane: u32) -> Scores {
    shared_lanes[2u * lane] = s.low;
    shared_lanes[2u * lane + 1u] = s.high;
    workgroupBarrier();
    var top = s;
    for (var i = 0u; i < 64u; i++) {
        top.low = max(top.low, shared_lanes[2u * i]);
        top.high = max(top.high, shared_lanes[2u * i + 1u]);
    }
    return top;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let row0 = group.x * QUERIES;
    let queries = min(QUERIES, p.count - row0);
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    let kv_head = head / p.heads_per_kv * p.dim4;
    let position0 = p.query_first + row0;
    let low_positions = vec4<u32>(position0) + vec4<u32>(0u, 1u, 2u, 3u);
    let high_positions = low_positions + 4u;
    // values: lanes part + dim4 * split; lanes behind the last whole split have nothing to add up
    let splits = 64u / p.dim4;
    let part = lane % p.dim4;
    let split = lane / p.dim4;
    let adds = split < splits;

    for (var i = lane; i < QUERIES * p.dim4; i += 64u) {
        let query = i / p.dim4;
        let d = i % p.dim4;
        var v = vec4<f32>();
        if query < queries {
            v = q[((row0 + query) * p.heads + head) * p.dim4 + d] * p.scale;
        }
        q_tile[d * QUERIES + query] = v;
    }

    var top = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST));
    // what this lane's keys add to the sums
    var sum = Scores(vec4<f32>(), vec4<f32>());
    var o0 = vec4<f32>(); // query 0
    var o1 = vec4<f32>(); // query 1
    var o2 = vec4<f32>(); // query 2
    var o3 = vec4<f32>(); // query 3
    var o4 = vec4<f32>(); // query 4
    var o5 = vec4<f32>(); // query 5
    var o6 = vec4<f32>(); // query 6
    var o7 = vec4<f32>(); // query 7
    if p.begin == 0u {
        for (var query = 0u; query < queries; query++) {
            let before = running[(row0 + query) * p.heads + head];
            if query < 4u {
                top.low[query] = before.x;
                sum.low[query] = select(0.0, before.y, lane == 0u);
            } else {
                top.high[query - 4u] = before.x;
                sum.high[query - 4u] = select(0.0, before.y, lane == 0u);
            }
        }
        if split == 0u {
            let at = (row0 * p.heads + head) * p.dim4 + part;
            let next = p.heads * p.dim4;
            if queries > 0u { o0 = o[at]; }
            if queries > 1u { o1 = o[at + 1u * next]; }
            if queries > 2u { o2 = o[at + 2u * next]; }
            if queries > 3u { o3 = o[at + 3u * next]; }
            if queries > 4u { o4 = o[at + 4u * next]; }
            if queries > 5u { o5 = o[at + 5u * next]; }
            if queries > 6u { o6 = o[at + 6u * next]; }
            if queries > 7u { o7 = o[at + 7u * next]; }
        }
    }

    // the segment's rows that any query of this workgroup may see
    var begin = 0u;
    if p.window != 0u && position0 + 1u > p.window + p.key_first {
        begin = position0 + 1u - p.window - p.key_first;
    }
    var end = 0u;
    if position0 + queries > p.key_first {
        end = min(p.keys, position0 + queries - p.key_first);
    }

    workgroupBarrier();
    for (var key0 = begin; key0 < end; key0 += KEYS) {
        var s0 = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST)); // key key0 + lane + 0
        var s1 = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST)); // key key0 + lane + 64
        var s2 = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST)); // key key0 + lane + 128
        var s3 = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST)); // key key0 + lane + 192
        var new_top = top;
        if key0 + lane + 0u < end {
            s0 = score(key0 + lane + 0u, kv_dim4, kv_head, queries);
            s0.low = select(vec4<f32>(LOWEST), s0.low, visible(p.key_first + key0 + lane + 0u, low_positions));
            s0.high = select(vec4<f32>(LOWEST), s0.high, visible(p.key_first + key0 + lane + 0u, high_positions));
            new_top.low = max(new_top.low, s0.low);
            new_top.high = max(new_top.high, s0.high);
        }
        if key0 + lane + 64u < end {
            s1 = score(key0 + lane + 64u, kv_dim4, kv_head, queries);
            s1.low = select(vec4<f32>(LOWEST), s1.low, visible(p.key_first + key0 + lane + 64u, low_positions));
            s1.high = select(vec4<f32>(LOWEST), s1.high, visible(p.key_first + key0 + lane + 64u, high_positions));
            new_top.low = max(new_top.low, s1.low);
            new_top.high = max(new_top.high, s1.high);
        }
        if key0 + lane + 128u < end {
            s2 = score(key0 + lane + 128u, kv_dim4, kv_head, queries);
            s2.low = select(vec4<f32>(LOWEST), s2.low, visible(p.key_first + key0 + lane + 128u, low_positions));
            s2.high = select(vec4<f32>(LOWEST), s2.high, visible(p.key_first + key0 + lane + 128u, high_positions));
            new_top.low = max(new_top.low, s2.low);
            new_top.high = max(new_top.high, s2.high);
        }
        if key0 + lane + 192u < end {
            s3 = score(key0 + lane + 192u, kv_dim4, kv_head, queries);
            s3.low = select(vec4<f32>(LOWEST), s3.low, visible(p.key_first + key0 + lane + 192u, low_positions));
            s3.high = select(vec4<f32>(LOWEST), s3.high, visible(p.key_first + key0 + lane + 192u, high_positions));
            new_top.low = max(new_top.low, s3.low);
            new_top.high = max(new_top.high, s3.high);
        }
        new_top = workgroup_max(new_top, lane);
        let keep_low = exp(top.low - new_top.low);
        let keep_high = exp(top.high - new_top.high);
        top = new_top;
        sum.low *= keep_low;
        sum.high *= keep_high;
        o0 *= keep_low[0];
        o1 *= keep_low[1];
        o2 *= keep_low[2];
        o3 *= keep_low[3];
        o4 *= keep_high[0];
        o5 *= keep_high[1];
        o6 *= keep_high[2];
        o7 *= keep_high[3];
        if key0 + lane + 0u < end {
            let low = select(exp(s0.low - top.low), vec4<f32>(), s0.low == vec4<f32>(LOWEST));
            let high = select(exp(s0.high - top.high), vec4<f32>(), s0.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 0u)] = low;
            weight[2u * (lane + 0u) + 1u] = high;
        }
        if key0 + lane + 64u < end {
            let low = select(exp(s1.low - top.low), vec4<f32>(), s1.low == vec4<f32>(LOWEST));
            let high = select(exp(s1.high - top.high), vec4<f32>(), s1.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 64u)] = low;
            weight[2u * (lane + 64u) + 1u] = high;
        }
        if key0 + lane + 128u < end {
            let low = select(exp(s2.low - top.low), vec4<f32>(), s2.low == vec4<f32>(LOWEST));
            let high = select(exp(s2.high - top.high), vec4<f32>(), s2.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 128u)] = low;
            weight[2u * (lane + 128u) + 1u] = high;
        }
        if key0 + lane + 192u < end {
            let low = select(exp(s3.low - top.low), vec4<f32>(), s3.low == vec4<f32>(LOWEST));
            let high = select(exp(s3.high - top.high), vec4<f32>(), s3.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 192u)] = low;
            weight[2u * (lane + 192u) + 1u] = high;
        }
        workgroupBarrier();
        if adds {
            let keys = min(KEYS, end - key0);
            if queries == 1u {
                for (var key = split; key < keys; key += splits) {
                    o0 += weight[2u * key].x * kv[((key0 + key) * 2u + 1u) * kv_dim4 + kv_head + part];
                }
            } else {
                for (var key = split; key < keys; key += splits) {
                    let v = kv[((key0 + key) * 2u + 1u) * kv_dim4 + kv_head + part];
                    let low = weight[2u * key];
                    let high = weight[2u * key + 1u];
                    o0 += low.x * v;
                    o1 += low.y * v;
                    o2 += low.z * v;
                    o3 += low.w * v;
                    o4 += high.x * v;
                    o5 += high.y * v;
                    o6 += high.z * v;
                    o7 += high.w * v;
                }
            }
        }
    }

    // the lanes' shares together
    workgroupBarrier();
    shared_lanes[2u * lane] = sum.low;
    shared_lanes[2u * lane + 1u] = sum.high;
    weight[0u * 64u + lane] = o0;
    weight[1u * 64u + lane] = o1;
    weight[2u * 64u + lane] = o2;
    weight[3u * 64u + lane] = o3;
    weight[4u * 64u + lane] = o4;
    weight[5u * 64u + lane] = o5;
    weight[6u * 64u + lane] = o6;
    weight[7u * 64u + lane] = o7;
    workgroupBarrier();
    for (var i = lane; i < queries * p.dim4; i += 64u) {
        let query = i / p.dim4;
        let d = i % p.dim4;
        var total = 0.0;
        for (var l = 0u; l < 64u; l++) {
            total += shared_lanes[2u * l + query / 4u][query % 4u];
        }
        var v = vec4<f32>();
        for (var s = 0u; s < splits; s++) {
            v += weight[query * 64u + s * p.dim4 + d];
        }
        if p.end != 0u {
            v /= total;
        }
        o[((row0 + query) * p.heads + head) * p.dim4 + d] = v;
        if d == 0u {
            var t = top.low[query % 4u];
            if query >= 4u {
                t = top.high[query % 4u];
            }
            running[(row0 + query) * p.heads + head] = vec2<f32>(t, total);
        }
    }
}

// The scores of the workgroup's queries for a row of the segment.
fn score(key: u32, kv_dim4: u32, kv_head: u32, queries: u32) -> Scores {
    let at = key * 2u * kv_dim4 + kv_head;
    if queries == 1u {
        var products = vec4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            products += q_tile[d * QUERIES] * kv[at + d];
        }
        return Scores(vec4<f32>(products.x + products.y + products.z + products.w, 0.0, 0.0, 0.0), vec4<f32>());
    }
    var s = Scores(vec4<f32>(), vec4<f32>());
    for (var d = 0u; d < p.dim4; d++) {
        let k = kv[at + d];
        let t = d * QUERIES;
        s.low += vec4<f32>(dot(q_tile[t], k), dot(q_tile[t + 1u], k), dot(q_tile[t + 2u], k), dot(q_tile[t + 3u], k));
        s.high += vec4<f32>(dot(q_tile[t + 4u], k), dot(q_tile[t + 5u], k), dot(q_tile[t + 6u], k), dot(q_tile[t + 7u], k));
    }
    return s;
}
