// Weights stored as q4 (4-bit integers, one f16 scale per 32 of a row), and their products by blocks. A block is what
// one load returns, here 32 weights of a row. Byte j of a word holds weight j in its low 4 bits and weight 4 + j in its
// high 4 bits, with 8 added to both.
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;        // [n, k / 32], 32 4-bit weights each
@group(0) @binding(15) var<storage, read> w_scales: array<u32>;      // [n, k / 32] f16, two to a word

fn scale_of(block: u32) -> f32 {
    let pair = unpack2x16float(w_scales[block / 2u]);
    return select(pair.x, pair.y, (block & 1u) != 0u);
}

const BLOCK4: u32 = 8u; // vec4s of x per block

// The values of x for a block.
struct Block {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    e: vec4<f32>,
    f: vec4<f32>,
    g: vec4<f32>,
    h: vec4<f32>,
    // Eight times the sum of x: the contribution of the 8s added to the weights.
    eights: f32,
}

fn load_block(i: u32) -> Block {
    let at = 8u * i;
    var x = Block(x_value(at), x_value(at + 1u), x_value(at + 2u), x_value(at + 3u),
        x_value(at + 4u), x_value(at + 5u), x_value(at + 6u), x_value(at + 7u), 0.0);
    x.eights = 8.0 * dot(((x.a + x.b) + (x.c + x.d)) + ((x.e + x.f) + (x.g + x.h)), vec4<f32>(1.0));
    return x;
}

fn low4(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu));
}

fn high4(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((word >> 4u) & 0x0f0f0f0fu));
}

// The product of block i of row n with x, as four partial sums. `at` is the first block of the row.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    let q = w[at + i];
    let s = scale_of(at + i);
    let sum = x.a * low4(q.x) + x.b * high4(q.x) + x.c * low4(q.y) + x.d * high4(q.y)
        + x.e * low4(q.z) + x.f * high4(q.z) + x.g * low4(q.w) + x.h * high4(q.w);
    return s * (sum - vec4<f32>(x.eights, 0.0, 0.0, 0.0));
}
