// out[g] = the sum of x^2 over the g-th stretch of x: the norm of a gradient, stretch by stretch; sum_rows.wgsl adds the stretches up.
// One workgroup a stretch.
struct Params {
    count4: u32, // values / 4
    per4: u32,   // values of a stretch, / 4; the last one may have fewer
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [count]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;       // [stretches]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.x) {
        return;
    }
    let end = min((group.x + 1u) * p.per4, p.count4);
    var squares = vec4<f32>();
    for (var i = group.x * p.per4 + lane; i < end; i += WORKGROUP) {
        let v = x[i];
        squares += v * v;
    }
    let s = workgroup_sum(squares);
    if lane == 0u {
        out[group.x] = s.x + s.y + s.z + s.w;
    }
}
