// The mLSTM cell in its recurrent form, for few rows (docs/model.md, "Local layer (mLSTM)"). One lane per column of a
// head's state.
//   C' = f C + i k vᵀ,  n' = f n + i k,  y = qᵀ C' / sqrt(dk), followed by q · n' / sqrt(dk) in the last column
// n is stored as column dv of C, as if v had one more value that is always 1.
struct Params {
    rows: u32,
    heads: u32,
    dk: u32,
    dv: u32,
    stride: u32,   // row stride of x
    q_offset: u32, // offset of head 0 in a row of x
    k_offset: u32,
    v_offset: u32,
    scale: f32,    // dk ^ -0.5
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(2) var<storage, read> gates: array<vec4<f32>>;     // [rows, heads] of f, i, m, g
@group(0) @binding(3) var<storage, read_write> c: array<f32>;         // [heads, dk, dv + 1]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [rows, heads, dv + 1]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    let head = id.y;
    let columns = p.dv + 1u;
    if column >= columns {
        return;
    }
    for (var t = 0u; t < p.rows; t++) {
        let gate = gates[t * p.heads + head];
        let q0 = t * p.stride + p.q_offset + head * p.dk;
        let k0 = t * p.stride + p.k_offset + head * p.dk;
        var v = 1.0;
        if column < p.dv {
            v = x[t * p.stride + p.v_offset + head * p.dv + column];
        }
        v *= gate.y;
        var sum = 0.0;
        for (var i = 0u; i < p.dk; i++) {
            let at = (head * p.dk + i) * columns + column;
            let state = gate.x * c[at] + x[k0 + i] * v;
            c[at] = state;
            sum += x[q0 + i] * state;
        }
        y[(t * p.heads + head) * columns + column] = sum * p.scale;
    }
}
