// Weights kept as q4: half bytes, eight to a word, and one f16 scale for 32 of a row. Byte j of a word holds weight j in its low half
// and weight 4 + j in its high half, with 8 added to both.
@group(0) @binding(1) var<storage, read> w: array<u32>;              // [rows, dim / 8], eight half bytes each
@group(0) @binding(15) var<storage, read> w_scales: array<u32>;      // [rows, dim / 32] f16, two to a word

// Weights 4 i .. 4 i + 3 of the matrix in row-major order.
fn weights(i: u32) -> vec4<f32> {
    let pair = unpack2x16float(w_scales[i / 16u]);
    let halves = (w[i / 2u] >> (4u * (i & 1u))) & 0x0f0f0f0fu;
    return select(pair.x, pair.y, (i & 8u) != 0u) * (vec4<f32>(unpack4xU8(halves)) - 8.0);
}
