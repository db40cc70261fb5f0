// out[g] = the sum of squares over block g of x. sum_rows.wgsl adds up the blocks for the norm of a gradient.
// One workgroup per block.
struct Params {
    count4: u32, // values / 4
    per4: u32,   // values of a block / 4; the last block may be shorter
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [count]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;       // [blocks]

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
