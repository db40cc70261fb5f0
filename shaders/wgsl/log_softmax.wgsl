// The log-probabilities that losses over logits need: log sum exp(logit - max) of a row, the log-probability of the
// label, and the log-probability that the id belongs to a set. The maximum and the logarithm of the sum are kept apart:
// added up, they would lose precision when the logits are large. log p(label) is 0 for a row without a label. One
// workgroup per row.
struct Params {
    rows: u32,
    n: u32,      // logits of a row, below 32768 in the single-lane variant (`Reduce::SingleLane`)
    stride: u32, // row stride of the logits
    offset: u32, // offset of row 0
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // [rows, n] at offset, stride
@group(0) @binding(2) var<storage, read> label: array<u32>;           // [rows], n or above: no label
@group(0) @binding(3) var<storage, read> members: array<u32>;         // [n], 1: in the set
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [rows, 4]: max, log sum, log p of label and set

// log p(set) of an empty set, and the initial value of a maximum.
const LOWEST: f32 = -3.0e38;

// The logarithm of a sum of exp(logit - max), given the number of logits equal to the maximum and the sum over the
// others. Where one logit is far above the rest, the others carry the whole result.
fn log_of(at_max: f32, others: f32) -> f32 {
    let sum = at_max + others;
    if sum <= 2.0 {
        return log1p_accurate((at_max - 1.0) + others);
    }
    return log(sum);
}

fn run(group: vec3<u32>, lane: u32) {
    let row = group.x;
    if halted(row) {
        return;
    }
    let first = p.offset + row * p.stride;
    // Maxima over all ids (x) and over the set (y).
    var most = vec4<f32>(LOWEST);
    for (var i = lane; i < p.n; i += WORKGROUP) {
        let l = logits[first + i];
        most.x = max(most.x, l);
        if members[i] != 0u {
            most.y = max(most.y, l);
        }
    }
    most = workgroup_max(most);
    // Over all ids: the count of the maximum (x) and the sum over the others (y); over the set: the same (z, w).
    var sums = vec4<f32>();
    for (var i = lane; i < p.n; i += WORKGROUP) {
        let l = logits[first + i];
        if l == most.x {
            sums.x += 1.0;
        } else {
            sums.y += exp_accurate(l - most.x);
        }
        if members[i] != 0u {
            if l == most.y {
                sums.z += 1.0;
            } else {
                sums.w += exp_accurate(l - most.y);
            }
        }
    }
    sums = workgroup_sum(sums);
    if lane == 0u {
        let log_sum = log_of(sums.x, sums.y);
        var of_label = 0.0;
        if label[row] < p.n {
            of_label = (logits[first + label[row]] - most.x) - log_sum;
        }
        var of_set = LOWEST;
        if sums.z > 0.0 {
            of_set = (most.y - most.x) + (log_of(sums.z, sums.w) - log_sum);
        }
        out[row] = vec4<f32>(most.x, log_sum, of_label, of_set);
    }
}
