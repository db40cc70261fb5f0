// y[c, r] = x[r, c]: a matrix laid down the other way, for products with its transpose (gradients of weights). A workgroup takes a tile of
// TRANSPOSE_TILE x TRANSPOSE_TILE, a lane 4 x 4 of it: 8 lanes read 32 neighbouring words and 8 others write as many, and nobody
// waits at a barrier.
struct Params {
    rows: u32,     // of x, columns of y
    columns: u32,  // of x, rows of y
    x_offset: u32, // of row 0 in x
    x_stride: u32, // from row to row of x
    y_offset: u32,
    y_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, columns] at x_offset, x_stride
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [columns, rows] at y_offset, y_stride

const TRANSPOSE_TILE: u32 = 32u;

// Four of a row of x from column c on. Where the matrix ends, its last row and column stand for what is not there, and are not written.
fn load4(r: u32, c: u32) -> vec4<f32> {
    let row = p.x_offset + min(r, p.rows - 1u) * p.x_stride;
    let last = p.columns - 1u;
    return vec4<f32>(x[row + c], x[row + min(c + 1u, last)], x[row + min(c + 2u, last)], x[row + min(c + 3u, last)]);
}

// Four of a row of y from column r on, as far as there are any.
fn store4(c: u32, r: u32, v: vec4<f32>) {
    if c >= p.columns {
        return;
    }
    let at = p.y_offset + c * p.y_stride + r;
    y[at] = v.x;
    if r + 1u < p.rows {
        y[at + 1u] = v.y;
    }
    if r + 2u < p.rows {
        y[at + 2u] = v.z;
    }
    if r + 3u < p.rows {
        y[at + 3u] = v.w;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = group.x * TRANSPOSE_TILE + lane % 8u * 4u;
    let r = group.y * TRANSPOSE_TILE + lane / 8u * 4u;
    if c >= p.columns || r >= p.rows {
        return;
    }
    let v0 = load4(r, c);
    let v1 = load4(r + 1u, c);
    let v2 = load4(r + 2u, c);
    let v3 = load4(r + 3u, c);
    store4(c, r, vec4<f32>(v0.x, v1.x, v2.x, v3.x));
    store4(c + 1u, r, vec4<f32>(v0.y, v1.y, v2.y, v3.y));
    store4(c + 2u, r, vec4<f32>(v0.z, v1.z, v2.z, v3.z));
    store4(c + 3u, r, vec4<f32>(v0.w, v1.w, v2.w, v3.w));
}
