// Weights stored as f16, two per word. Unpacked by a builtin, so that no adapter needs the f16 feature.
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>; // [rows, dim / 4], four f16 each

// Weights 4 i .. 4 i + 3 of the matrix in row-major order.
fn weights(i: u32) -> vec4<f32> {
    let packed = w[i];
    return vec4<f32>(unpack2x16float(packed.x), unpack2x16float(packed.y));
}
