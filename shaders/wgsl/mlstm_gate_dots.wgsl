// The dot products that the gradients of the mLSTM gates are made of (docs/model.md, "Local layer (mLSTM)"): q · dq and
// k · dk. One lane per row and head.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    stride: u32,   // row stride of x and dx
    q_offset: u32, // offset of head 0 in a row of x and dx
    k_offset: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                  // [rows, ...] at q_offset, k_offset, stride
@group(0) @binding(2) var<storage, read> dx: array<f32>;                 // [rows, ...] at q_offset, k_offset, stride
@group(0) @binding(3) var<storage, read_write> dots: array<vec2<f32>>;   // [rows, heads] of q · dq, k · dk

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.rows * p.heads {
        return;
    }
    let head = id.x % p.heads;
    let row = id.x / p.heads * p.stride + head * p.dk;
    let q0 = row + p.q_offset;
    let k0 = row + p.k_offset;
    var sum = vec2<f32>();
    for (var i = 0u; i < p.dk; i++) {
        sum += vec2<f32>(x[q0 + i], x[k0 + i]) * vec2<f32>(dx[q0 + i], dx[k0 + i]);
    }
    dots[id.x] = sum;
}
