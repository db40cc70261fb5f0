// Rotates queries and keys by their positions (rotate-half RoPE, SPEC 6), and lays keys and values down in the KV cache.
// The angles come from a table that the host computes in f64: sin and cos of large arguments are poor on most devices.
struct Params {
    count: u32,     // rows handled here
    first: u32,     // the first of them within the tables of this call
    heads: u32,
    kv_heads: u32,
    half_dim: u32,  // head width / 2
    q_offset: u32,  // of row 0's queries in qk
    k_offset: u32,  // of row 0's keys in qk
    qk_stride: u32,
    v_offset: u32,  // of row 0's values in v
    v_stride: u32,
    kv_row: u32,    // row of the cache segment that takes the first row
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qk: array<f32>;              // [rows, ...] at q_offset, k_offset, qk_stride
@group(0) @binding(2) var<storage, read> v: array<f32>;               // [rows, ...] at v_offset, v_stride
@group(0) @binding(3) var<storage, read> cos_sin: array<vec2<f32>>;   // [rows, half_dim]
@group(0) @binding(4) var<storage, read_write> q: array<f32>;         // [rows, heads, 2 half_dim], rotated
@group(0) @binding(5) var<storage, read_write> kv: array<f32>;        // [segment rows, 2, kv_heads, 2 half_dim]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.y >= p.count {
        return;
    }
    let row = p.first + id.y;
    let dim = 2u * p.half_dim;
    let kv_dim = p.kv_heads * dim;
    let cache = (p.kv_row + id.y) * 2u * kv_dim;
    let head = id.x / p.half_dim;
    let i = id.x % p.half_dim;
    if head < p.heads + p.kv_heads {
        let is_key = head >= p.heads;
        let local_head = select(head, head - p.heads, is_key);
        let source = row * p.qk_stride + select(p.q_offset, p.k_offset, is_key) + local_head * dim + i;
        let a = qk[source];
        let b = qk[source + p.half_dim];
        let cs = cos_sin[row * p.half_dim + i];
        let ra = a * cs.x - b * cs.y;
        let rb = b * cs.x + a * cs.y;
        if is_key {
            kv[cache + local_head * dim + i] = ra;
            kv[cache + local_head * dim + i + p.half_dim] = rb;
        } else {
            let to = (row * p.heads + head) * dim + i;
            q[to] = ra;
            q[to + p.half_dim] = rb;
        }
    } else if head < p.heads + 2u * p.kv_heads {
        let at = (head - p.heads - p.kv_heads) * dim + i;
        let source = row * p.v_stride + p.v_offset + at;
        kv[cache + kv_dim + at] = v[source];
        kv[cache + kv_dim + at + p.half_dim] = v[source + p.half_dim];
    }
}
