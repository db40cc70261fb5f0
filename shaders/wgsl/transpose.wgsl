// y[c, r] = x[r, c]: the transpose of a matrix, for products with it (gradients of weights). A workgroup handles a tile
// of TRANSPOSE_TILE x TRANSPOSE_TILE, a lane 4 x 4 values of it. Groups of 8 lanes read and write 32 consecutive words,
// and no barriers are needed.
struct Params {
    rows: u32,     // of x, columns of y
    columns: u32,  // of x, rows of y
    x_offset: u32, // offset of row 0 in x
    x_stride: u32, // row stride of x
    y_offset: u32,
    y_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [rows, columns] at x_offset, x_stride
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [columns, rows] at y_offset, y_stride

const TRANSPOSE_TILE: u32 = 32u;

// Four values of row r of x from column c on. Rows and columns past the end repeat the last one and are not written.
fn load4(r: u32, c: u32) -> vec4<f32> {
    let row = p.x_offset + min(r, p.rows - 1u) * p.x_stride;
    let last = p.columns - 1u;
    return vec4<f32>(x[row + c], x[row + min(c + 1u, last)], x[row + min(c + 2u, last)], x[row + min(c + 3u, last)]);
}

// Writes four values of row c of y from column r on, up to its end.
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
