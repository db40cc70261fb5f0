// The gradients of an mLSTM's gates (SPEC 4), row after row, last one first. One workgroup a head of a sequence: its lanes take 64 rows,
// one lane adds them up, and all lanes go on from the sums.
// Source row s weighs exp(F_t - F_s + ig_s) in row t, F the running sum of lf = logsigmoid(fg) over the sequence, so that
//   d ig_s = k_s · dk_s,  dF_t = q_t · dq_t - k_t · dk_t,  d lf_u = Σ_{t ≥ u} dF_t,
// from there through logsigmoid and soft cap to the pre-activations. The stabiliser cancels and has no part in it.
struct Params {
    rows: u32,
    heads: u32,
    stride: u32,   // of a row of x and of dx
    i_offset: u32, // of head 0's input gate in a row of x and of dx
    f_offset: u32, // of head 0's forget gate
    cap: f32,      // soft cap of both pre-activations: cap tanh(x / cap); 0: none
    period: u32,   // rows of a sequence, below 64000 (Mesa's driver for CPUs ends a lane's loops at 65535 turns); the last one may have fewer
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

// The derivative of cap at x: 1 - tanh², in a form without the difference.
fn slope(x: f32) -> f32 {
    if p.cap == 0.0 {
        return 1.0;
    }
    let t = exp_accurate(-2.0 * abs(x / p.cap));
    return 4.0 * t / ((1.0 + t) * (1.0 + t));
}

// v itself, but no compiler can know that there are fewer than 2^31 rows. Drivers cancel (a + b) - a to b where they see it, and with that
// what tells how much a sum has lost.
fn opaque(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ (p.rows >> 31u));
}

// A sum and what its roundings have lost, v added.
fn plus(sum: vec2<f32>, v: f32) -> vec2<f32> {
    let s = opaque(sum.x + v);
    let added = opaque(s - sum.x);
    let before = opaque(s - added);
    return vec2<f32>(s, sum.y + ((sum.x - before) + (v - added)));
}

const ROWS: u32 = 64u;
var<workgroup> of_row: array<vec2<f32>, ROWS>; // of each row, last one first, q · dq and k · dk
var<workgroup> sums: array<f32, ROWS>;         // of each row d lf

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let first = group.y * p.period;
    let count = min(first + p.period, p.rows) - first;
    // What the first lane carries from row to row.
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
