// Softmax attention of a few queries over one segment of the KV cache, without materializing the scores (online
// softmax, arXiv 2205.14135). A cache of several segments takes one dispatch per segment; the running maximum, sum and
// output are carried from one dispatch to the next.
// A workgroup of 64 lanes handles 8 queries of one head, 256 keys at a time. Each lane first scores four keys against
// all queries, then accumulates four columns of the values over every `splits`-th key. This needs few barriers and few
// loads per 256 keys, and those dominate on CPU-backed adapters.
// The grid is groups of queries by heads by sequences. The segments of the sequences are contiguous.
struct Params {
    count: u32,        // queries of a sequence
    heads: u32,
    heads_per_kv: u32, // query heads that share a key/value head
    dim4: u32,         // head width / 4, at most 32
    query_first: u32,  // position of query 0
    key_first: u32,    // position of row 0 of the segment
    keys: u32,         // keys of a sequence in the segment
    window: u32,       // a query sees this many positions up to its own; 0: all
    begin: u32,        // 1: first segment, start from an empty state
    end: u32,          // 1: last segment, divide the output by the sum
    scale: f32,        // head width ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;                // [sequences, count, heads, dim]
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;               // [sequences, keys, 2, kv_heads, dim]
@group(0) @binding(3) var<storage, read_write> running: array<vec2<f32>>;    // [sequences, count, heads] maximum, sum
@group(0) @binding(4) var<storage, read_write> o: array<vec4<f32>>;          // [sequences, count, heads, dim]

const LOWEST: f32 = -3.0e38;
const QUERIES: u32 = 8u;
const KEYS: u32 = 256u;
var<workgroup> q_tile: array<vec4<f32>, 256>;  // [dim / 4 of 32, query of 8], scaled
var<workgroup> weight: array<vec4<f32>, 512>;  // [key of 256, query / 4 of 2]; at the end [query of 8, lane of 64]
var<workgroup> shared_lanes: array<vec4<f32>, 128>; // [query / 4 of 2, lane of 64 or part of 8]

// The scores of 8 queries for one key.
struct Scores {
    low: vec4<f32>,  // queries 0 .. 3
    high: vec4<f32>, // queries 4 .. 7
}

// The scores for four keys, 64 rows apart.
struct Keys4 {
    s0: Scores,
    s1: Scores,
    s2: Scores,
    s3: Scores,
}

const NONE = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST));

fn visible(there: u32, positions: vec4<u32>) -> vec4<bool> {
    let after = vec4<u32>(there) <= positions;
    if p.window == 0u {
        return after;
    }
    return after & (vec4<u32>(there + p.window) > positions);
}

// The maximum of each query's scores over all lanes. In two steps, since loads cost as much as barriers on CPU-backed
// adapters: 16 lanes reduce 8 values each, then every lane reduces their results. Must be called in uniform control
// flow.
fn workgroup_max(s: Scores, lane: u32) -> Scores {
    shared_lanes[lane] = s.low;
    shared_lanes[64u + lane] = s.high;
    workgroupBarrier();
    var found = vec4<f32>(LOWEST);
    if lane < 16u {
        for (var i = 0u; i < 8u; i++) {
            found = max(found, shared_lanes[8u * lane + i]);
        }
    }
    workgroupBarrier();
    if lane < 16u {
        shared_lanes[lane] = found;
    }
    workgroupBarrier();
    var top = Scores(shared_lanes[0], shared_lanes[8]);
    for (var i = 1u; i < 8u; i++) {
        top.low = max(top.low, shared_lanes[i]);
        top.high = max(top.high, shared_lanes[8u + i]);
    }
    return top;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let row0 = group.x * QUERIES;
    let queries = min(QUERIES, p.count - row0);
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    // The start of the sequence.
    let query0 = group.z * p.count;
    let kv_head = group.z * p.keys * 2u * kv_dim4 + head / p.heads_per_kv * p.dim4;
    let position0 = p.query_first + row0;
    let low_positions = vec4<u32>(position0) + vec4<u32>(0u, 1u, 2u, 3u);
    let high_positions = low_positions + 4u;
    // Values: lane = part + dim4 * split. Lanes past the last whole split accumulate nothing.
    let splits = 64u / p.dim4;
    let part = lane % p.dim4;
    let split = lane / p.dim4;
    let adds = split < splits;

    for (var i = lane; i < QUERIES * p.dim4; i += 64u) {
        let query = i / p.dim4;
        let d = i % p.dim4;
        var v = vec4<f32>();
        if query < queries {
            v = q[((query0 + row0 + query) * p.heads + head) * p.dim4 + d] * p.scale;
        }
        q_tile[d * QUERIES + query] = v;
    }

    var top = Scores(vec4<f32>(LOWEST), vec4<f32>(LOWEST));
    // The contribution of this lane's keys to the sums.
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
            let before = running[(query0 + row0 + query) * p.heads + head];
            if query < 4u {
                top.low[query] = before.x;
                sum.low[query] = select(0.0, before.y, lane == 0u);
            } else {
                top.high[query - 4u] = before.x;
                sum.high[query - 4u] = select(0.0, before.y, lane == 0u);
            }
        }
        if split == 0u {
            let at = ((query0 + row0) * p.heads + head) * p.dim4 + part;
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

    // The rows of the segment that any query of this workgroup may see.
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
        var s = Keys4(NONE, NONE, NONE, NONE);
        if key0 + 64u < end {
            s = score4(key0 + lane, end - 1u, kv_dim4, kv_head, queries);
        } else if key0 + lane < end {
            s.s0 = score(key0 + lane, kv_dim4, kv_head, queries);
        }
        var new_top = top;
        if key0 + lane + 0u < end {
            s.s0.low = select(vec4<f32>(LOWEST), s.s0.low, visible(p.key_first + key0 + lane + 0u, low_positions));
            s.s0.high = select(vec4<f32>(LOWEST), s.s0.high, visible(p.key_first + key0 + lane + 0u, high_positions));
            new_top.low = max(new_top.low, s.s0.low);
            new_top.high = max(new_top.high, s.s0.high);
        }
        if key0 + lane + 64u < end {
            s.s1.low = select(vec4<f32>(LOWEST), s.s1.low, visible(p.key_first + key0 + lane + 64u, low_positions));
            s.s1.high = select(vec4<f32>(LOWEST), s.s1.high, visible(p.key_first + key0 + lane + 64u, high_positions));
            new_top.low = max(new_top.low, s.s1.low);
            new_top.high = max(new_top.high, s.s1.high);
        }
        if key0 + lane + 128u < end {
            s.s2.low = select(vec4<f32>(LOWEST), s.s2.low, visible(p.key_first + key0 + lane + 128u, low_positions));
            s.s2.high = select(vec4<f32>(LOWEST), s.s2.high, visible(p.key_first + key0 + lane + 128u, high_positions));
            new_top.low = max(new_top.low, s.s2.low);
            new_top.high = max(new_top.high, s.s2.high);
        }
        if key0 + lane + 192u < end {
            s.s3.low = select(vec4<f32>(LOWEST), s.s3.low, visible(p.key_first + key0 + lane + 192u, low_positions));
            s.s3.high = select(vec4<f32>(LOWEST), s.s3.high, visible(p.key_first + key0 + lane + 192u, high_positions));
            new_top.low = max(new_top.low, s.s3.low);
            new_top.high = max(new_top.high, s.s3.high);
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
            let low = select(exp(s.s0.low - top.low), vec4<f32>(), s.s0.low == vec4<f32>(LOWEST));
            let high = select(exp(s.s0.high - top.high), vec4<f32>(), s.s0.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 0u)] = low;
            weight[2u * (lane + 0u) + 1u] = high;
        }
        if key0 + lane + 64u < end {
            let low = select(exp(s.s1.low - top.low), vec4<f32>(), s.s1.low == vec4<f32>(LOWEST));
            let high = select(exp(s.s1.high - top.high), vec4<f32>(), s.s1.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 64u)] = low;
            weight[2u * (lane + 64u) + 1u] = high;
        }
        if key0 + lane + 128u < end {
            let low = select(exp(s.s2.low - top.low), vec4<f32>(), s.s2.low == vec4<f32>(LOWEST));
            let high = select(exp(s.s2.high - top.high), vec4<f32>(), s.s2.high == vec4<f32>(LOWEST));
            sum.low += low;
            sum.high += high;
            weight[2u * (lane + 128u)] = low;
            weight[2u * (lane + 128u) + 1u] = high;
        }
        if key0 + lane + 192u < end {
            let low = select(exp(s.s3.low - top.low), vec4<f32>(), s.s3.low == vec4<f32>(LOWEST));
            let high = select(exp(s.s3.high - top.high), vec4<f32>(), s.s3.high == vec4<f32>(LOWEST));
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

    // Combine the lanes' partial results.
    workgroupBarrier();
    shared_lanes[lane] = sum.low;
    shared_lanes[64u + lane] = sum.high;
    weight[0u * 64u + lane] = o0;
    weight[1u * 64u + lane] = o1;
    weight[2u * 64u + lane] = o2;
    weight[3u * 64u + lane] = o3;
    weight[4u * 64u + lane] = o4;
    weight[5u * 64u + lane] = o5;
    weight[6u * 64u + lane] = o6;
    weight[7u * 64u + lane] = o7;
    workgroupBarrier();
    var sums = vec4<f32>();
    if lane < 16u {
        for (var i = 0u; i < 8u; i++) {
            sums += shared_lanes[8u * lane + i];
        }
    }
    workgroupBarrier();
    if lane < 16u {
        shared_lanes[lane] = sums;
    }
    workgroupBarrier();
    for (var i = lane; i < queries * p.dim4; i += 64u) {
        let query = i / p.dim4;
        let d = i % p.dim4;
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += shared_lanes[query / 4u * 8u + i][query % 4u];
        }
        var v = vec4<f32>();
        for (var s = 0u; s < splits; s++) {
            v += weight[query * 64u + s * p.dim4 + d];
        }
        if p.end != 0u {
            v /= total;
        }
        o[((query0 + row0 + query) * p.heads + head) * p.dim4 + d] = v;
        if d == 0u {
            var t = top.low[query % 4u];
            if query >= 4u {
                t = top.high[query % 4u];
            }
            running[(query0 + row0 + query) * p.heads + head] = vec2<f32>(t, total);
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
        s.high += vec4<f32>(
            dot(q_tile[t + 4u], k),
            dot(q_tile[t + 5u], k),
            dot(q_tile[t + 6u], k),
            dot(q_tile[t + 7u], k),
        );
    }
    return s;
}

// `score` for the rows first, first + 64, first + 128 and first + 192, clamped to `last`. Each query is loaded once for
// all four.
fn score4(first: u32, last: u32, kv_dim4: u32, kv_head: u32, queries: u32) -> Keys4 {
    let at0 = min(first, last) * 2u * kv_dim4 + kv_head;
    let at1 = min(first + 64u, last) * 2u * kv_dim4 + kv_head;
    let at2 = min(first + 128u, last) * 2u * kv_dim4 + kv_head;
    let at3 = min(first + 192u, last) * 2u * kv_dim4 + kv_head;
    var s = Keys4(Scores(), Scores(), Scores(), Scores());
    if queries == 1u {
        var t0 = vec4<f32>();
        var t1 = vec4<f32>();
        var t2 = vec4<f32>();
        var t3 = vec4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            let q0 = q_tile[d * QUERIES];
            t0 += q0 * kv[at0 + d];
            t1 += q0 * kv[at1 + d];
            t2 += q0 * kv[at2 + d];
            t3 += q0 * kv[at3 + d];
        }
        s.s0.low.x = t0.x + t0.y + t0.z + t0.w;
        s.s1.low.x = t1.x + t1.y + t1.z + t1.w;
        s.s2.low.x = t2.x + t2.y + t2.z + t2.w;
        s.s3.low.x = t3.x + t3.y + t3.z + t3.w;
        return s;
    }
    for (var d = 0u; d < p.dim4; d++) {
        let k0 = kv[at0 + d];
        let k1 = kv[at1 + d];
        let k2 = kv[at2 + d];
        let k3 = kv[at3 + d];
        var q0 = q_tile[d * QUERIES];
        var q1 = q_tile[d * QUERIES + 1u];
        var q2 = q_tile[d * QUERIES + 2u];
        var q3 = q_tile[d * QUERIES + 3u];
        s.s0.low += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
        s.s1.low += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
        s.s2.low += vec4<f32>(dot(q0, k2), dot(q1, k2), dot(q2, k2), dot(q3, k2));
        s.s3.low += vec4<f32>(dot(q0, k3), dot(q1, k3), dot(q2, k3), dot(q3, k3));
        q0 = q_tile[d * QUERIES + 4u];
        q1 = q_tile[d * QUERIES + 5u];
        q2 = q_tile[d * QUERIES + 6u];
        q3 = q_tile[d * QUERIES + 7u];
        s.s0.high += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
        s.s1.high += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
        s.s2.high += vec4<f32>(dot(q0, k2), dot(q1, k2), dot(q2, k2), dot(q3, k2));
        s.s3.high += vec4<f32>(dot(q0, k3), dot(q1, k3), dot(q2, k3), dot(q3, k3));
    }
    return s;
}
