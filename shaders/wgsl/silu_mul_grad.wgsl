// Gradient of silu_mul.wgsl, h = silu(gate) * up with silu(x) = x sigmoid(x):
//   d gate = dh * up * (sigmoid + gate sigmoid (1 - sigmoid)), d up = dh * silu(gate)
// One lane per four values of h.
struct Params {
    rows: u32,
    dim4: u32, // feed-forward width / 4
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<vec4<f32>>;           // [rows, dim, 2]
@group(0) @binding(2) var<storage, read> dh: array<vec4<f32>>;                // [rows, dim]
@group(0) @binding(3) var<storage, read_write> d_gate_up: array<vec4<f32>>;   // [rows, dim, 2]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.dim4 || id.y >= p.rows {
        return;
    }
    let at = id.y * p.dim4 + id.x;
    let low = gate_up[2u * at];
    let high = gate_up[2u * at + 1u];
    let gate = vec4<f32>(low.xz, high.xz);
    let up = vec4<f32>(low.yw, high.yw);
    let d = dh[at];
    // Neither sigmoid(gate) nor 1 - sigmoid(gate) is computed by cancellation, and exp does not overflow.
    let t = exp(-abs(gate));
    let sigmoid = select(t, vec4<f32>(1.0), gate >= vec4<f32>()) / (1.0 + t);
    let slope = sigmoid + gate * t / ((1.0 + t) * (1.0 + t));
    let d_gate = d * up * slope;
    let d_up = d * gate * sigmoid;
    d_gate_up[2u * at] = vec4<f32>(d_gate.x, d_up.x, d_gate.y, d_up.y);
    d_gate_up[2u * at + 1u] = vec4<f32>(d_gate.z, d_up.z, d_gate.w, d_up.w);
}
