// exp, log1p and tanh to within a few units in the last place of f32. The builtins may be far less accurate (exp: 3 +
// 2|x| ulp, log: 2^-21 absolute near 1, tanh of small values by cancellation), and errors of the gates accumulate over
// a sequence.

// e^x, 0 for x below the smallest normal result.
fn exp_accurate(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let n = round(min(x, 88.0) * 1.44269504);
    // ln 2 in two parts; n times the first part is exact.
    let r = (min(x, 88.0) - n * 0.693359375) + n * 2.12194440e-4;
    let q = 1.0 + r * (1.0 + r * (0.5 + r * (0.166666667 + r * (0.0416666667 + r * (8.33333333e-3
        + r * (1.38888889e-3 + r * 1.98412698e-4))))));
    // 2^n from its bits: ldexp may use an exp2 that is no more accurate than exp.
    return q * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// log(1 + u) for 0 <= u <= 1, as 2 atanh(u / (2 + u)).
fn log1p_accurate(u: f32) -> f32 {
    let s = u / (2.0 + u);
    let z = s * s;
    return 2.0 * s * (1.0 + z * (0.333333333 + z * (0.2 + z * (0.142857143 + z * (0.111111111
        + z * (0.0909090909 + z * (0.0769230769 + z * 0.0666666667)))))));
}

// tanh(x)
fn tanh_accurate(x: f32) -> f32 {
    let a = abs(x);
    if a < 0.3 {
        let z = x * x;
        return x * (1.0 + z * (-0.333333333 + z * (0.133333333
            + z * (-0.0539682540 + z * (0.0218694885 - z * 0.00886323553)))));
    }
    let t = exp_accurate(-2.0 * a);
    return sign(x) * (1.0 - t) / (1.0 + t);
}

// log(1 / (1 + e^-z))
fn log_sigmoid(z: f32) -> f32 {
    return min(z, 0.0) - log1p_accurate(exp_accurate(-abs(z)));
}
