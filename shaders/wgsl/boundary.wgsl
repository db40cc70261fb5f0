// The cosine that decides whether a byte ends a patch: between q of the byte and k of the next byte (docs/model.md,
// "Boundary predictor"). One workgroup per byte.
struct Params {
    rows: u32,     // bytes to decide; x has one row more
    dim4: u32,     // width of q and of k, / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [rows + 1, 2, dim] of q, k
@group(0) @binding(2) var<storage, read_write> cosine: array<f32>;    // [rows]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.x) {
        return;
    }
    let q0 = group.x * 2u * p.dim4;
    let k0 = (group.x * 2u + 3u) * p.dim4;
    var products = vec4<f32>();
    var q_squares = vec4<f32>();
    var k_squares = vec4<f32>();
    for (var i = lane; i < p.dim4; i += WORKGROUP) {
        let q = x[q0 + i];
        let k = x[k0 + i];
        products += q * k;
        q_squares += q * q;
        k_squares += k * k;
    }
    let one = vec4<f32>(1.0);
    let s = workgroup_sum(vec4<f32>(dot(products, one), dot(q_squares, one), dot(k_squares, one), 0.0));
    if lane == 0u {
        cosine[group.x] = s.x / (max(sqrt(s.y), 1e-12) * max(sqrt(s.z), 1e-12));
    }
}
