// Weights stored as f16, and their products by blocks. A block is what one load returns, here 8 weights of a row.
// Unpacked by a builtin, so that no adapter needs the f16 feature.
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [n, k / 8], eight f16 each

const BLOCK4: u32 = 2u; // vec4s of x per block

// The values of x for a block.
struct Block {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn load_block(i: u32) -> Block {
    return Block(x_value(2u * i), x_value(2u * i + 1u));
}

// The product of block i of row n with x, as four partial sums. `at` is the first block of the row.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    let q = w[at + i];
    return x.a * vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y))
        + x.b * vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w));
}
