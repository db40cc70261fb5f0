// Weights stored as f32: four weights of a row per vec4.
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>; // [rows, dim / 4]

// Weights 4 i .. 4 i + 3 of the matrix in row-major order.
fn weights(i: u32) -> vec4<f32> {
    return w[i];
}
