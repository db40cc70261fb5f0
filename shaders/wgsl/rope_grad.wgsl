// Gradient of rope.wgsl: gradients of rotated queries and keys are rotated back,
// (da, db) = (a cos + b sin, b cos - a sin), and go through the norm, if there is one,
//   dx = r (d * scale) - x r^3 / n sum(d * scale * x), dscale = d * x * r, r = 1 / sqrt(mean(x^2) + eps)
// over the n values of a group. Gradients of values are copied. A workgroup handles one group of a row, as in
// rope.wgsl; the last workgroup of a row copies the values.
struct Params {
    first: u32,         // first row of this dispatch in the tables
    heads: u32,
    kv_heads: u32,
    half_dim: u32,      // head width / 2
    q_group: u32,       // query heads of a group
    k_group: u32,       // key heads of a group
    norm: u32,          // 1: a norm precedes the rotation; dscale is written only then
    q_offset: u32,      // offset of row 0's queries in qkv and dqkv
    k_offset: u32,      // offset of row 0's keys
    v_offset: u32,      // offset of row 0's values
    stride: u32,        // row stride of qkv and dqkv
    kv_row: u32,        // row of dkv for the first row
    eps: f32,           // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;             // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(2) var<storage, read> q_scale: array<f32>;         // [q_group, 2 half_dim]
@group(0) @binding(3) var<storage, read> k_scale: array<f32>;         // [k_group, 2 half_dim]
@group(0) @binding(4) var<storage, read> cos_sin: array<vec2<f32>>;   // [rows, half_dim]
@group(0) @binding(5) var<storage, read> dq: array<f32>;              // [rows, heads, 2 half_dim]
@group(0) @binding(6) var<storage, read> dkv: array<f32>;             // [segment rows, 2, kv_heads, 2 half_dim]
@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;      // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(8) var<storage, read_write> dscale: array<f32>;    // [rows, heads + kv_heads, 2 half_dim]

// The gradient of a pair of values before the rotation.
fn turned_back(is_key: bool, at: u32, angle: u32) -> vec2<f32> {
    let cs = cos_sin[angle];
    var d = vec2<f32>();
    if is_key {
        d = vec2<f32>(dkv[at], dkv[at + p.half_dim]);
    } else {
        d = vec2<f32>(dq[at], dq[at + p.half_dim]);
    }
    return vec2<f32>(d.x * cs.x + d.y * cs.y, d.y * cs.x - d.x * cs.y);
}

// The weights of the norm for a pair of values.
fn scales(is_key: bool, at: u32) -> vec2<f32> {
    if is_key {
        return vec2<f32>(k_scale[at], k_scale[at + p.half_dim]);
    }
    return vec2<f32>(q_scale[at], q_scale[at + p.half_dim]);
}

fn run(group: vec3<u32>, lane: u32) {
    let row = p.first + group.y;
    let dim = 2u * p.half_dim;
    let kv_dim = p.kv_heads * dim;
    let cache = (p.kv_row + group.y) * 2u * kv_dim;
    let q_groups = p.heads / p.q_group;
    let k_groups = p.kv_heads / p.k_group;
    if group.x >= q_groups + k_groups {
        let to = row * p.stride + p.v_offset;
        for (var i = lane; i < kv_dim; i += WORKGROUP) {
            dqkv[to + i] = dkv[cache + kv_dim + i];
        }
        return;
    }
    let is_key = group.x >= q_groups;
    let heads = select(p.q_group, p.k_group, is_key);
    let first_head = select(group.x, group.x - q_groups, is_key) * heads;
    let x0 = row * p.stride + select(p.q_offset, p.k_offset, is_key) + first_head * dim;
    let d0 = select(row * p.heads * dim, cache, is_key) + first_head * dim;
    let angles = row * p.half_dim;
    var r = 1.0;
    var mean = 0.0;
    if p.norm != 0u {
        var squares = 0.0;
        var products = 0.0;
        for (var pair = lane; pair < heads * p.half_dim; pair += WORKGROUP) {
            let i = pair % p.half_dim;
            let at = pair / p.half_dim * dim + i;
            let x = vec2<f32>(qkv[x0 + at], qkv[x0 + at + p.half_dim]);
            squares += dot(x, x);
            products += dot(turned_back(is_key, d0 + at, angles + i) * scales(is_key, at), x);
        }
        let s = workgroup_sum(vec4<f32>(squares, products, 0.0, 0.0));
        let n = f32(heads * dim);
        r = 1.0 / sqrt(s.x / n + p.eps);
        mean = s.y * r / n;
    }
    // The group's offset in dscale, where keys follow queries.
    let dscale0 = (row * (p.heads + p.kv_heads) + select(0u, p.heads, is_key) + first_head) * dim;
    for (var pair = lane; pair < heads * p.half_dim; pair += WORKGROUP) {
        let i = pair % p.half_dim;
        let at = pair / p.half_dim * dim + i;
        var d = turned_back(is_key, d0 + at, angles + i);
        if p.norm != 0u {
            let unit = vec2<f32>(qkv[x0 + at], qkv[x0 + at + p.half_dim]) * r;
            dscale[dscale0 + at] = d.x * unit.x;
            dscale[dscale0 + at + p.half_dim] = d.y * unit.y;
            d = r * (d * scales(is_key, at) - unit * mean);
        }
        dqkv[x0 + at] = d.x;
        dqkv[x0 + at + p.half_dim] = d.y;
    }
}
