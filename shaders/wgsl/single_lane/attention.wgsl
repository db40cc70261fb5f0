// Softmax attention of a few queries over one segment of the KV cache, one lane per query and head (online softmax,
// arXiv 2205.14135): for adapters on CPUs without subgroups, where a barrier costs more than the loads that lanes could
// share. The grid is (queries times heads) by 1 by sequences; the segments of the sequences are contiguous. Keys are
// processed eight at a time: first their scores in registers, then one update of the output for all eight.
struct Params {
    count: u32,        // queries of a sequence
    heads: u32,
    heads_per_kv: u32, // query heads that share a key/value head
    dim4: u32,         // head width / 4
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

@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.count * p.heads {
        return;
    }
    let item = id.z * p.count * p.heads + id.x;
    let position = p.query_first + id.x / p.heads;
    let kv_dim4 = p.heads / p.heads_per_kv * p.dim4;
    let kv_head = id.z * p.keys * 2u * kv_dim4 + id.x % p.heads / p.heads_per_kv * p.dim4;
    let at = item * p.dim4;

    // The rows of the segment that the query sees.
    var first = 0u;
    if p.window != 0u && position + 1u > p.window + p.key_first {
        first = position + 1u - p.window - p.key_first;
    }
    var last = 0u;
    if position + 1u > p.key_first {
        last = min(p.keys, position + 1u - p.key_first);
    }

    var top = LOWEST;
    var sum = 0.0;
    // Whether o has not been written yet.
    var fresh = p.begin != 0u;
    if !fresh {
        let before = running[item];
        top = before.x;
        sum = before.y;
    }
    for (var key = first; key < last; key += 8u) {
        // Rows past the last one repeat it and get a weight of 0.
        let low_keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
        let high_keys = low_keys + 4u;
        let low_rows = min(low_keys, vec4<u32>(last - 1u)) * 2u * kv_dim4 + kv_head;
        let high_rows = min(high_keys, vec4<u32>(last - 1u)) * 2u * kv_dim4 + kv_head;
        var t0 = vec4<f32>();
        var t1 = vec4<f32>();
        var t2 = vec4<f32>();
        var t3 = vec4<f32>();
        var t4 = vec4<f32>();
        var t5 = vec4<f32>();
        var t6 = vec4<f32>();
        var t7 = vec4<f32>();
        for (var d = 0u; d < p.dim4; d++) {
            let v = q[at + d];
            t0 += v * kv[low_rows.x + d];
            t1 += v * kv[low_rows.y + d];
            t2 += v * kv[low_rows.z + d];
            t3 += v * kv[low_rows.w + d];
            t4 += v * kv[high_rows.x + d];
            t5 += v * kv[high_rows.y + d];
            t6 += v * kv[high_rows.z + d];
            t7 += v * kv[high_rows.w + d];
        }
        let one = vec4<f32>(p.scale);
        let low_there = low_keys < vec4<u32>(last);
        let high_there = high_keys < vec4<u32>(last);
        let low_scores = vec4<f32>(dot(t0, one), dot(t1, one), dot(t2, one), dot(t3, one));
        let high_scores = vec4<f32>(dot(t4, one), dot(t5, one), dot(t6, one), dot(t7, one));
        let low = select(vec4<f32>(LOWEST), low_scores, low_there);
        let high = select(vec4<f32>(LOWEST), high_scores, high_there);
        let most = max(low, high);
        let new_top = max(max(top, max(most.x, most.y)), max(most.z, most.w));
        let keep = exp(top - new_top);
        let low_weights = select(vec4<f32>(), exp(low - new_top), low_there);
        let high_weights = select(vec4<f32>(), exp(high - new_top), high_there);
        top = new_top;
        sum = sum * keep + dot(low_weights + high_weights, vec4<f32>(1.0));
        for (var d = 0u; d < p.dim4; d++) {
            let column = kv_dim4 + d;
            var v = low_weights.x * kv[low_rows.x + column] + low_weights.y * kv[low_rows.y + column]
                + low_weights.z * kv[low_rows.z + column] + low_weights.w * kv[low_rows.w + column]
                + high_weights.x * kv[high_rows.x + column] + high_weights.y * kv[high_rows.y + column]
                + high_weights.z * kv[high_rows.z + column] + high_weights.w * kv[high_rows.w + column];
            if !fresh {
                v += keep * o[at + d];
            }
            o[at + d] = v;
        }
        fresh = false;
    }
    running[item] = vec2<f32>(top, sum);
    if fresh || p.end != 0u {
        for (var d = 0u; d < p.dim4; d++) {
            if fresh {
                o[at + d] = vec4<f32>();
            } else {
                o[at + d] /= sum;
            }
        }
    }
}
