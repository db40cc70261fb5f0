// Weights stored as q4: 4-bit integers, eight per word, and one f16 scale per 32 of a row. Byte j of a word holds
// weight j in its low 4 bits and weight 4 + j in its high 4 bits, with 8 added to both.
@group(0) @binding(1) var<storage, read> w: array<u32>;              // [rows, dim / 8], eight 4-bit weights each
@group(0) @binding(15) var<storage, read> w_scales: array<u32>;      // [rows, dim / 32] f16, two to a word

// Weights 4 i .. 4 i + 3 of the matrix in row-major order.
fn weights(i: u32) -> vec4<f32> {
    let pair = unpack2x16float(w_scales[i / 16u]);
    let nibbles = (w[i / 2u] >> (4u * (i & 1u))) & 0x0f0f0f0fu;
    return select(pair.x, pair.y, (i & 8u) != 0u) * (vec4<f32>(unpack4xU8(nibbles)) - 8.0);
}
