// y = x Wᵀ + b for many rows of x. A workgroup of 64 makes a tile of 64 x 64 outputs, each lane 8 x 8 of them in registers;
// 16 columns of x and of W pass through workgroup memory at a time. Lanes take every eighth row and column, so that neighbours
// read neighbouring words of the tiles. Written out instead of looped: drivers keep looped local arrays in memory.
struct Params {
    rows: u32,      // of x
    n: u32,         // rows of W in this piece
    k4: u32,        // columns of W / 4
    x_offset4: u32, // of row 0 in x, / 4
    x_stride4: u32,
    y_offset: u32,  // of column 0 of this piece in row 0 of y
    y_stride: u32,
    add: u32,       // 1: y += result, 0: y = result
    bias: u32,      // 1: there is a bias
}
@group(0) @binding(0) var<uniform> p: Params;
// binding 1: w                                                          [n, k]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;         // [rows, k] at x_offset, x_stride
@group(0) @binding(3) var<storage, read> b: array<f32>;               // [n]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [rows, n] at y_offset, y_stride

var<workgroup> x_tile: array<vec4<f32>, 256>; // [k / 4 of 4, row of 64]
var<workgroup> w_tile: array<vec4<f32>, 256>; // [k / 4 of 4, column of 64]

fn put4(row: u32, n: u32, value: vec4<f32>) {
    if row >= p.rows {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        let column = n + 8u * c;
        if column < p.n {
            let at = p.y_offset + row * p.y_stride + column;
            var v = value[c];
            if p.bias != 0u {
                v += b[column];
            }
            if p.add != 0u {
                v += y[at];
            }
            y[at] = v;
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row0 = group.y * 64u;
    let column0 = group.x * 64u;
    let lane_row = lane / 8u;
    let lane_column = lane % 8u;
    // what this lane loads: one of 4 vec4 of rows load_row, + 16, + 32, + 48
    let load_k = lane % 4u;
    let load_row = lane / 4u;
    var l0 = vec4<f32>(); // row lane_row + 0, columns lane_column + 0, 8, 16, 24
    var h0 = vec4<f32>(); // row lane_row + 0, columns lane_column + 32, 40, 48, 56
    var l1 = vec4<f32>(); // row lane_row + 8, columns lane_column + 0, 8, 16, 24
    var h1 = vec4<f32>(); // row lane_row + 8, columns lane_column + 32, 40, 48, 56
    var l2 = vec4<f32>(); // row lane_row + 16, columns lane_column + 0, 8, 16, 24
    var h2 = vec4<f32>(); // row lane_row + 16, columns lane_column + 32, 40, 48, 56
    var l3 = vec4<f32>(); // row lane_row + 24, columns lane_column + 0, 8, 16, 24
    var h3 = vec4<f32>(); // row lane_row + 24, columns lane_column + 32, 40, 48, 56
    var l4 = vec4<f32>(); // row lane_row + 32, columns lane_column + 0, 8, 16, 24
    var h4 = vec4<f32>(); // row lane_row + 32, columns lane_column + 32, 40, 48, 56
    var l5 = vec4<f32>(); // row lane_row + 40, columns lane_column + 0, 8, 16, 24
    var h5 = vec4<f32>(); // row lane_row + 40, columns lane_column + 32, 40, 48, 56
    var l6 = vec4<f32>(); // row lane_row + 48, columns lane_column + 0, 8, 16, 24
    var h6 = vec4<f32>(); // row lane_row + 48, columns lane_column + 32, 40, 48, 56
    var l7 = vec4<f32>(); // row lane_row + 56, columns lane_column + 0, 8, 16, 24
    var h7 = vec4<f32>(); // row lane_row + 56, columns lane_column + 32, 40, 48, 56
    for (var k = 0u; k < p.k4; k += 4u) {
        let inside = k + load_k < p.k4;
        for (var i = 0u; i < 4u; i++) {
            let r = load_row + 16u * i;
            var xv = vec4<f32>();
            var wv = vec4<f32>();
            if inside && row0 + r < p.rows {
                xv = x[p.x_offset4 + (row0 + r) * p.x_stride4 + k + load_k];
            }
            if inside && column0 + r < p.n {
                wv = weights((column0 + r) * p.k4 + k + load_k);
            }
            x_tile[load_k * 64u + r] = xv;
            w_tile[load_k * 64u + r] = wv;
        }
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            let xi = i * 64u + lane_row;
            let wi = i * 64u + lane_column;
            let w0 = w_tile[wi + 0u];
            let w1 = w_tile[wi + 8u];
            let w2 = w_tile[wi + 16u];
            let w3 = w_tile[wi + 24u];
            let w4 = w_tile[wi + 32u];
            let w5 = w_tile[wi + 40u];
            let w6 = w_tile[wi + 48u];
            let w7 = w_tile[wi + 56u];
            let x0 = x_tile[xi + 0u];
            l0 += vec4<f32>(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3));
            h0 += vec4<f32>(dot(x0, w4), dot(x0, w5), dot(x0, w6), dot(x0, w7));
            let x1 = x_tile[xi + 8u];
            l1 += vec4<f32>(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3));
            h1 += vec4<f32>(dot(x1, w4), dot(x1, w5), dot(x1, w6), dot(x1, w7));
            let x2 = x_tile[xi + 16u];
            l2 += vec4<f32>(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3));
            h2 += vec4<f32>(dot(x2, w4), dot(x2, w5), dot(x2, w6), dot(x2, w7));
            let x3 = x_tile[xi + 24u];
            l3 += vec4<f32>(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3));
            h3 += vec4<f32>(dot(x3, w4), dot(x3, w5), dot(x3, w6), dot(x3, w7));
            let x4 = x_tile[xi + 32u];
            l4 += vec4<f32>(dot(x4, w0), dot(x4, w1), dot(x4, w2), dot(x4, w3));
            h4 += vec4<f32>(dot(x4, w4), dot(x4, w5), dot(x4, w6), dot(x4, w7));
            let x5 = x_tile[xi + 40u];
            l5 += vec4<f32>(dot(x5, w0), dot(x5, w1), dot(x5, w2), dot(x5, w3));
            h5 += vec4<f32>(dot(x5, w4), dot(x5, w5), dot(x5, w6), dot(x5, w7));
            let x6 = x_tile[xi + 48u];
            l6 += vec4<f32>(dot(x6, w0), dot(x6, w1), dot(x6, w2), dot(x6, w3));
            h6 += vec4<f32>(dot(x6, w4), dot(x6, w5), dot(x6, w6), dot(x6, w7));
            let x7 = x_tile[xi + 56u];
            l7 += vec4<f32>(dot(x7, w0), dot(x7, w1), dot(x7, w2), dot(x7, w3));
            h7 += vec4<f32>(dot(x7, w4), dot(x7, w5), dot(x7, w6), dot(x7, w7));
        }
        workgroupBarrier();
    }
    let n = column0 + lane_column;
    put4(row0 + lane_row + 0u, n, l0);
    put4(row0 + lane_row + 0u, n + 32u, h0);
    put4(row0 + lane_row + 8u, n, l1);
    put4(row0 + lane_row + 8u, n + 32u, h1);
    put4(row0 + lane_row + 16u, n, l2);
    put4(row0 + lane_row + 16u, n + 32u, h2);
    put4(row0 + lane_row + 24u, n, l3);
    put4(row0 + lane_row + 24u, n + 32u, h3);
    put4(row0 + lane_row + 32u, n, l4);
    put4(row0 + lane_row + 32u, n + 32u, h4);
    put4(row0 + lane_row + 40u, n, l5);
    put4(row0 + lane_row + 40u, n + 32u, h5);
    put4(row0 + lane_row + 48u, n, l6);
    put4(row0 + lane_row + 48u, n + 32u, h6);
    put4(row0 + lane_row + 56u, n, l7);
    put4(row0 + lane_row + 56u, n + 32u, h7);
}
