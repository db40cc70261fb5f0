// The entropy of what each row of logits says, -sum p log p in nats, from what log_softmax.wgsl says of the row: with d = logit - max it is
//   log sum exp(d) - sum exp(d) d / sum exp(d)
// One workgroup a row.
struct Params {
    rows: u32,
    n: u32, // logits of a row; with workgroups of one lane, below 32768 (forms.rs, `Reduce::OneLane`)
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
        // Below this exp is 0, and the product with a d of any size is to be 0 too.
        let d = max(logits[row * p.n + i] - log_of.x, -100.0);
        sum.x += exp_accurate(d) * d;
    }
    sum = workgroup_sum(sum);
    if lane == 0u {
        out[row] = log_of.y - sum.x * exp_accurate(-log_of.y);
    }
}
