// Softmax attention over one segment of the KV cache, as `../attention.wgsl`, by one subgroup of 8 lanes per 16 queries
// of a head: for adapters on CPUs, where barriers are expensive and loads, made lane by lane, cost more than
// arithmetic. Of each 32 keys a lane scores four, 8 apart, while the queries are broadcast. It then accumulates four
// columns of the values, 32 consecutive columns per subgroup, while the weights are broadcast. The sums of the values
// are kept in workgroup memory, where each lane accesses only its own elements, so no barriers are needed.
// The grid is groups of queries by heads by sequences. The segments of the sequences are contiguous.
// Unrolled by hand: drivers keep local arrays indexed in a loop in memory.
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

const QUERIES: u32 = 16u;
var<workgroup> sums: array<vec4<f32>, 512>; // [query of 16, dim / 4 of 32]

// Which of four keys a query at `position` sees.
fn visible(there: vec4<u32>, position: u32) -> vec4<bool> {
    let before = there <= vec4<u32>(position);
    if p.window == 0u {
        return before;
    }
    return before & (there + vec4<u32>(p.window) > vec4<u32>(position));
}

// Weights of four keys with these scores.
fn weights(scores: vec4<f32>, top: f32) -> vec4<f32> {
    return select(exp(scores - top), vec4<f32>(), scores == vec4<f32>(LOWEST));
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// Writes the results of a query after this segment.
fn put(row: u32, query0: u32, head: u32, lane: u32, top: f32, sum: f32) {
    if row >= p.count {
        return;
    }
    let query = row % QUERIES;
    let at = (query0 + row) * p.heads + head;
    let divisor = select(1.0, sum, p.end != 0u);
    for (var d = lane; d < p.dim4; d += 8u) {
        o[at * p.dim4 + d] = sums[query * 32u + d] / divisor;
    }
    if lane == 0u {
        running[at] = vec2<f32>(top, sum);
    }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let head = group.y;
    let row0 = group.x * QUERIES;
    let queries = min(QUERIES, p.count - row0);
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    // The start of the sequence.
    let query0 = group.z * p.count;
    let kv_head = group.z * p.keys * 2u * kv_dim4 + head / p.heads_per_kv * p.dim4;
    let position0 = p.query_first + row0;
    let row_0 = (query0 + min(row0 + lane, p.count - 1u)) * p.heads + head;
    let q_0 = row_0 * p.dim4;
    let row_1 = (query0 + min(row0 + 8u + lane, p.count - 1u)) * p.heads + head;
    let q_1 = row_1 * p.dim4;

    var before_0 = vec2<f32>(LOWEST, 0.0);
    var before_1 = vec2<f32>(LOWEST, 0.0);
    if p.begin == 0u {
        before_0 = running[row_0];
        before_1 = running[row_1];
    }
    var top0 = subgroupBroadcast(before_0.x, 0u);
    var top1 = subgroupBroadcast(before_0.x, 1u);
    var top2 = subgroupBroadcast(before_0.x, 2u);
    var top3 = subgroupBroadcast(before_0.x, 3u);
    var top4 = subgroupBroadcast(before_0.x, 4u);
    var top5 = subgroupBroadcast(before_0.x, 5u);
    var top6 = subgroupBroadcast(before_0.x, 6u);
    var top7 = subgroupBroadcast(before_0.x, 7u);
    var top8 = subgroupBroadcast(before_1.x, 0u);
    var top9 = subgroupBroadcast(before_1.x, 1u);
    var top10 = subgroupBroadcast(before_1.x, 2u);
    var top11 = subgroupBroadcast(before_1.x, 3u);
    var top12 = subgroupBroadcast(before_1.x, 4u);
    var top13 = subgroupBroadcast(before_1.x, 5u);
    var top14 = subgroupBroadcast(before_1.x, 6u);
    var top15 = subgroupBroadcast(before_1.x, 7u);
    // The contribution of this lane's keys to the sums of weights.
    var sum0 = select(0.0, before_0.y, lane == 0u);
    var sum1 = select(0.0, before_0.y, lane == 1u);
    var sum2 = select(0.0, before_0.y, lane == 2u);
    var sum3 = select(0.0, before_0.y, lane == 3u);
    var sum4 = select(0.0, before_0.y, lane == 4u);
    var sum5 = select(0.0, before_0.y, lane == 5u);
    var sum6 = select(0.0, before_0.y, lane == 6u);
    var sum7 = select(0.0, before_0.y, lane == 7u);
    var sum8 = select(0.0, before_1.y, lane == 0u);
    var sum9 = select(0.0, before_1.y, lane == 1u);
    var sum10 = select(0.0, before_1.y, lane == 2u);
    var sum11 = select(0.0, before_1.y, lane == 3u);
    var sum12 = select(0.0, before_1.y, lane == 4u);
    var sum13 = select(0.0, before_1.y, lane == 5u);
    var sum14 = select(0.0, before_1.y, lane == 6u);
    var sum15 = select(0.0, before_1.y, lane == 7u);
    for (var query = 0u; query < QUERIES; query++) {
        for (var d = lane; d < p.dim4; d += 8u) {
            var v = vec4<f32>();
            if p.begin == 0u && query < queries {
                v = o[((query0 + row0 + query) * p.heads + head) * p.dim4 + d];
            }
            sums[query * 32u + d] = v;
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

    for (var key0 = begin; key0 < end; key0 += 32u) {
        // Lanes past the last key repeat it and are masked below.
        let k0_at = min(key0 + lane, end - 1u) * 2u * kv_dim4 + kv_head;
        let k1_at = min(key0 + 8u + lane, end - 1u) * 2u * kv_dim4 + kv_head;
        let k2_at = min(key0 + 16u + lane, end - 1u) * 2u * kv_dim4 + kv_head;
        let k3_at = min(key0 + 24u + lane, end - 1u) * 2u * kv_dim4 + kv_head;
        var a0 = vec4<f32>();
        var a1 = vec4<f32>();
        var a2 = vec4<f32>();
        var a3 = vec4<f32>();
        var a4 = vec4<f32>();
        var a5 = vec4<f32>();
        var a6 = vec4<f32>();
        var a7 = vec4<f32>();
        var a8 = vec4<f32>();
        var a9 = vec4<f32>();
        var a10 = vec4<f32>();
        var a11 = vec4<f32>();
        var a12 = vec4<f32>();
        var a13 = vec4<f32>();
        var a14 = vec4<f32>();
        var a15 = vec4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            let k0 = kv[k0_at + d];
            let k1 = kv[k1_at + d];
            let k2 = kv[k2_at + d];
            let k3 = kv[k3_at + d];
            let t0 = vec4<f32>(k0.x, k1.x, k2.x, k3.x);
            let t1 = vec4<f32>(k0.y, k1.y, k2.y, k3.y);
            let t2 = vec4<f32>(k0.z, k1.z, k2.z, k3.z);
            let t3 = vec4<f32>(k0.w, k1.w, k2.w, k3.w);
            let q0 = q[q_0 + d];
            let b0 = subgroupBroadcast(q0, 0u);
            a0 = fma(vec4<f32>(b0.x), t0, fma(vec4<f32>(b0.y), t1,
                fma(vec4<f32>(b0.z), t2, fma(vec4<f32>(b0.w), t3, a0))));
            let b1 = subgroupBroadcast(q0, 1u);
            a1 = fma(vec4<f32>(b1.x), t0, fma(vec4<f32>(b1.y), t1,
                fma(vec4<f32>(b1.z), t2, fma(vec4<f32>(b1.w), t3, a1))));
            let b2 = subgroupBroadcast(q0, 2u);
            a2 = fma(vec4<f32>(b2.x), t0, fma(vec4<f32>(b2.y), t1,
                fma(vec4<f32>(b2.z), t2, fma(vec4<f32>(b2.w), t3, a2))));
            let b3 = subgroupBroadcast(q0, 3u);
            a3 = fma(vec4<f32>(b3.x), t0, fma(vec4<f32>(b3.y), t1,
                fma(vec4<f32>(b3.z), t2, fma(vec4<f32>(b3.w), t3, a3))));
            let b4 = subgroupBroadcast(q0, 4u);
            a4 = fma(vec4<f32>(b4.x), t0, fma(vec4<f32>(b4.y), t1,
                fma(vec4<f32>(b4.z), t2, fma(vec4<f32>(b4.w), t3, a4))));
            let b5 = subgroupBroadcast(q0, 5u);
            a5 = fma(vec4<f32>(b5.x), t0, fma(vec4<f32>(b5.y), t1,
                fma(vec4<f32>(b5.z), t2, fma(vec4<f32>(b5.w), t3, a5))));
            let b6 = subgroupBroadcast(q0, 6u);
            a6 = fma(vec4<f32>(b6.x), t0, fma(vec4<f32>(b6.y), t1,
                fma(vec4<f32>(b6.z), t2, fma(vec4<f32>(b6.w), t3, a6))));
            let b7 = subgroupBroadcast(q0, 7u);
            a7 = fma(vec4<f32>(b7.x), t0, fma(vec4<f32>(b7.y), t1,
                fma(vec4<f32>(b7.z), t2, fma(vec4<f32>(b7.w), t3, a7))));
            let q1 = q[q_1 + d];
            let b8 = subgroupBroadcast(q1, 0u);
            a8 = fma(vec4<f32>(b8.x), t0, fma(vec4<f32>(b8.y), t1,
                fma(vec4<f32>(b8.z), t2, fma(vec4<f32>(b8.w), t3, a8))));
            let b9 = subgroupBroadcast(q1, 1u);
            a9 = fma(vec4<f32>(b9.x), t0, fma(vec4<f32>(b9.y), t1,
                fma(vec4<f32>(b9.z), t2, fma(vec4<f32>(b9.w), t3, a9))));
            let b10 = subgroupBroadcast(q1, 2u);
            a10 = fma(vec4<f32>(b10.x), t0, fma(vec4<f32>(b10.y), t1,
                fma(vec4<f32>(b10.z), t2, fma(vec4<f32>(b10.w), t3, a10))));
            let b11 = subgroupBroadcast(q1, 3u);
            a11 = fma(vec4<f32>(b11.x), t0, fma(vec4<f32>(b11.y), t1,
                fma(vec4<f32>(b11.z), t2, fma(vec4<f32>(b11.w), t3, a11))));
            let b12 = subgroupBroadcast(q1, 4u);
            a12 = fma(vec4<f32>(b12.x), t0, fma(vec4<f32>(b12.y), t1,
                fma(vec4<f32>(b12.z), t2, fma(vec4<f32>(b12.w), t3, a12))));
            let b13 = subgroupBroadcast(q1, 5u);
            a13 = fma(vec4<f32>(b13.x), t0, fma(vec4<f32>(b13.y), t1,
                fma(vec4<f32>(b13.z), t2, fma(vec4<f32>(b13.w), t3, a13))));
            let b14 = subgroupBroadcast(q1, 6u);
            a14 = fma(vec4<f32>(b14.x), t0, fma(vec4<f32>(b14.y), t1,
                fma(vec4<f32>(b14.z), t2, fma(vec4<f32>(b14.w), t3, a14))));
            let b15 = subgroupBroadcast(q1, 7u);
            a15 = fma(vec4<f32>(b15.x), t0, fma(vec4<f32>(b15.y), t1,
                fma(vec4<f32>(b15.z), t2, fma(vec4<f32>(b15.w), t3, a15))));
        }
        let row = vec4<u32>(key0 + lane) + vec4<u32>(0u, 8u, 16u, 24u);
        let there = row + p.key_first;
        let inside = row < vec4<u32>(end);
        a0 = select(vec4<f32>(LOWEST), p.scale * a0, inside & visible(there, position0));
        let new_top0 = max(top0, subgroupMax(largest(a0)));
        let keep0 = exp(top0 - new_top0);
        top0 = new_top0;
        a0 = weights(a0, top0);
        sum0 = fma(sum0, keep0, total(a0));
        a1 = select(vec4<f32>(LOWEST), p.scale * a1, inside & visible(there, position0 + 1u));
        let new_top1 = max(top1, subgroupMax(largest(a1)));
        let keep1 = exp(top1 - new_top1);
        top1 = new_top1;
        a1 = weights(a1, top1);
        sum1 = fma(sum1, keep1, total(a1));
        a2 = select(vec4<f32>(LOWEST), p.scale * a2, inside & visible(there, position0 + 2u));
        let new_top2 = max(top2, subgroupMax(largest(a2)));
        let keep2 = exp(top2 - new_top2);
        top2 = new_top2;
        a2 = weights(a2, top2);
        sum2 = fma(sum2, keep2, total(a2));
        a3 = select(vec4<f32>(LOWEST), p.scale * a3, inside & visible(there, position0 + 3u));
        let new_top3 = max(top3, subgroupMax(largest(a3)));
        let keep3 = exp(top3 - new_top3);
        top3 = new_top3;
        a3 = weights(a3, top3);
        sum3 = fma(sum3, keep3, total(a3));
        a4 = select(vec4<f32>(LOWEST), p.scale * a4, inside & visible(there, position0 + 4u));
        let new_top4 = max(top4, subgroupMax(largest(a4)));
        let keep4 = exp(top4 - new_top4);
        top4 = new_top4;
        a4 = weights(a4, top4);
        sum4 = fma(sum4, keep4, total(a4));
        a5 = select(vec4<f32>(LOWEST), p.scale * a5, inside & visible(there, position0 + 5u));
        let new_top5 = max(top5, subgroupMax(largest(a5)));
        let keep5 = exp(top5 - new_top5);
        top5 = new_top5;
        a5 = weights(a5, top5);
        sum5 = fma(sum5, keep5, total(a5));
        a6 = select(vec4<f32>(LOWEST), p.scale * a6, inside & visible(there, position0 + 6u));
        let new_top6 = max(top6, subgroupMax(largest(a6)));
        let keep6 = exp(top6 - new_top6);
        top6 = new_top6;
        a6 = weights(a6, top6);
        sum6 = fma(sum6, keep6, total(a6));
        a7 = select(vec4<f32>(LOWEST), p.scale * a7, inside & visible(there, position0 + 7u));
        let new_top7 = max(top7, subgroupMax(largest(a7)));
        let keep7 = exp(top7 - new_top7);
        top7 = new_top7;
        a7 = weights(a7, top7);
        sum7 = fma(sum7, keep7, total(a7));
        a8 = select(vec4<f32>(LOWEST), p.scale * a8, inside & visible(there, position0 + 8u));
        let new_top8 = max(top8, subgroupMax(largest(a8)));
        let keep8 = exp(top8 - new_top8);
        top8 = new_top8;
        a8 = weights(a8, top8);
        sum8 = fma(sum8, keep8, total(a8));
        a9 = select(vec4<f32>(LOWEST), p.scale * a9, inside & visible(there, position0 + 9u));
        let new_top9 = max(top9, subgroupMax(largest(a9)));
        let keep9 = exp(top9 - new_top9);
        top9 = new_top9;
        a9 = weights(a9, top9);
        sum9 = fma(sum9, keep9, total(a9));
        a10 = select(vec4<f32>(LOWEST), p.scale * a10, inside & visible(there, position0 + 10u));
        let new_top10 = max(top10, subgroupMax(largest(a10)));
        let keep10 = exp(top10 - new_top10);
        top10 = new_top10;
        a10 = weights(a10, top10);
        sum10 = fma(sum10, keep10, total(a10));
        a11 = select(vec4<f32>(LOWEST), p.scale * a11, inside & visible(there, position0 + 11u));
        let new_top11 = max(top11, subgroupMax(largest(a11)));
        let keep11 = exp(top11 - new_top11);
        top11 = new_top11;
        a11 = weights(a11, top11);
        sum11 = fma(sum11, keep11, total(a11));
        a12 = select(vec4<f32>(LOWEST), p.scale * a12, inside & visible(there, position0 + 12u));
        let new_top12 = max(top12, subgroupMax(largest(a12)));
        let keep12 = exp(top12 - new_top12);
        top12 = new_top12;
        a12 = weights(a12, top12);
        sum12 = fma(sum12, keep12, total(a12));
        a13 = select(vec4<f32>(LOWEST), p.scale * a13, inside & visible(there, position0 + 13u));
        let new_top13 = max(top13, subgroupMax(largest(a13)));
        let keep13 = exp(top13 - new_top13);
        top13 = new_top13;
        a13 = weights(a13, top13);
        sum13 = fma(sum13, keep13, total(a13));
        a14 = select(vec4<f32>(LOWEST), p.scale * a14, inside & visible(there, position0 + 14u));
        let new_top14 = max(top14, subgroupMax(largest(a14)));
        let keep14 = exp(top14 - new_top14);
        top14 = new_top14;
        a14 = weights(a14, top14);
        sum14 = fma(sum14, keep14, total(a14));
        a15 = select(vec4<f32>(LOWEST), p.scale * a15, inside & visible(there, position0 + 15u));
        let new_top15 = max(top15, subgroupMax(largest(a15)));
        let keep15 = exp(top15 - new_top15);
        top15 = new_top15;
        a15 = weights(a15, top15);
        sum15 = fma(sum15, keep15, total(a15));
        let groups = (min(32u, end - key0) + 7u) / 8u;
        for (var d0 = 0u; d0 < p.dim4; d0 += 8u) {
            // Lanes past the last column repeat it and do not write it.
            let v_at = kv_dim4 + kv_head + min(d0 + lane, p.dim4 - 1u);
            let sums_at = d0 + lane;
            var o0 = keep0 * sums[sums_at];
            var o1 = keep1 * sums[32u + sums_at];
            var o2 = keep2 * sums[64u + sums_at];
            var o3 = keep3 * sums[96u + sums_at];
            var o4 = keep4 * sums[128u + sums_at];
            var o5 = keep5 * sums[160u + sums_at];
            var o6 = keep6 * sums[192u + sums_at];
            var o7 = keep7 * sums[224u + sums_at];
            var o8 = keep8 * sums[256u + sums_at];
            var o9 = keep9 * sums[288u + sums_at];
            var o10 = keep10 * sums[320u + sums_at];
            var o11 = keep11 * sums[352u + sums_at];
            var o12 = keep12 * sums[384u + sums_at];
            var o13 = keep13 * sums[416u + sums_at];
            var o14 = keep14 * sums[448u + sums_at];
            var o15 = keep15 * sums[480u + sums_at];
            for (var c = 0u; c < groups; c++) {
                let w0 = a0[c];
                let w1 = a1[c];
                let w2 = a2[c];
                let w3 = a3[c];
                let w4 = a4[c];
                let w5 = a5[c];
                let w6 = a6[c];
                let w7 = a7[c];
                let w8 = a8[c];
                let w9 = a9[c];
                let w10 = a10[c];
                let w11 = a11[c];
                let w12 = a12[c];
                let w13 = a13[c];
                let w14 = a14[c];
                let w15 = a15[c];
                let key = key0 + 8u * c;
                let v0 = kv[min(key, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 0u)), v0, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 0u)), v0, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 0u)), v0, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 0u)), v0, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 0u)), v0, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 0u)), v0, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 0u)), v0, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 0u)), v0, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 0u)), v0, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 0u)), v0, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 0u)), v0, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 0u)), v0, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 0u)), v0, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 0u)), v0, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 0u)), v0, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 0u)), v0, o15);
                let v1 = kv[min(key + 1u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 1u)), v1, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 1u)), v1, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 1u)), v1, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 1u)), v1, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 1u)), v1, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 1u)), v1, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 1u)), v1, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 1u)), v1, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 1u)), v1, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 1u)), v1, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 1u)), v1, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 1u)), v1, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 1u)), v1, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 1u)), v1, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 1u)), v1, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 1u)), v1, o15);
                let v2 = kv[min(key + 2u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 2u)), v2, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 2u)), v2, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 2u)), v2, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 2u)), v2, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 2u)), v2, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 2u)), v2, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 2u)), v2, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 2u)), v2, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 2u)), v2, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 2u)), v2, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 2u)), v2, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 2u)), v2, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 2u)), v2, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 2u)), v2, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 2u)), v2, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 2u)), v2, o15);
                let v3 = kv[min(key + 3u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 3u)), v3, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 3u)), v3, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 3u)), v3, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 3u)), v3, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 3u)), v3, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 3u)), v3, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 3u)), v3, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 3u)), v3, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 3u)), v3, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 3u)), v3, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 3u)), v3, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 3u)), v3, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 3u)), v3, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 3u)), v3, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 3u)), v3, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 3u)), v3, o15);
                let v4 = kv[min(key + 4u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 4u)), v4, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 4u)), v4, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 4u)), v4, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 4u)), v4, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 4u)), v4, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 4u)), v4, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 4u)), v4, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 4u)), v4, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 4u)), v4, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 4u)), v4, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 4u)), v4, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 4u)), v4, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 4u)), v4, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 4u)), v4, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 4u)), v4, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 4u)), v4, o15);
                let v5 = kv[min(key + 5u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 5u)), v5, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 5u)), v5, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 5u)), v5, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 5u)), v5, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 5u)), v5, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 5u)), v5, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 5u)), v5, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 5u)), v5, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 5u)), v5, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 5u)), v5, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 5u)), v5, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 5u)), v5, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 5u)), v5, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 5u)), v5, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 5u)), v5, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 5u)), v5, o15);
                let v6 = kv[min(key + 6u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 6u)), v6, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 6u)), v6, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 6u)), v6, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 6u)), v6, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 6u)), v6, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 6u)), v6, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 6u)), v6, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 6u)), v6, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 6u)), v6, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 6u)), v6, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 6u)), v6, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 6u)), v6, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 6u)), v6, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 6u)), v6, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 6u)), v6, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 6u)), v6, o15);
                let v7 = kv[min(key + 7u, end - 1u) * 2u * kv_dim4 + v_at];
                o0 = fma(vec4<f32>(subgroupBroadcast(w0, 7u)), v7, o0);
                o1 = fma(vec4<f32>(subgroupBroadcast(w1, 7u)), v7, o1);
                o2 = fma(vec4<f32>(subgroupBroadcast(w2, 7u)), v7, o2);
                o3 = fma(vec4<f32>(subgroupBroadcast(w3, 7u)), v7, o3);
                o4 = fma(vec4<f32>(subgroupBroadcast(w4, 7u)), v7, o4);
                o5 = fma(vec4<f32>(subgroupBroadcast(w5, 7u)), v7, o5);
                o6 = fma(vec4<f32>(subgroupBroadcast(w6, 7u)), v7, o6);
                o7 = fma(vec4<f32>(subgroupBroadcast(w7, 7u)), v7, o7);
                o8 = fma(vec4<f32>(subgroupBroadcast(w8, 7u)), v7, o8);
                o9 = fma(vec4<f32>(subgroupBroadcast(w9, 7u)), v7, o9);
                o10 = fma(vec4<f32>(subgroupBroadcast(w10, 7u)), v7, o10);
                o11 = fma(vec4<f32>(subgroupBroadcast(w11, 7u)), v7, o11);
                o12 = fma(vec4<f32>(subgroupBroadcast(w12, 7u)), v7, o12);
                o13 = fma(vec4<f32>(subgroupBroadcast(w13, 7u)), v7, o13);
                o14 = fma(vec4<f32>(subgroupBroadcast(w14, 7u)), v7, o14);
                o15 = fma(vec4<f32>(subgroupBroadcast(w15, 7u)), v7, o15);
            }
            sums[sums_at] = o0;
            sums[32u + sums_at] = o1;
            sums[64u + sums_at] = o2;
            sums[96u + sums_at] = o3;
            sums[128u + sums_at] = o4;
            sums[160u + sums_at] = o5;
            sums[192u + sums_at] = o6;
            sums[224u + sums_at] = o7;
            sums[256u + sums_at] = o8;
            sums[288u + sums_at] = o9;
            sums[320u + sums_at] = o10;
            sums[352u + sums_at] = o11;
            sums[384u + sums_at] = o12;
            sums[416u + sums_at] = o13;
            sums[448u + sums_at] = o14;
            sums[480u + sums_at] = o15;
        }
    }
    put(row0 + 0u, query0, head, lane, top0, subgroupAdd(sum0));
    put(row0 + 1u, query0, head, lane, top1, subgroupAdd(sum1));
    put(row0 + 2u, query0, head, lane, top2, subgroupAdd(sum2));
    put(row0 + 3u, query0, head, lane, top3, subgroupAdd(sum3));
    put(row0 + 4u, query0, head, lane, top4, subgroupAdd(sum4));
    put(row0 + 5u, query0, head, lane, top5, subgroupAdd(sum5));
    put(row0 + 6u, query0, head, lane, top6, subgroupAdd(sum6));
    put(row0 + 7u, query0, head, lane, top7, subgroupAdd(sum7));
    put(row0 + 8u, query0, head, lane, top8, subgroupAdd(sum8));
    put(row0 + 9u, query0, head, lane, top9, subgroupAdd(sum9));
    put(row0 + 10u, query0, head, lane, top10, subgroupAdd(sum10));
    put(row0 + 11u, query0, head, lane, top11, subgroupAdd(sum11));
    put(row0 + 12u, query0, head, lane, top12, subgroupAdd(sum12));
    put(row0 + 13u, query0, head, lane, top13, subgroupAdd(sum13));
    put(row0 + 14u, query0, head, lane, top14, subgroupAdd(sum14));
    put(row0 + 15u, query0, head, lane, top15, subgroupAdd(sum15));
}
