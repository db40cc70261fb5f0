// Weights kept as f16, and how a product takes them: a block is what one load brings, here 8 of a row. Unpacked by a builtin, so that no
// adapter needs the f16 feature.
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [n, k / 8], eight f16 each

const BLOCK4: u32 = 2u; // vec4s of x that go with a block

// The part of x that goes with a block.
struct Block {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn load_block(i: u32) -> Block {
    return Block(x_value(2u * i), x_value(2u * i + 1u));
}

// Products of block i of row n, whose first block is `at`, in four sums.
fn products(at: u32, n: u32, i: u32, x: Block) -> vec4<f32> {
    let q = w[at + i];
    return x.a * vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y))
        + x.b * vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w));
}
