// y = x Wᵀ + b for many rows of x, as `../matmul.wgsl`, by one subgroup of 8 lanes that computes 32 x 32 outputs in
// registers: for adapters on CPUs, where barriers are expensive and loads, made lane by lane, cost more than
// arithmetic. A lane handles four rows of W, 8 apart, and loads four weights of each, so the loads of all lanes
// together are columns of W in any layout. The rows of x are distributed over the lanes in the same way and broadcast.
// Unrolled by hand: drivers keep local arrays indexed in a loop in memory.
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

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let row0 = group.y * 32u;
    let column0 = group.x * 32u;
    // Lanes past the last row repeat it and do not write it.
    let n0 = min(column0 + lane, p.n - 1u) * p.k4;
    let n1 = min(column0 + 8u + lane, p.n - 1u) * p.k4;
    let n2 = min(column0 + 16u + lane, p.n - 1u) * p.k4;
    let n3 = min(column0 + 24u + lane, p.n - 1u) * p.k4;
    let r0 = p.x_offset4 + min(row0 + lane, p.rows - 1u) * p.x_stride4;
    let r1 = p.x_offset4 + min(row0 + 8u + lane, p.rows - 1u) * p.x_stride4;
    let r2 = p.x_offset4 + min(row0 + 16u + lane, p.rows - 1u) * p.x_stride4;
    let r3 = p.x_offset4 + min(row0 + 24u + lane, p.rows - 1u) * p.x_stride4;
    // One variable per row: columns lane + 0, 8, 16, 24.
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var a4 = vec4<f32>();
    var a5 = vec4<f32>();
    var a6 = vec4<f32>();
    var a7 = vec4<f32>();
    var a8 = vec4<f32>();
    var a9 = vec4<f32>();
    var a10 = vec4<f32>();
    var a11 = vec4<f32>();
    var a12 = vec4<f32>();
    var a13 = vec4<f32>();
    var a14 = vec4<f32>();
    var a15 = vec4<f32>();
    var a16 = vec4<f32>();
    var a17 = vec4<f32>();
    var a18 = vec4<f32>();
    var a19 = vec4<f32>();
    var a20 = vec4<f32>();
    var a21 = vec4<f32>();
    var a22 = vec4<f32>();
    var a23 = vec4<f32>();
    var a24 = vec4<f32>();
    var a25 = vec4<f32>();
    var a26 = vec4<f32>();
    var a27 = vec4<f32>();
    var a28 = vec4<f32>();
    var a29 = vec4<f32>();
    var a30 = vec4<f32>();
    var a31 = vec4<f32>();
    let y_offset = p.y_offset + group.z * p.y_part;
    let begin = group.z * p.part4;
    let end = select(min(begin + p.part4, p.k4), p.k4, p.part4 == 0u);
    for (var k = begin; k < end; k++) {
        let w0 = weights(n0 + k);
        let w1 = weights(n1 + k);
        let w2 = weights(n2 + k);
        let w3 = weights(n3 + k);
        let t0 = vec4<f32>(w0.x, w1.x, w2.x, w3.x);
        let t1 = vec4<f32>(w0.y, w1.y, w2.y, w3.y);
        let t2 = vec4<f32>(w0.z, w1.z, w2.z, w3.z);
        let t3 = vec4<f32>(w0.w, w1.w, w2.w, w3.w);
        let x0 = x[r0 + k];
        let b0 = subgroupBroadcast(x0, 0u);
        a0 = fma(vec4<f32>(b0.x), t0, fma(vec4<f32>(b0.y), t1, fma(vec4<f32>(b0.z), t2, fma(vec4<f32>(b0.w), t3, a0))));
        let b1 = subgroupBroadcast(x0, 1u);
        a1 = fma(vec4<f32>(b1.x), t0, fma(vec4<f32>(b1.y), t1, fma(vec4<f32>(b1.z), t2, fma(vec4<f32>(b1.w), t3, a1))));
        let b2 = subgroupBroadcast(x0, 2u);
        a2 = fma(vec4<f32>(b2.x), t0, fma(vec4<f32>(b2.y), t1, fma(vec4<f32>(b2.z), t2, fma(vec4<f32>(b2.w), t3, a2))));
        let b3 = subgroupBroadcast(x0, 3u);
        a3 = fma(vec4<f32>(b3.x), t0, fma(vec4<f32>(b3.y), t1, fma(vec4<f32>(b3.z), t2, fma(vec4<f32>(b3.w), t3, a3))));
        let b4 = subgroupBroadcast(x0, 4u);
        a4 = fma(vec4<f32>(b4.x), t0, fma(vec4<f32>(b4.y), t1, fma(vec4<f32>(b4.z), t2, fma(vec4<f32>(b4.w), t3, a4))));
        let b5 = subgroupBroadcast(x0, 5u);
        a5 = fma(vec4<f32>(b5.x), t0, fma(vec4<f32>(b5.y), t1, fma(vec4<f32>(b5.z), t2, fma(vec4<f32>(b5.w), t3, a5))));
        let b6 = subgroupBroadcast(x0, 6u);
        a6 = fma(vec4<f32>(b6.x), t0, fma(vec4<f32>(b6.y), t1, fma(vec4<f32>(b6.z), t2, fma(vec4<f32>(b6.w), t3, a6))));
        let b7 = subgroupBroadcast(x0, 7u);
        a7 = fma(vec4<f32>(b7.x), t0, fma(vec4<f32>(b7.y), t1, fma(vec4<f32>(b7.z), t2, fma(vec4<f32>(b7.w), t3, a7))));
        let x1 = x[r1 + k];
        let b8 = subgroupBroadcast(x1, 0u);
        a8 = fma(vec4<f32>(b8.x), t0, fma(vec4<f32>(b8.y), t1, fma(vec4<f32>(b8.z), t2, fma(vec4<f32>(b8.w), t3, a8))));
        let b9 = subgroupBroadcast(x1, 1u);
        a9 = fma(vec4<f32>(b9.x), t0, fma(vec4<f32>(b9.y), t1, fma(vec4<f32>(b9.z), t2, fma(vec4<f32>(b9.w), t3, a9))));
        let b10 = subgroupBroadcast(x1, 2u);
        a10 = fma(vec4<f32>(b10.x), t0, fma(vec4<f32>(b10.y), t1,
            fma(vec4<f32>(b10.z), t2, fma(vec4<f32>(b10.w), t3, a10))));
        let b11 = subgroupBroadcast(x1, 3u);
        a11 = fma(vec4<f32>(b11.x), t0, fma(vec4<f32>(b11.y), t1,
            fma(vec4<f32>(b11.z), t2, fma(vec4<f32>(b11.w), t3, a11))));
        let b12 = subgroupBroadcast(x1, 4u);
        a12 = fma(vec4<f32>(b12.x), t0, fma(vec4<f32>(b12.y), t1,
            fma(vec4<f32>(b12.z), t2, fma(vec4<f32>(b12.w), t3, a12))));
        let b13 = subgroupBroadcast(x1, 5u);
        a13 = fma(vec4<f32>(b13.x), t0, fma(vec4<f32>(b13.y), t1,
            fma(vec4<f32>(b13.z), t2, fma(vec4<f32>(b13.w), t3, a13))));
        let b14 = subgroupBroadcast(x1, 6u);
        a14 = fma(vec4<f32>(b14.x), t0, fma(vec4<f32>(b14.y), t1,
            fma(vec4<f32>(b14.z), t2, fma(vec4<f32>(b14.w), t3, a14))));
        let b15 = subgroupBroadcast(x1, 7u);
        a15 = fma(vec4<f32>(b15.x), t0, fma(vec4<f32>(b15.y), t1,
            fma(vec4<f32>(b15.z), t2, fma(vec4<f32>(b15.w), t3, a15))));
        let x2 = x[r2 + k];
        let b16 = subgroupBroadcast(x2, 0u);
        a16 = fma(vec4<f32>(b16.x), t0, fma(vec4<f32>(b16.y), t1,
            fma(vec4<f32>(b16.z), t2, fma(vec4<f32>(b16.w), t3, a16))));
        let b17 = subgroupBroadcast(x2, 1u);
        a17 = fma(vec4<f32>(b17.x), t0, fma(vec4<f32>(b17.y), t1,
            fma(vec4<f32>(b17.z), t2, fma(vec4<f32>(b17.w), t3, a17))));
        let b18 = subgroupBroadcast(x2, 2u);
        a18 = fma(vec4<f32>(b18.x), t0, fma(vec4<f32>(b18.y), t1,
            fma(vec4<f32>(b18.z), t2, fma(vec4<f32>(b18.w), t3, a18))));
        let b19 = subgroupBroadcast(x2, 3u);
        a19 = fma(vec4<f32>(b19.x), t0, fma(vec4<f32>(b19.y), t1,
            fma(vec4<f32>(b19.z), t2, fma(vec4<f32>(b19.w), t3, a19))));
        let b20 = subgroupBroadcast(x2, 4u);
        a20 = fma(vec4<f32>(b20.x), t0, fma(vec4<f32>(b20.y), t1,
            fma(vec4<f32>(b20.z), t2, fma(vec4<f32>(b20.w), t3, a20))));
        let b21 = subgroupBroadcast(x2, 5u);
        a21 = fma(vec4<f32>(b21.x), t0, fma(vec4<f32>(b21.y), t1,
            fma(vec4<f32>(b21.z), t2, fma(vec4<f32>(b21.w), t3, a21))));
        let b22 = subgroupBroadcast(x2, 6u);
        a22 = fma(vec4<f32>(b22.x), t0, fma(vec4<f32>(b22.y), t1,
            fma(vec4<f32>(b22.z), t2, fma(vec4<f32>(b22.w), t3, a22))));
        let b23 = subgroupBroadcast(x2, 7u);
        a23 = fma(vec4<f32>(b23.x), t0, fma(vec4<f32>(b23.y), t1,
            fma(vec4<f32>(b23.z), t2, fma(vec4<f32>(b23.w), t3, a23))));
        let x3 = x[r3 + k];
        let b24 = subgroupBroadcast(x3, 0u);
        a24 = fma(vec4<f32>(b24.x), t0, fma(vec4<f32>(b24.y), t1,
            fma(vec4<f32>(b24.z), t2, fma(vec4<f32>(b24.w), t3, a24))));
        let b25 = subgroupBroadcast(x3, 1u);
        a25 = fma(vec4<f32>(b25.x), t0, fma(vec4<f32>(b25.y), t1,
            fma(vec4<f32>(b25.z), t2, fma(vec4<f32>(b25.w), t3, a25))));
        let b26 = subgroupBroadcast(x3, 2u);
        a26 = fma(vec4<f32>(b26.x), t0, fma(vec4<f32>(b26.y), t1,
            fma(vec4<f32>(b26.z), t2, fma(vec4<f32>(b26.w), t3, a26))));
        let b27 = subgroupBroadcast(x3, 3u);
        a27 = fma(vec4<f32>(b27.x), t0, fma(vec4<f32>(b27.y), t1,
            fma(vec4<f32>(b27.z), t2, fma(vec4<f32>(b27.w), t3, a27))));
        let b28 = subgroupBroadcast(x3, 4u);
        a28 = fma(vec4<f32>(b28.x), t0, fma(vec4<f32>(b28.y), t1,
            fma(vec4<f32>(b28.z), t2, fma(vec4<f32>(b28.w), t3, a28))));
        let b29 = subgroupBroadcast(x3, 5u);
        a29 = fma(vec4<f32>(b29.x), t0, fma(vec4<f32>(b29.y), t1,
            fma(vec4<f32>(b29.z), t2, fma(vec4<f32>(b29.w), t3, a29))));
        let b30 = subgroupBroadcast(x3, 6u);
        a30 = fma(vec4<f32>(b30.x), t0, fma(vec4<f32>(b30.y), t1,
            fma(vec4<f32>(b30.z), t2, fma(vec4<f32>(b30.w), t3, a30))));
        let b31 = subgroupBroadcast(x3, 7u);
        a31 = fma(vec4<f32>(b31.x), t0, fma(vec4<f32>(b31.y), t1,
            fma(vec4<f32>(b31.z), t2, fma(vec4<f32>(b31.w), t3, a31))));
    }
    put(y_offset, row0, column0 + lane, a0);
    put(y_offset, row0 + 1u, column0 + lane, a1);
    put(y_offset, row0 + 2u, column0 + lane, a2);
    put(y_offset, row0 + 3u, column0 + lane, a3);
    put(y_offset, row0 + 4u, column0 + lane, a4);
    put(y_offset, row0 + 5u, column0 + lane, a5);
    put(y_offset, row0 + 6u, column0 + lane, a6);
    put(y_offset, row0 + 7u, column0 + lane, a7);
    put(y_offset, row0 + 8u, column0 + lane, a8);
    put(y_offset, row0 + 9u, column0 + lane, a9);
    put(y_offset, row0 + 10u, column0 + lane, a10);
    put(y_offset, row0 + 11u, column0 + lane, a11);
    put(y_offset, row0 + 12u, column0 + lane, a12);
    put(y_offset, row0 + 13u, column0 + lane, a13);
    put(y_offset, row0 + 14u, column0 + lane, a14);
    put(y_offset, row0 + 15u, column0 + lane, a15);
    put(y_offset, row0 + 16u, column0 + lane, a16);
    put(y_offset, row0 + 17u, column0 + lane, a17);
    put(y_offset, row0 + 18u, column0 + lane, a18);
    put(y_offset, row0 + 19u, column0 + lane, a19);
    put(y_offset, row0 + 20u, column0 + lane, a20);
    put(y_offset, row0 + 21u, column0 + lane, a21);
    put(y_offset, row0 + 22u, column0 + lane, a22);
    put(y_offset, row0 + 23u, column0 + lane, a23);
    put(y_offset, row0 + 24u, column0 + lane, a24);
    put(y_offset, row0 + 25u, column0 + lane, a25);
    put(y_offset, row0 + 26u, column0 + lane, a26);
    put(y_offset, row0 + 27u, column0 + lane, a27);
    put(y_offset, row0 + 28u, column0 + lane, a28);
    put(y_offset, row0 + 29u, column0 + lane, a29);
    put(y_offset, row0 + 30u, column0 + lane, a30);
    put(y_offset, row0 + 31u, column0 + lane, a31);
}

// Writes one row of outputs: columns n, n + 8, n + 16 and n + 24.
fn put(y_offset: u32, row: u32, n: u32, value: vec4<f32>) {
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
