// y = x rounded to f16, two values per word, in the layout that `shared/weights_f16.wgsl` reads. Values out of range
// become the largest f16.
struct Params {
    count4: u32, // values / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [count]
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;   // [count / 4], four f16 each

// Workgroups in one row of the grid: the limit that every adapter supports.
const MAX_GROUPS: u32 = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * MAX_GROUPS + group.x) * 64u + lane;
    if i >= p.count4 {
        return;
    }
    let v = x[i];
    // NaNs stay NaNs.
    let near = select(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)), v, v != v);
    y[i] = vec2<u32>(pack2x16float(near.xy), pack2x16float(near.zw));
}
