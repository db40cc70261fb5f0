// The entropy of the softmax of each row of logits, -sum p log p in nats, from the output of log_softmax.wgsl. With
// d = logit - max it is
//   log sum exp(d) - sum exp(d) d / sum exp(d)
// One workgroup per row.
struct Params {
    rows: u32,
    n: u32, // logits of a row, below 32768 in the single-lane variant (`Reduce::SingleLane`)
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;       // [rows, n]
@group(0) @binding(2) var<storage, read> logs: array<vec4<f32>>;   // [rows, 4] of log_softmax
@group(0) @binding(3) var<storage, read_write> out: array<f32>;    // [rows]

fn run(group: vec3<u32>, lane: u32) {
    let row = group.x;
    if halted(row) {
        return;
    }
    let log_of = logs[row];
    var sum = vec4<f32>();
    for (var i = lane; i < p.n; i += WORKGROUP) {
        // exp is 0 below this bound; clamping d keeps the product 0 however large |d| is.
        let d = max(logits[row * p.n + i] - log_of.x, -100.0);
        sum.x += exp_accurate(d) * d;
    }
    sum = workgroup_sum(sum);
    if lane == 0u {
        out[row] = log_of.y - sum.x * exp_accurate(-log_of.y);
    }
}
