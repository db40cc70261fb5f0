// Weights kept as f32, and how a product takes them: a block is what one load brings, here 4 of a row.
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>; // [n, k / 4]

const BLOCK4: u32 = 1u; // vec4s of x that go with a block

// The part of x that goes with a block.
struct Block {
    a: vec4<f32>,
}

fn load_block(i: u32) -> Block {
    return Block(x_value(i));
}

// Products of block i of row n, whose first block is `at`, in four sums.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    return x.a * w[at + i];
}
