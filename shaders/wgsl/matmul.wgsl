// y = x Wᵀ + b for many rows of x. A workgroup of 64 lanes computes a tile of 64 x 64 outputs, 8 x 8 per lane in
// registers, and stages 16 columns of x and W at a time in workgroup memory. A lane handles every eighth row and
// column, so that neighboring lanes read neighboring words of the tiles. Unrolled by hand: drivers keep local arrays
// indexed in a loop in memory.
// Products with few outputs and long sums, such as weight gradients, would leave most of a GPU idle. For them, the
// workgroups along the third dimension of the grid each sum over a part of the columns, without a bias, and `sum_rows`
// adds up the parts.
struct Params {
    rows: u32,      // of x
    n: u32,         // rows of W in this slice
    k4: u32,        // columns of W / 4
    x_offset4: u32, // offset of row 0 in x, / 4
    x_stride4: u32,
    y_offset: u32,  // offset of column 0 of this slice in row 0 of y
    y_stride: u32,
    add: u32,       // 1: y += result, 0: y = result
    bias: u32,      // 1: add the bias
    part4: u32,     // columns / 4 that one sum covers; 0: all columns
    y_part: u32,    // stride between partial sums in y
}
@group(0) @binding(0) var<uniform> p: Params;
// binding 1: w                                                          [n, k]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;         // [rows, k] at x_offset, x_stride
@group(0) @binding(3) var<storage, read> b: array<f32>;               // [n]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [parts, rows, n] at y_offset, y_part, y_stride

var<workgroup> x_tile: array<vec4<f32>, 256>; // [k / 4 of 4, row of 64]
var<workgroup> w_tile: array<vec4<f32>, 256>; // [k / 4 of 4, column of 64]

fn put4(y_offset: u32, row: u32, n: u32, value: vec4<f32>) {
    if row >= p.rows {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        let column = n + 8u * c;
        if column < p.n {
            let at = y_offset + row * p.y_stride + column;
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
    // Rows of this lane that exist, in steps of eight: rows that do not exist are not computed.
    let live = (min(64u, p.rows - row0) + 7u) / 8u;
    // This lane loads one of 4 vec4s of rows load_row, + 16, + 32, + 48.
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
    let y_offset = p.y_offset + group.z * p.y_part;
    let begin = group.z * p.part4;
    let end = select(min(begin + p.part4, p.k4), p.k4, p.part4 == 0u);
    for (var k = begin; k < end; k += 4u) {
        let inside = k + load_k < end;
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
            let l_x = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
            let l_y = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
            let l_z = vec4<f32>(w0.z, w1.z, w2.z, w3.z);
            let l_w = vec4<f32>(w0.w, w1.w, w2.w, w3.w);
            let h_x = vec4<f32>(w4.x, w5.x, w6.x, w7.x);
            let h_y = vec4<f32>(w4.y, w5.y, w6.y, w7.y);
            let h_z = vec4<f32>(w4.z, w5.z, w6.z, w7.z);
            let h_w = vec4<f32>(w4.w, w5.w, w6.w, w7.w);
            let x0 = x_tile[xi + 0u];
            l0 = fma(vec4<f32>(x0.x), l_x, fma(vec4<f32>(x0.y), l_y,
                fma(vec4<f32>(x0.z), l_z, fma(vec4<f32>(x0.w), l_w, l0))));
            h0 = fma(vec4<f32>(x0.x), h_x, fma(vec4<f32>(x0.y), h_y,
                fma(vec4<f32>(x0.z), h_z, fma(vec4<f32>(x0.w), h_w, h0))));
            if live > 1u {
                let x1 = x_tile[xi + 8u];
                l1 = fma(vec4<f32>(x1.x), l_x, fma(vec4<f32>(x1.y), l_y,
                    fma(vec4<f32>(x1.z), l_z, fma(vec4<f32>(x1.w), l_w, l1))));
                h1 = fma(vec4<f32>(x1.x), h_x, fma(vec4<f32>(x1.y), h_y,
                    fma(vec4<f32>(x1.z), h_z, fma(vec4<f32>(x1.w), h_w, h1))));
            }
            if live > 2u {
                let x2 = x_tile[xi + 16u];
                l2 = fma(vec4<f32>(x2.x), l_x, fma(vec4<f32>(x2.y), l_y,
                    fma(vec4<f32>(x2.z), l_z, fma(vec4<f32>(x2.w), l_w, l2))));
                h2 = fma(vec4<f32>(x2.x), h_x, fma(vec4<f32>(x2.y), h_y,
                    fma(vec4<f32>(x2.z), h_z, fma(vec4<f32>(x2.w), h_w, h2))));
            }
            if live > 3u {
                let x3 = x_tile[xi + 24u];
                l3 = fma(vec4<f32>(x3.x), l_x, fma(vec4<f32>(x3.y), l_y,
                    fma(vec4<f32>(x3.z), l_z, fma(vec4<f32>(x3.w), l_w, l3))));
                h3 = fma(vec4<f32>(x3.x), h_x, fma(vec4<f32>(x3.y), h_y,
                    fma(vec4<f32>(x3.z), h_z, fma(vec4<f32>(x3.w), h_w, h3))));
            }
            if live > 4u {
                let x4 = x_tile[xi + 32u];
                l4 = fma(vec4<f32>(x4.x), l_x, fma(vec4<f32>(x4.y), l_y,
                    fma(vec4<f32>(x4.z), l_z, fma(vec4<f32>(x4.w), l_w, l4))));
                h4 = fma(vec4<f32>(x4.x), h_x, fma(vec4<f32>(x4.y), h_y,
                    fma(vec4<f32>(x4.z), h_z, fma(vec4<f32>(x4.w), h_w, h4))));
            }
            if live > 5u {
                let x5 = x_tile[xi + 40u];
                l5 = fma(vec4<f32>(x5.x), l_x, fma(vec4<f32>(x5.y), l_y,
                    fma(vec4<f32>(x5.z), l_z, fma(vec4<f32>(x5.w), l_w, l5))));
                h5 = fma(vec4<f32>(x5.x), h_x, fma(vec4<f32>(x5.y), h_y,
                    fma(vec4<f32>(x5.z), h_z, fma(vec4<f32>(x5.w), h_w, h5))));
            }
            if live > 6u {
                let x6 = x_tile[xi + 48u];
                l6 = fma(vec4<f32>(x6.x), l_x, fma(vec4<f32>(x6.y), l_y,
                    fma(vec4<f32>(x6.z), l_z, fma(vec4<f32>(x6.w), l_w, l6))));
                h6 = fma(vec4<f32>(x6.x), h_x, fma(vec4<f32>(x6.y), h_y,
                    fma(vec4<f32>(x6.z), h_z, fma(vec4<f32>(x6.w), h_w, h6))));
            }
            if live > 7u {
                let x7 = x_tile[xi + 56u];
                l7 = fma(vec4<f32>(x7.x), l_x, fma(vec4<f32>(x7.y), l_y,
                    fma(vec4<f32>(x7.z), l_z, fma(vec4<f32>(x7.w), l_w, l7))));
                h7 = fma(vec4<f32>(x7.x), h_x, fma(vec4<f32>(x7.y), h_y,
                    fma(vec4<f32>(x7.z), h_z, fma(vec4<f32>(x7.w), h_w, h7))));
            }
        }
        workgroupBarrier();
    }
    let n = column0 + lane_column;
    put4(y_offset, row0 + lane_row + 0u, n, l0);
    put4(y_offset, row0 + lane_row + 0u, n + 32u, h0);
    put4(y_offset, row0 + lane_row + 8u, n, l1);
    put4(y_offset, row0 + lane_row + 8u, n + 32u, h1);
    put4(y_offset, row0 + lane_row + 16u, n, l2);
    put4(y_offset, row0 + lane_row + 16u, n + 32u, h2);
    put4(y_offset, row0 + lane_row + 24u, n, l3);
    put4(y_offset, row0 + lane_row + 24u, n + 32u, h3);
    put4(y_offset, row0 + lane_row + 32u, n, l4);
    put4(y_offset, row0 + lane_row + 32u, n + 32u, h4);
    put4(y_offset, row0 + lane_row + 40u, n, l5);
    put4(y_offset, row0 + lane_row + 40u, n + 32u, h5);
    put4(y_offset, row0 + lane_row + 48u, n, l6);
    put4(y_offset, row0 + lane_row + 48u, n + 32u, h6);
    put4(y_offset, row0 + lane_row + 56u, n, l7);
    put4(y_offset, row0 + lane_row + 56u, n + 32u, h7);
}
