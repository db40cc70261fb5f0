// A step of AdamW, the optimiser with decoupled weight decay, as torch.optim.AdamW takes it:
//   g = scale * min(1, clip / (norm + 1e-6)) * grad, norm = scale * sqrt(squares)
//   m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
//   w = (1 - lr decay) w - lr (m / bias1) / (sqrt(v) / sqrt(bias2) + eps)
// Where the gradient's norm is not finite nothing is changed at all: a step of mixed precision that overflowed. One lane four weights.
struct Params {
    count4: u32,  // weights / 4
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    bias1: f32,   // 1 - beta1^t at the t-th step, counted from 1
    bias2: f32,   // 1 - beta2^t
    clip: f32,    // the largest norm of the gradient of all weights together; 0: whatever it is
    scale: f32,   // of the gradient: 1 over the loss' factor and over the number of gradients added up
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4<f32>>;      // [count]
@group(0) @binding(2) var<storage, read> squares: array<f32>;         // [1], sum of the squares of all gradients before they are scaled
@group(0) @binding(3) var<storage, read_write> w: array<vec4<f32>>;   // [count]
@group(0) @binding(4) var<storage, read_write> m: array<vec4<f32>>;   // [count]
@group(0) @binding(5) var<storage, read_write> v: array<vec4<f32>>;   // [count]

// Workgroups of a row of the grid, as many as every adapter takes.
const MAX_GROUPS: u32 = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * MAX_GROUPS + group.x) * 64u + lane;
    // By its bits: a shader may be compiled as if there were no infinity and no NaN.
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
    // 1 - lr decay would round a small decay away.
    w[i] -= p.lr * (p.decay * w[i] + step);
}
