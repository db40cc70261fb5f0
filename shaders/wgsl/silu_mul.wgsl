// h = silu(gate) * up, the inner product of a feed-forward layer (docs/model.md, "Local layer (mLSTM)" and "Global
// blocks"). Gate and up are interleaved, as are their rows of the weight matrix. One lane per four values of h.
struct Params {
    rows: u32,
    dim4: u32, // feed-forward width / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<vec4<f32>>;   // [rows, dim, 2]
@group(0) @binding(2) var<storage, read_write> h: array<vec4<f32>>;   // [rows, dim]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.dim4 || id.y >= p.rows {
        return;
    }
    let at = id.y * p.dim4 + id.x;
    let low = gate_up[2u * at];
    let high = gate_up[2u * at + 1u];
    let gate = vec4<f32>(low.xz, high.xz);
    h[at] = gate / (1.0 + exp(-gate)) * vec4<f32>(low.yw, high.yw);
}
