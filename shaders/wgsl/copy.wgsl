// y = x, bit for bit, to measure memory bandwidth. A workgroup copies SLICE4 consecutive vec4s.
struct Params {
    count4: u32, // values / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;         // [count]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;   // [count]

const SLICE4: u32 = 1024u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let end = min(p.count4, (group.x + 1u) * SLICE4);
    for (var i = group.x * SLICE4 + lane; i < end; i += 64u) {
        y[i] = x[i];
    }
}
