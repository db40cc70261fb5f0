// The gradient of w0 log p(label) + w1 log p(set) by the logits, written in place of the logits; log_softmax.wgsl
// computes the inputs. Logit i becomes w0 ((i == label) - p_i) + w1 ((i in set) p_i / p(set) - p_i). One lane per
// logit.
struct Params {
    rows: u32,
    n: u32,      // logits of a row
    stride: u32, // row stride of the logits
    offset: u32, // offset of row 0
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;    // [rows, n] at offset, stride
@group(0) @binding(2) var<storage, read> label: array<u32>;           // [rows], n or above: no label
@group(0) @binding(3) var<storage, read> members: array<u32>;         // [n], 1: in the set
@group(0) @binding(4) var<storage, read> out: array<vec4<f32>>;       // [rows, 4] of log_softmax
@group(0) @binding(5) var<storage, read> weight: array<vec2<f32>>;    // [rows, 2]; both 0: the gradient of the row is 0

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.n || id.y >= p.rows {
        return;
    }
    let at = p.offset + id.y * p.stride + id.x;
    let w = weight[id.y];
    if w.x == 0.0 && w.y == 0.0 {
        logits[at] = 0.0;
        return;
    }
    let logs = out[id.y];
    let l = (logits[at] - logs.x) - logs.y;
    let share = exp_accurate(l);
    var of_set = 0.0;
    if members[id.x] != 0u {
        of_set = exp_accurate(l - logs.w);
    }
    logits[at] = w.x * (select(0.0, 1.0, id.x == label[id.y]) - share) + w.y * (of_set - share);
}
