// The gradients of an mLSTM's gates (SPEC 4), row after row, last one first. One lane a head of a sequence.
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
    period: u32,   // rows of a sequence, below 65536, where Mesa's driver for CPUs ends a lane's loop; the last one may have fewer
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

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let head = id.x;
    if head >= p.heads {
        return;
    }
    let first = id.y * p.period;
    let end = min(first + p.period, p.rows);
    var sum = vec2<f32>();
    for (var left = end - first; left > 0u; left--) {
        let t = first + left - 1u;
        let dot = dots[t * p.heads + head];
        sum = plus(plus(sum, dot.x), -dot.y);
        let i = t * p.stride + p.i_offset + head;
        let f = t * p.stride + p.f_offset + head;
        dx[i] = dot.y * slope(x[i]);
        dx[f] = (sum.x + sum.y) / (1.0 + exp_accurate(cap(x[f]))) * slope(x[f]);
    }
}
