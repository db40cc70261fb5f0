// Prepares queries, keys and values of new positions for attention (docs/model.md, "Attention and rotary embeddings").
// Queries and keys go through their norm, if they have one, and are rotated by their positions (rotate-half RoPE). Keys
// and values are written to the KV cache.
// A workgroup handles one group of a row: heads that share a norm, or one head; the last workgroup of a row copies the
// values. The host computes the table of angles in f64: sin and cos of large arguments are inaccurate on most devices.
struct Params {
    first: u32,         // first row of this dispatch in the tables
    heads: u32,
    kv_heads: u32,
    half_dim: u32,      // head width / 2
    q_group: u32,       // query heads of a group
    k_group: u32,       // key heads of a group
    norm: u32,          // 1: rms(x) * scale before the rotation
    q_offset: u32,      // offset of row 0's queries in qkv
    k_offset: u32,      // offset of row 0's keys
    v_offset: u32,      // offset of row 0's values
    stride: u32,        // row stride of qkv
    kv_row: u32,        // row of the cache segment for the first row
    eps: f32,           // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;             // [rows, ...] at the q, k, v offsets, stride
@group(0) @binding(2) var<storage, read> q_scale: array<f32>;         // [q_group, 2 half_dim]
@group(0) @binding(3) var<storage, read> k_scale: array<f32>;         // [k_group, 2 half_dim]
@group(0) @binding(4) var<storage, read> cos_sin: array<vec2<f32>>;   // [rows, half_dim]
@group(0) @binding(5) var<storage, read_write> q: array<f32>;         // [rows, heads, 2 half_dim], rotated
@group(0) @binding(6) var<storage, read_write> kv: array<f32>;        // [segment rows, 2, kv_heads, 2 half_dim]

fn run(group: vec3<u32>, lane: u32) {
    if halted(group.y) {
        return;
    }
    let row = p.first + group.y;
    let dim = 2u * p.half_dim;
    let kv_dim = p.kv_heads * dim;
    let cache = (p.kv_row + group.y) * 2u * kv_dim;
    let q_groups = p.heads / p.q_group;
    let k_groups = p.kv_heads / p.k_group;
    if group.x >= q_groups + k_groups {
        let source = row * p.stride + p.v_offset;
        for (var i = lane; i < kv_dim; i += WORKGROUP) {
            kv[cache + kv_dim + i] = qkv[source + i];
        }
        return;
    }
    let is_key = group.x >= q_groups;
    let heads = select(p.q_group, p.k_group, is_key);
    let first_head = select(group.x, group.x - q_groups, is_key) * heads;
    let source = row * p.stride + select(p.q_offset, p.k_offset, is_key) + first_head * dim;
    var r = 1.0;
    if p.norm != 0u {
        var squares = 0.0;
        for (var i = lane; i < heads * dim; i += WORKGROUP) {
            let v = qkv[source + i];
            squares += v * v;
        }
        r = 1.0 / sqrt(workgroup_sum(vec4<f32>(squares, 0.0, 0.0, 0.0)).x / f32(heads * dim) + p.eps);
    }
    for (var pair = lane; pair < heads * p.half_dim; pair += WORKGROUP) {
        let i = pair % p.half_dim;
        let at = pair / p.half_dim * dim + i;
        var a = qkv[source + at];
        var b = qkv[source + at + p.half_dim];
        if p.norm != 0u {
            if is_key {
                a *= r * k_scale[at];
                b *= r * k_scale[at + p.half_dim];
            } else {
                a *= r * q_scale[at];
                b *= r * q_scale[at + p.half_dim];
            }
        }
        let cs = cos_sin[row * p.half_dim + i];
        let ra = a * cs.x - b * cs.y;
        let rb = b * cs.x + a * cs.y;
        if is_key {
            let to = cache + first_head * dim + at;
            kv[to] = ra;
            kv[to + p.half_dim] = rb;
        } else {
            let to = (row * p.heads + first_head) * dim + at;
            q[to] = ra;
            q[to + p.half_dim] = rb;
        }
    }
}
