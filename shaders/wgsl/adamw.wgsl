// One step of AdamW with decoupled weight decay, as in torch.optim.AdamW:
//   g = scale * min(1, clip / (norm + 1e-6)) * grad, norm = scale * sqrt(squares)
//   m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
//   w = (1 - lr decay) w - lr (m / bias1) / (sqrt(v) / sqrt(bias2) + eps)
// If the gradient norm is not finite, nothing changes: a mixed-precision step that overflowed is skipped.
// Each lane updates four weights.
struct Params {
    count4: u32,  // weights / 4
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    bias1: f32,   // 1 - beta1^t at step t, counted from 1
    bias2: f32,   // 1 - beta2^t
    clip: f32,    // maximum norm of the gradient of all weights; 0: no clipping
    scale: f32,   // gradient scale: 1 / (loss scale * number of accumulated gradients)
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4<f32>>;      // [count]
@group(0) @binding(2) var<storage, read> squares: array<f32>;         // [1], sum of squares of the unscaled gradient
@group(0) @binding(3) var<storage, read_write> w: array<vec4<f32>>;   // [count]
@group(0) @binding(4) var<storage, read_write> m: array<vec4<f32>>;   // [count]
@group(0) @binding(5) var<storage, read_write> v: array<vec4<f32>>;   // [count]

// Workgroups in one row of the grid: the limit that every adapter supports.
const MAX_GROUPS: u32 = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * MAX_GROUPS + group.x) * 64u + lane;
    // Test the bits: a compiler may assume that there are no infinities and no NaNs.
    let finite = (bitcast<u32>(squares[0]) & 0x7f800000u) != 0x7f800000u;
    if i >= p.count4 || !finite {
        return;
    }
    var factor = p.scale;
    if p.clip > 0.0 {
        factor *= min(1.0, p.clip / (p.scale * sqrt(squares[0]) + 1e-6));
    }
    let g = factor * grad[i];
    let m_new = m[i] + (g - m[i]) * (1.0 - p.beta1);
    let v_new = p.beta2 * v[i] + (1.0 - p.beta2) * g * g;
    let step = m_new / p.bias1 / (sqrt(v_new) / sqrt(p.bias2) + p.eps);
    m[i] = m_new;
    v[i] = v_new;
    // Computing 1 - lr * decay first would round a small decay away.
    w[i] -= p.lr * (p.decay * w[i] + step);
}
