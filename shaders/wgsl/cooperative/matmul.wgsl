// y = x Wᵀ + b for many rows of x, as `../matmul.wgsl`, on the adapter's matrix units: cooperative matrices of SIDE x
// SIDE, f16 by f16 into f32. A workgroup of four subgroups computes a tile of 4 SIDE x 4 SIDE outputs, each subgroup a
// quarter of it in four matrices. 32 columns of x and W at a time are rounded to f16 and staged in workgroup memory.
// Values of x out of the range of f16 become the largest f16.
// SIDE and the types MatrixA, MatrixB and MatrixC are prepended to this text.
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

override LANES: u32 = 128u; // of a workgroup: four times the size of a subgroup
const EDGE: u32 = 4u * SIDE; // rows and columns of a tile
const STEP4: u32 = 8u; // columns / 4 staged in workgroup memory
const PITCH: u32 = 40u; // row stride there, padded by eight so that rows start in different banks
var<workgroup> x_tile: array<f16, EDGE * PITCH>;        // [row, k]
var<workgroup> w_tile: array<f16, EDGE * PITCH>;        // [column, k]
var<workgroup> y_tile: array<f32, 4u * SIDE * SIDE>;    // [subgroup, row, column]

fn narrow(v: vec4<f32>) -> vec4<f16> {
    // NaNs stay NaNs.
    return vec4<f16>(select(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)), v, v != v));
}

// Copies one matrix of every subgroup from workgroup memory to y. `row` and `column` are those of the first subgroup.
fn put(y_offset: u32, row: u32, column: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < 4u * SIDE * SIDE; i += LANES) {
        let subgroup = i / (SIDE * SIDE);
        let r = row + subgroup / 2u * 2u * SIDE + i / SIDE % SIDE;
        let c = column + subgroup % 2u * 2u * SIDE + i % SIDE;
        if r < p.rows && c < p.n {
            let at = y_offset + r * p.y_stride + c;
            var v = y_tile[i];
            if p.bias != 0u {
                v += b[c];
            }
            if p.add != 0u {
                v += y[at];
            }
            y[at] = v;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let row0 = group.y * EDGE;
    let column0 = group.x * EDGE;
    // Offsets of this subgroup's rows of x and W in workgroup memory.
    let x0 = subgroup / 2u * 2u * SIDE * PITCH;
    let w0 = subgroup % 2u * 2u * SIDE * PITCH;
    var y00 = MatrixC();
    var y01 = MatrixC();
    var y10 = MatrixC();
    var y11 = MatrixC();
    let y_offset = p.y_offset + group.z * p.y_part;
    let begin = group.z * p.part4;
    let end = select(min(begin + p.part4, p.k4), p.k4, p.part4 == 0u);
    for (var k = begin; k < end; k += STEP4) {
        for (var i = lane; i < EDGE * STEP4; i += LANES) {
            let r = i / STEP4;
            let at = k + i % STEP4;
            var xv = vec4<f16>();
            var wv = vec4<f16>();
            if at < end && row0 + r < p.rows {
                xv = narrow(x[p.x_offset4 + (row0 + r) * p.x_stride4 + at]);
            }
            if at < end && column0 + r < p.n {
                wv = narrow(weights((column0 + r) * p.k4 + at));
            }
            let to = r * PITCH + 4u * (i % STEP4);
            x_tile[to] = xv.x;
            x_tile[to + 1u] = xv.y;
            x_tile[to + 2u] = xv.z;
            x_tile[to + 3u] = xv.w;
            w_tile[to] = wv.x;
            w_tile[to + 1u] = wv.y;
            w_tile[to + 2u] = wv.z;
            w_tile[to + 3u] = wv.w;
        }
        workgroupBarrier();
        for (var i = 0u; i < 4u * STEP4; i += SIDE) {
            let xa = coopLoadT<MatrixA>(&x_tile[x0 + i], PITCH);
            let xb = coopLoadT<MatrixA>(&x_tile[x0 + SIDE * PITCH + i], PITCH);
            let wa = coopLoad<MatrixB>(&w_tile[w0 + i], PITCH);
            let wb = coopLoad<MatrixB>(&w_tile[w0 + SIDE * PITCH + i], PITCH);
            y00 = coopMultiplyAdd(xa, wa, y00);
            y01 = coopMultiplyAdd(xa, wb, y01);
            y10 = coopMultiplyAdd(xb, wa, y10);
            y11 = coopMultiplyAdd(xb, wb, y11);
        }
        workgroupBarrier();
    }
    let mine = subgroup * SIDE * SIDE;
    coopStoreT(y00, &y_tile[mine], SIDE);
    put(y_offset, row0, column0, lane);
    coopStoreT(y01, &y_tile[mine], SIDE);
    put(y_offset, row0, column0 + SIDE, lane);
    coopStoreT(y10, &y_tile[mine], SIDE);
    put(y_offset, row0 + SIDE, column0, lane);
    coopStoreT(y11, &y_tile[mine], SIDE);
    put(y_offset, row0 + SIDE, column0 + SIDE, lane);
}
