// Gradient of boundary.wgsl: cosine = q . k / (|q| |k|) between q of a byte and k of the next byte, with
// norms of at least 1e-12:
//   dq = dcosine (k / |k| - cosine q / |q|) / |q|, without the second term where |q| is clamped, and dk likewise
// One workgroup per byte: q of a byte enters the cosine with the next byte, k the cosine with the previous byte.
struct Params {
    rows: u32,     // bytes to decide; x has one row more
    dim4: u32,     // width of q and of k, / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [rows + 1, 2, dim] of q, k
@group(0) @binding(2) var<storage, read> dcosine: array<f32>;         // [rows]
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;  // [rows + 1, 2, dim] of dq, dk; overwritten

const LEAST: f32 = 1e-12;

// This lane's part of the dot products a . b, a . a and b . b.
fn products(a0: u32, b0: u32, lane: u32) -> vec4<f32> {
    var ab = vec4<f32>();
    var aa = vec4<f32>();
    var bb = vec4<f32>();
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let a = x[a0 + i];
        let b = x[b0 + i];
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let one = vec4<f32>(1.0);
    return vec4<f32>(dot(ab, one), dot(aa, one), dot(bb, one), 0.0);
}

// Writes the gradient by a. `d` is the gradient by the cosine of a and b, `s` holds their dot products.
fn write(a0: u32, b0: u32, d: f32, s: vec4<f32>, lane: u32) {
    let a_norm = sqrt(s.y);
    let a_factor = 1.0 / max(a_norm, LEAST);
    let b_factor = 1.0 / max(sqrt(s.z), LEAST);
    let turn = select(0.0, s.x * a_factor * b_factor, a_norm > LEAST);
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        dx[a0 + i] = d * a_factor * (x[b0 + i] * b_factor - turn * (x[a0 + i] * a_factor));
    }
}

fn zero(a0: u32, lane: u32) {
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        dx[a0 + i] = vec4<f32>();
    }
}

fn run(group: vec3<u32>, lane: u32) {
    let t = group.x;
    if halted(t) {
        return;
    }
    let q0 = t * 2u * p.dim4;
    let k0 = q0 + p.dim4;
    let next_k0 = k0 + 2u * p.dim4;
    let has_next = t < p.rows;
    let has_last = t > 0u;
    var next = vec4<f32>();
    if has_next {
        next = products(q0, next_k0, lane);
    }
    next = workgroup_sum(next);
    var last = vec4<f32>();
    if has_last {
        last = products(k0, q0 - 2u * p.dim4, lane);
    }
    last = workgroup_sum(last);
    if has_next {
        write(q0, next_k0, dcosine[t], next, lane);
    } else {
        zero(q0, lane);
    }
    if has_last {
        write(k0, q0 - 2u * p.dim4, dcosine[t - 1u], last, lane);
    } else {
        zero(k0, lane);
    }
}
