// y = x Wᵀ + b for few rows of x. A team of lanes streams TEAM_ROWS rows of W at a time and shares each load of x.
// Constants prepended to this text select the fused variants:
//   NORM   x goes through an RMS norm first: W (scale * x) / sqrt(mean(x^2) + eps); each team sums the squares itself
//   GATED  rows of W alternate between gate and up: y[j] = silu(W[2 j] x) * (W[2 j + 1] x), the inner product of a
//          feed-forward layer (docs/model.md, "Local layer (mLSTM)" and "Global blocks")
struct Params {
    n: u32,         // rows of W in this slice
    k4: u32,        // columns of W / 4
    x_offset4: u32, // offset of row 0 in x, / 4
    x_stride4: u32,
    y_offset: u32,  // offset of this slice's first output in row 0 of y
    y_stride: u32,
    add: u32,       // 1: y += result, 0: y = result
    bias: u32,      // 1: add the bias
    eps: f32,       // epsilon of the norm
}
@group(0) @binding(0) var<uniform> p: Params;
// binding 1: w                                                       [n, k]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [rows, k] at x_offset, x_stride
@group(0) @binding(3) var<storage, read> b: array<f32>;            // [n]
@group(0) @binding(4) var<storage, read> scale: array<vec4<f32>>;  // [k], of the norm
@group(0) @binding(5) var<storage, read_write> y: array<f32>;      // [rows, n or n / 2 if gated] at y_offset, y_stride

// Rows of W per workgroup; at TEAM_ROWS * teams every team makes one pass.
override ROWS: u32 = 32u;
// Rows of W that a team handles at a time: 4, 8 or 16.
override TEAM_ROWS: u32 = 4u;
// Whether a team of four rows keeps four loads per row in flight. A GPU needs this to saturate its memory when a small
// W gives it few threads. It is of no use on CPUs.
override AHEAD: bool = false;

var<private> x0: u32;             // offset of the row of x
var<private> squares: vec4<f32>;  // squares of the values of x that this lane has loaded

// Four values of x, normalized if NORM.
fn x_value(i: u32) -> vec4<f32> {
    let v = x[x0 + i];
    if NORM {
        squares += v * v;
        return v * scale[i];
    }
    return v;
}

fn put(row: u32, n: u32, value: f32) {
    if n < p.n {
        let at = p.y_offset + row * p.y_stride + n;
        var v = value;
        if p.bias != 0u {
            v += b[n];
        }
        if p.add != 0u {
            v += y[at];
        }
        y[at] = v;
    }
}

// Writes the output of rows n and n + 1 of W.
fn put_gated(row: u32, n: u32, gate: f32, up: f32) {
    if n < p.n {
        y[p.y_offset + row * p.y_stride + n / 2u] = gate / (1.0 + exp(-gate)) * up;
    }
}

// Writes the outputs of rows n .. n + 3 of W.
fn put4(row: u32, n: u32, s: vec4<f32>) {
    if GATED {
        put_gated(row, n, s.x, s.y);
        put_gated(row, n + 2u, s.z, s.w);
    } else {
        put(row, n, s.x);
        put(row, n + 1u, s.y);
        put(row, n + 2u, s.z);
        put(row, n + 3u, s.w);
    }
}

// The index of a row of W. Rows past the end of the slice repeat its last row and are not written.
fn row_of(n: u32) -> u32 {
    return min(n, p.n - 1u);
}

fn sums(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let one = vec4<f32>(1.0);
    return team_sum(vec4<f32>(dot(a, one), dot(b, one), dot(c, one), dot(d, one)));
}

// The grid is rows of x by parts of W: workgroups that read the same part run in succession and hit the cache.
fn run(group: vec3<u32>, lane: u32) {
    if halted(group.x) {
        return;
    }
    x0 = p.x_offset4 + group.x * p.x_stride4;
    let blocks = p.k4 / BLOCK4;
    let rounds = (ROWS + TEAM_ROWS * teams - 1u) / (TEAM_ROWS * teams);
    for (var round = 0u; round < rounds; round++) {
        let local = TEAM_ROWS * (round * teams + team);
        let n = group.y * ROWS + local;
        let n0 = row_of(n);
        let n1 = row_of(n + 1u);
        let n2 = row_of(n + 2u);
        let n3 = row_of(n + 3u);
        let n4 = row_of(n + 4u);
        let n5 = row_of(n + 5u);
        let n6 = row_of(n + 6u);
        let n7 = row_of(n + 7u);
        let n8 = row_of(n + 8u);
        let n9 = row_of(n + 9u);
        let n10 = row_of(n + 10u);
        let n11 = row_of(n + 11u);
        let n12 = row_of(n + 12u);
        let n13 = row_of(n + 13u);
        let n14 = row_of(n + 14u);
        let n15 = row_of(n + 15u);
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
        squares = vec4<f32>();
        var i = team_lane;
        if AHEAD {
            for (; i + 3u * team_size < blocks; i += 4u * team_size) {
                let j = i + team_size;
                let k = j + team_size;
                let l = k + team_size;
                let vi = load_block(i);
                let vj = load_block(j);
                let vk = load_block(k);
                let vl = load_block(l);
                a0 += (products(n0 * blocks, n0, i, vi) + products(n0 * blocks, n0, j, vj))
                    + (products(n0 * blocks, n0, k, vk) + products(n0 * blocks, n0, l, vl));
                a1 += (products(n1 * blocks, n1, i, vi) + products(n1 * blocks, n1, j, vj))
                    + (products(n1 * blocks, n1, k, vk) + products(n1 * blocks, n1, l, vl));
                a2 += (products(n2 * blocks, n2, i, vi) + products(n2 * blocks, n2, j, vj))
                    + (products(n2 * blocks, n2, k, vk) + products(n2 * blocks, n2, l, vl));
                a3 += (products(n3 * blocks, n3, i, vi) + products(n3 * blocks, n3, j, vj))
                    + (products(n3 * blocks, n3, k, vk) + products(n3 * blocks, n3, l, vl));
            }
        }
        for (; i < blocks; i += team_size) {
            let v = load_block(i);
            a0 += products(n0 * blocks, n0, i, v);
            a1 += products(n1 * blocks, n1, i, v);
            a2 += products(n2 * blocks, n2, i, v);
            a3 += products(n3 * blocks, n3, i, v);
            if TEAM_ROWS > 4u {
                a4 += products(n4 * blocks, n4, i, v);
                a5 += products(n5 * blocks, n5, i, v);
                a6 += products(n6 * blocks, n6, i, v);
                a7 += products(n7 * blocks, n7, i, v);
            }
            if TEAM_ROWS > 8u {
                a8 += products(n8 * blocks, n8, i, v);
                a9 += products(n9 * blocks, n9, i, v);
                a10 += products(n10 * blocks, n10, i, v);
                a11 += products(n11 * blocks, n11, i, v);
                a12 += products(n12 * blocks, n12, i, v);
                a13 += products(n13 * blocks, n13, i, v);
                a14 += products(n14 * blocks, n14, i, v);
                a15 += products(n15 * blocks, n15, i, v);
            }
        }
        var r = 1.0;
        if NORM {
            let mean = dot(team_sum(squares), vec4<f32>(1.0)) / f32(4u * p.k4);
            r = 1.0 / sqrt(mean + p.eps);
        }
        let s0 = r * sums(a0, a1, a2, a3);
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        if TEAM_ROWS > 4u {
            s1 = r * sums(a4, a5, a6, a7);
        }
        if TEAM_ROWS > 8u {
            s2 = r * sums(a8, a9, a10, a11);
            s3 = r * sums(a12, a13, a14, a15);
        }
        if team_lane == 0u && local < ROWS {
            put4(group.x, n, s0);
            if TEAM_ROWS > 4u {
                put4(group.x, n + 4u, s1);
            }
            if TEAM_ROWS > 8u {
                put4(group.x, n + 8u, s2);
                put4(group.x, n + 12u, s3);
            }
        }
    }
}
