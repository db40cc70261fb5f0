// Weights stored as f32, and their products by blocks. A block is what one load returns, here 4 weights of a row.
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>; // [n, k / 4]

const BLOCK4: u32 = 1u; // vec4s of x per block

// The values of x for a block.
struct Block {
    a: vec4<f32>,
}

fn load_block(i: u32) -> Block {
    return Block(x_value(i));
}

// The product of block i of row n with x, as four partial sums. `at` is the first block of the row.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    return x.a * w[at + i];
}
