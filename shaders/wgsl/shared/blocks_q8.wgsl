// Weights stored as q8 (signed bytes, one f16 scale per 32 of a row), and their products by blocks. A block is what one
// load returns, here 16 weights of a row.
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;        // [n, k / 16], sixteen bytes each
@group(0) @binding(15) var<storage, read> w_scales: array<u32>;      // [n, k / 32] f16, two to a word

fn scale_of(block: u32) -> f32 {
    let pair = unpack2x16float(w_scales[block / 2u]);
    return select(pair.x, pair.y, (block & 1u) != 0u);
}

const BLOCK4: u32 = 4u; // vec4s of x per block

// The values of x for a block.
struct Block {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn load_block(i: u32) -> Block {
    let at = 4u * i;
    return Block(x_value(at), x_value(at + 1u), x_value(at + 2u), x_value(at + 3u));
}

fn signed4(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}

// The product of block i of row n with x, as four partial sums. `at` is the first block of the row.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    let q = w[at + i];
    let s = scale_of(n * (p.k4 / 8u) + i / 2u);
    return s * (x.a * signed4(q.x) + x.b * signed4(q.y) + x.c * signed4(q.z) + x.d * signed4(q.w));
}
