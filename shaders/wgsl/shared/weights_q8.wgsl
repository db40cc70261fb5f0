// Weights stored as q8: signed bytes, four per word, and one f16 scale per 32 of a row.
@group(0) @binding(1) var<storage, read> w: array<u32>;              // [rows, dim / 4], four bytes each
@group(0) @binding(15) var<storage, read> w_scales: array<u32>;      // [rows, dim / 32] f16, two to a word

// Weights 4 i .. 4 i + 3 of the matrix in row-major order.
fn weights(i: u32) -> vec4<f32> {
    let pair = unpack2x16float(w_scales[i / 16u]);
    return select(pair.x, pair.y, (i & 8u) != 0u) * vec4<f32>(unpack4xI8(w[i]));
}
