// y = x Wᵀ + b for few rows of x: a team of lanes streams four rows of W at a time and shares each load of x.
struct Params {
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

// Rows of W a workgroup takes; 4 * teams keeps every team busy once.
override ROWS: u32 = 32u;

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

fn run(group: vec3<u32>, lane: u32) {
    let x0 = p.x_offset4 + group.y * p.x_stride4;
    let rounds = (ROWS + 4u * teams - 1u) / (4u * teams);
    for (var round = 0u; round < rounds; round++) {
        let local = 4u * (round * teams + team);
        // Teams past the end of the piece compute its last rows once more and write nothing.
        let n = group.x * ROWS + local;
        let r0 = min(n, p.n - 1u) * p.k4;
        let r1 = min(n + 1u, p.n - 1u) * p.k4;
        let r2 = min(n + 2u, p.n - 1u) * p.k4;
        let r3 = min(n + 3u, p.n - 1u) * p.k4;
        var a0 = vec4<f32>();
        var a1 = vec4<f32>();
        var a2 = vec4<f32>();
        var a3 = vec4<f32>();
        for (var i = team_lane; i < p.k4; i += team_size) {
            let v = x[x0 + i];
            a0 += v * weights(r0 + i);
            a1 += v * weights(r1 + i);
            a2 += v * weights(r2 + i);
            a3 += v * weights(r3 + i);
        }
        let one = vec4<f32>(1.0);
        let s = team_sum(vec4<f32>(dot(a0, one), dot(a1, one), dot(a2, one), dot(a3, one)));
        if team_lane == 0u && local < ROWS {
            put(group.y, n, s.x);
            put(group.y, n + 1u, s.y);
            put(group.y, n + 2u, s.z);
            put(group.y, n + 3u, s.w);
        }
    }
}
