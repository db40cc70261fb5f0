// The gradients of the mLSTM gates (docs/model.md, "Local layer (mLSTM)"), last row first. One workgroup per head and
// sequence: its lanes load 64 rows, lane 0 computes the running sums, and all lanes finish from those sums.
// Source row s has weight exp(F_t - F_s + ig_s) in row t, where F is the running sum of lf = logsigmoid(fg) over the
// sequence. Therefore
//   d ig_s = k_s · dk_s,  dF_t = q_t · dq_t - k_t · dk_t,  d lf_u = Σ_{t ≥ u} dF_t,
// and the chain rule through logsigmoid and the soft cap gives the gradients of the pre-activations. The stabilizer
// cancels. A sequence must have fewer than 64000 rows: Mesa's CPU driver silently ends a lane's loops after 65535
// iterations in total.
struct Params {
    rows: u32,
    heads: u32,
    stride: u32,   // row stride of x and dx
    i_offset: u32, // offset of head 0's input gate in a row of x and dx
    f_offset: u32, // offset of head 0's forget gate
    cap: f32,      // soft cap of both pre-activations: cap tanh(x / cap); 0: no cap
    period: u32,   // rows of a sequence, below 64000; the last sequence may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at i_offset, f_offset, stride
@group(0) @binding(2) var<storage, read> dots: array<vec2<f32>>;      // [rows, heads] of q · dq, k · dk
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;        // [rows, ...] at i_offset, f_offset, stride

fn cap(x: f32) -> f32 {
    if p.cap == 0.0 {
        return x;
    }
    return p.cap * tanh_accurate(x / p.cap);
}

// The derivative of cap at x, 1 - tanh², in a form without cancellation.
fn slope(x: f32) -> f32 {
    if p.cap == 0.0 {
        return 1.0;
    }
    let t = exp_accurate(-2.0 * abs(x / p.cap));
    return 4.0 * t / ((1.0 + t) * (1.0 + t));
}

// Returns v. The compiler cannot know that there are fewer than 2^31 rows, so it cannot simplify (a + b) - a to b,
// which would remove the compensation term.
fn opaque(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ (p.rows >> 31u));
}

// Adds v to a compensated sum (sum, lost low-order part).
fn plus(sum: vec2<f32>, v: f32) -> vec2<f32> {
    let s = opaque(sum.x + v);
    let added = opaque(s - sum.x);
    let before = opaque(s - added);
    return vec2<f32>(s, sum.y + ((sum.x - before) + (v - added)));
}

const ROWS: u32 = 64u;
var<workgroup> of_row: array<vec2<f32>, ROWS>; // per row, last row first: q · dq, k · dk
var<workgroup> sums: array<f32, ROWS>;         // per row: d lf

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let first = group.y * p.period;
    let count = min(first + p.period, p.rows) - first;
    // The state that lane 0 carries from row to row.
    var sum = vec2<f32>();
    for (var done = 0u; done < count; done += ROWS) {
        let here = done + lane < count;
        let t = first + count - 1u - min(done + lane, count - 1u);
        let dot = dots[t * p.heads + head];
        of_row[lane] = dot;
        workgroupBarrier();
        if lane == 0u {
            let rows = min(ROWS, count - done);
            for (var row = 0u; row < rows; row++) {
                sum = plus(plus(sum, of_row[row].x), -of_row[row].y);
                sums[row] = sum.x + sum.y;
            }
        }
        workgroupBarrier();
        if here {
            let i = t * p.stride + p.i_offset + head;
            let f = t * p.stride + p.f_offset + head;
            dx[i] = dot.y * slope(x[i]);
            dx[f] = sums[lane] / (1.0 + exp_accurate(cap(x[f]))) * slope(x[f]);
        }
    }
}
