// The divergence of the softmax p of a row of logits from target probabilities t, sum t log(t / p), and its gradient by
// the logits, scale (p - t), which replaces t. Rows without a place (see next_ids.wgsl) contribute nothing. One
// workgroup per row.
struct Params {
    rows: u32,
    n: u32,     // logits of a row, below 32768 in the single-lane variant (`Reduce::SingleLane`)
    scale: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // [rows, n]
@group(0) @binding(2) var<storage, read> logs: array<vec4<f32>>;      // [rows, 4] of log_softmax
@group(0) @binding(3) var<storage, read> place: array<vec2<u32>>;     // [rows, 2]
@group(0) @binding(4) var<storage, read_write> target_p: array<f32>;  // [rows, n]: t in, the gradient out
@group(0) @binding(5) var<storage, read_write> divergence: array<f32>; // [rows]

const NOWHERE: u32 = 0xffffffffu;

fn run(group: vec3<u32>, lane: u32) {
    let row = group.x;
    if halted(row) {
        return;
    }
    let first = row * p.n;
    if place[row].y == NOWHERE {
        for (var i = lane; i < p.n; i += WORKGROUP) {
            target_p[first + i] = 0.0;
        }
        if lane == 0u {
            divergence[row] = 0.0;
        }
        return;
    }
    var sum = vec4<f32>();
    for (var i = lane; i < p.n; i += WORKGROUP) {
        let l = (logits[first + i] - logs[row].x) - logs[row].y;
        let t = target_p[first + i];
        if t > 0.0 {
            sum.x += t * (log(t) - l);
        }
        target_p[first + i] = p.scale * (exp_accurate(l) - t);
    }
    sum = workgroup_sum(sum);
    if lane == 0u {
        divergence[row] = sum.x;
    }
}
