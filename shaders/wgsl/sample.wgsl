// Samples the next id from the logits and prepares the inputs of the next byte on the device (docs/model.md,
// "Decoding"), so that several decode steps can be recorded at once. The rules are those of `Sampler` in the runtime,
// which computes in f64 on the host; sums here are in f32. One workgroup.
//
// A candidate is a byte or, at index 256, the end of the text. Each candidate has a plain and a fused id.
// After a choice that ends the patch, the text, a stop string or the budget, control[0] halts all later guarded
// dispatches.
//
// stops holds the number of stop strings, an offset and a length for each, then their bytes.
// trie holds [nodes + 1] first edges, [nodes] terminals and [edges] labels.
// control holds halt, chosen, taken, budget, ids, fault and two unused words, then the chosen ids.
struct Params {
    temperature: f32,     // 0: greedy decoding
    top_p: f32,           // 1: disabled
    min_p: f32,           // 0: disabled
    penalty: f32,         // repetition penalty - 1; 0: disabled
    boundary_bias: f32,   // added to the logits of all fused ids
    top_k: u32,           // at most 257, which disables it
    window: u32,          // recent ids that the penalty applies to
    flags: u32,           // 0: plain and fused compete; 1: always plain, 2: always fused (for benchmarks)
    nodes: u32,           // of the trie; 0: no trie
    max_len: u32,         // longest entry of the trie
    ring: u32,            // length of history
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;         // [520]
@group(0) @binding(2) var<storage, read> bias: array<f32>;           // [257], added to both ids; below -1e38: forbidden
@group(0) @binding(3) var<storage, read> random: array<vec2<f32>>;   // [steps] in [0, 1): byte, fused or plain
@group(0) @binding(4) var<storage, read> stops: array<u32>;          // [1 + 2 count + bytes], see above
@group(0) @binding(5) var<storage, read> trie: array<u32>;           // [nodes + 1 + nodes + edges], see above
@group(0) @binding(6) var<storage, read_write> control: array<u32>;  // [8 + steps], see above
@group(0) @binding(7) var<storage, read_write> history: array<u32>;  // [ring], plain id of position i at i % ring
@group(0) @binding(8) var<storage, read_write> next: array<u32>;     // [65], next plain id at 0, its suffix at 64

const CANDIDATES: u32 = 257u;
const END: u32 = 256u;
const END_ID: u32 = 1u;
const BPE_END_ID: u32 = 3u; // skipped in suffix look-ups
const OFFSET: u32 = 4u;     // id of byte 0
const FUSED: u32 = 260u;
const IDS: u32 = 520u;
const LOWEST: f32 = -3.0e38;
const RULED_OUT: f32 = -1.0e38;
const NONE: u32 = 0xffffffffu;

// Lanes of the workgroup: 64 or 1.
override LANES: u32 = 64u;

var<workgroup> pairs: array<vec2<f32>, 257>;  // [candidates], adjusted logits of the plain and the fused id
var<workgroup> weight: array<f32, 257>;       // [candidates], logarithm of the total weight of both ids
var<workgroup> order: array<u32, 257>;        // [candidates], by descending weight
var<workgroup> share: array<f32, 257>;        // [candidates], weights in that order, relative to the first
var<workgroup> seen: array<u32, 256>;         // [bytes]
var<workgroup> lane_value: array<f32, 64>;    // [LANES]
var<workgroup> lane_id: array<u32, 64>;       // [LANES]
var<workgroup> halted_before: u32;
var<workgroup> chosen: u32;
var<workgroup> fault: atomic<u32>;
var<workgroup> stopped: atomic<u32>;
var<workgroup> kept: atomic<u32>;

fn id_of(candidate: u32) -> u32 {
    return select(OFFSET + candidate, END_ID, candidate == END);
}

// A logit; minus infinity (a probability of 0) becomes a finite number.
fn logit(id: u32) -> f32 {
    return max(logits[id], LOWEST);
}

fn is_faulty(v: f32) -> bool {
    let bits = bitcast<u32>(v);
    return (bits & 0x7f800000u) == 0x7f800000u && bits != 0xff800000u;
}

fn log_add_exp(a: f32, b: f32) -> f32 {
    let high = max(a, b);
    return high + log1p_accurate(exp_accurate(min(a, b) - high));
}

// The maximum of a value over the lanes. Must be called in uniform control flow.
fn max_over_lanes(lane: u32, v: f32) -> f32 {
    lane_value[lane] = v;
    workgroupBarrier();
    var most = lane_value[0];
    for (var i = 1u; i < LANES; i++) {
        most = max(most, lane_value[i]);
    }
    workgroupBarrier();
    return most;
}

fn sum_over_lanes(lane: u32, v: f32) -> f32 {
    lane_value[lane] = v;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) {
        sum += lane_value[i];
    }
    workgroupBarrier();
    return sum;
}

// The logarithm of the sum of exp(logit) over all ids. Must be called in uniform control flow.
fn log_total(lane: u32) -> f32 {
    var most = LOWEST;
    for (var id = lane; id < IDS; id += LANES) {
        most = max(most, logit(id));
    }
    most = max_over_lanes(lane, most);
    var sum = 0.0;
    for (var id = lane; id < IDS; id += LANES) {
        sum += exp_accurate(logit(id) - most);
    }
    return most + log(sum_over_lanes(lane, sum));
}

// The id with the highest adjusted logit; the lowest id wins ties. Must be called in uniform control flow.
fn greedy(lane: u32) -> u32 {
    var value = RULED_OUT;
    var id = NONE;
    for (var candidate = lane; candidate < CANDIDATES; candidate += LANES) {
        let pair = pairs[candidate];
        let plain = id_of(candidate);
        if pair.x > value || (pair.x == value && plain < id) {
            value = pair.x;
            id = plain;
        }
        if pair.y > value || (pair.y == value && plain + FUSED < id) {
            value = pair.y;
            id = plain + FUSED;
        }
    }
    lane_value[lane] = value;
    lane_id[lane] = id;
    workgroupBarrier();
    for (var i = 0u; i < LANES; i++) {
        if lane_value[i] > value || (lane_value[i] == value && lane_id[i] < id) {
            value = lane_value[i];
            id = lane_id[i];
        }
    }
    workgroupBarrier();
    return id;
}

// 1 if `other` precedes `candidate`: by descending weight, then by id.
fn before(other: u32, candidate: u32) -> u32 {
    let v = weight[other];
    let w = weight[candidate];
    return select(0u, 1u, v > w || (v == w && id_of(other) < id_of(candidate)));
}

// An id drawn by weight: first the candidate, then plain or fused. The result is valid in lane 0. Must be called in
// uniform control flow.
fn draw(lane: u32, numbers: vec2<f32>) -> u32 {
    var most = LOWEST;
    for (var candidate = lane; candidate < CANDIDATES; candidate += LANES) {
        let w = log_add_exp(pairs[candidate].x, pairs[candidate].y);
        weight[candidate] = w;
        most = max(most, w);
    }
    most = max_over_lanes(lane, most);
    for (var candidate = lane; candidate < CANDIDATES; candidate += LANES) {
        let w = weight[candidate];
        if w > RULED_OUT {
            // Four at a time: a single lane must stay below 65535 loop iterations (`Reduce::SingleLane`).
            var rank = before(END, candidate);
            for (var other = 0u; other < END; other += 4u) {
                rank += before(other, candidate) + before(other + 1u, candidate);
                rank += before(other + 2u, candidate) + before(other + 3u, candidate);
            }
            order[rank] = candidate;
            share[rank] = exp_accurate((w - most) / p.temperature);
            atomicAdd(&kept, 1u);
        }
    }
    workgroupBarrier();
    var id = NONE;
    if lane == 0u {
        var count = min(atomicLoad(&kept), p.top_k);
        if p.top_p < 1.0 {
            var wanted = 0.0;
            for (var i = 0u; i < count; i++) {
                wanted += share[i];
            }
            wanted *= p.top_p;
            var sum = 0.0;
            var enough = 0u;
            while enough < count && sum < wanted {
                sum += share[enough];
                enough++;
            }
            count = enough;
        }
        var total = 0.0;
        var some = 0u;
        while some < count && share[some] >= p.min_p {
            total += share[some];
            some++;
        }
        if some > 0u {
            var rest = numbers.x * total;
            var at = 0u;
            while at < some - 1u {
                rest -= share[at];
                if rest < 0.0 {
                    break;
                }
                at++;
            }
            let candidate = order[at];
            let pair = pairs[candidate];
            let is_fused = numbers.y < 1.0 / (1.0 + exp_accurate(pair.x - pair.y));
            id = id_of(candidate) + select(0u, FUSED, is_fused);
        }
    }
    return id;
}

// The chosen id, so that lanes need not wait for the write to history.
var<private> newest: u32 = NONE;

// The id `back` positions before the last of `ids` ids. The last one is `newest`, if that is set.
fn past(ids: u32, back: u32) -> u32 {
    if back == 0u && newest != NONE {
        return newest;
    }
    return history[(ids - 1u - back) % p.ring];
}

// The row of the longest subword that ends at the last of `ids` ids, or NONE.
fn suffix(ids: u32) -> u32 {
    let terminals = p.nodes + 1u;
    let labels = terminals + p.nodes;
    var node = 0u;
    var longest = NONE;
    var depth = 0u;
    let reach = min(ids, p.ring);
    for (var back = 0u; back < reach && depth < p.max_len; back++) {
        let label = past(ids, back);
        if label == BPE_END_ID {
            continue;
        }
        depth++;
        var low = trie[node];
        var high = trie[node + 1u];
        let end = high;
        while low < high {
            let middle = (low + high) / 2u;
            if trie[labels + middle] < label {
                low = middle + 1u;
            } else {
                high = middle;
            }
        }
        if low == end || trie[labels + low] != label {
            break;
        }
        // Nodes are numbered in the order of the edges that lead to them.
        node = low + 1u;
        let terminal = trie[terminals + node];
        if terminal != NONE {
            longest = terminal;
        }
    }
    return longest;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        halted_before = control[0];
        atomicStore(&fault, 0u);
        atomicStore(&stopped, 0u);
        atomicStore(&kept, 0u);
    }
    for (var byte = lane; byte < 256u; byte += LANES) {
        seen[byte] = 0u;
    }
    if workgroupUniformLoad(&halted_before) != 0u {
        return;
    }
    let step = control[1];
    let ids = control[4];

    // The adjusted logits of all candidates.
    for (var id = lane; id < IDS; id += LANES) {
        if is_faulty(logits[id]) {
            atomicStore(&fault, 1u);
        }
    }
    var total = 0.0;
    if p.penalty != 0.0 {
        for (var back = lane; back < min(p.window, ids); back += LANES) {
            let id = past(ids, back);
            if id >= OFFSET {
                seen[id - OFFSET] = 1u;
            }
        }
        total = log_total(lane);
    }
    workgroupBarrier();
    for (var candidate = lane; candidate < CANDIDATES; candidate += LANES) {
        let id = id_of(candidate);
        let raw = vec2<f32>(logit(id), logit(id + FUSED));
        var pair = vec2<f32>(LOWEST);
        if bias[candidate] > RULED_OUT {
            pair = max(raw + bias[candidate] + vec2<f32>(0.0, p.boundary_bias), vec2<f32>(LOWEST));
            if p.penalty != 0.0 && candidate < END && seen[candidate % 256u] != 0u {
                let both = log_add_exp(raw.x, raw.y);
                if both > RULED_OUT {
                    pair += (both - total) * p.penalty;
                }
            }
        }
        pairs[candidate] = pair;
    }
    workgroupBarrier();

    var id = NONE;
    if p.temperature == 0.0 {
        id = greedy(lane);
    } else {
        id = draw(lane, random[step]);
    }
    if lane == 0u {
        if id != NONE && p.flags != 0u {
            id = id % FUSED + select(0u, FUSED, p.flags == 2u);
        }
        if id == NONE || atomicLoad(&fault) != 0u {
            // The host inspects the logits and reports the error.
            control[0] = 1u;
            control[5] = 1u;
            id = NONE;
        } else if id % FUSED != END_ID {
            history[ids % p.ring] = id % FUSED;
        }
        chosen = id;
    }
    let taken = control[2];
    let made = workgroupUniformLoad(&chosen);
    if made == NONE {
        return;
    }
    newest = made % FUSED;
    // Whether a stop string ends here, all of its bytes generated.
    if made % FUSED != END_ID {
        for (var stop = lane; stop < stops[0]; stop += LANES) {
            let at = stops[1u + 2u * stop];
            let length = stops[2u + 2u * stop];
            var same = length <= taken + 1u;
            for (var i = 0u; i < length && same; i++) {
                same = past(ids + 1u, i) == OFFSET + stops[at + length - 1u - i];
            }
            if same {
                atomicStore(&stopped, 1u);
            }
        }
    }
    workgroupBarrier();
    if lane == 0u {
        control[8u + step] = made;
        control[1] = step + 1u;
        if made % FUSED == END_ID {
            control[0] = 1u;
        } else {
            control[2] = taken + 1u;
            control[4] = ids + 1u;
            if made >= FUSED || taken + 1u >= control[3] || atomicLoad(&stopped) != 0u {
                control[0] = 1u;
            }
            next[0] = made % FUSED;
            if p.nodes != 0u {
                let row = suffix(ids + 1u);
                next[64] = row;
                if row == NONE {
                    control[0] = 1u;
                    control[5] = 2u;
                }
            }
        }
    }
}
