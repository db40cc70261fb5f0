//! Accuracy of `wgsl/shared/math.wgsl` over the ranges in use, measured on a port of its functions to Rust.
//!
//! A device may or may not fuse multiply and add, so the functions of the port take the multiply-add as a parameter.

// Numbers have the same digits as in the shader.
#![allow(clippy::approx_constant, clippy::excessive_precision)]

use std::collections::BTreeSet;

/// `a * b + c`, rounded once or twice.
type MulAdd = fn(f32, f32, f32) -> f32;

const EITHER: [MulAdd; 2] = [|a, b, c| a * b + c, f32::mul_add];

/// `c0 + x (c1 + x (c2 + ...))`
fn polynomial(mul_add: MulAdd, x: f32, coefficients: &[f32]) -> f32 {
    let (last, rest) = coefficients.split_last().expect("a coefficient");
    rest.iter().rfold(*last, |sum, &c| mul_add(x, sum, c))
}

fn exp_accurate(mul_add: MulAdd, x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let n = (x.min(88.0) * 1.44269504).round_ties_even();
    let r = mul_add(n, 2.12194440e-4, mul_add(n, -0.693359375, x.min(88.0)));
    let q = polynomial(
        mul_add,
        r,
        &[1.0, 1.0, 0.5, 0.166666667, 0.0416666667, 8.33333333e-3, 1.38888889e-3, 1.98412698e-4],
    );
    q * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

fn log1p_accurate(mul_add: MulAdd, u: f32) -> f32 {
    let s = u / (2.0 + u);
    let coefficients = [1.0, 0.333333333, 0.2, 0.142857143, 0.111111111, 0.0909090909, 0.0769230769, 0.0666666667];
    2.0 * s * polynomial(mul_add, s * s, &coefficients)
}

fn tanh_accurate(mul_add: MulAdd, x: f32) -> f32 {
    let a = x.abs();
    if a < 0.3 {
        let coefficients = [1.0, -0.333333333, 0.133333333, -0.0539682540, 0.0218694885, -0.00886323553];
        return x * polynomial(mul_add, x * x, &coefficients);
    }
    let t = exp_accurate(mul_add, -2.0 * a);
    x.signum() * (1.0 - t) / (1.0 + t)
}

fn log_sigmoid(mul_add: MulAdd, z: f32) -> f32 {
    z.min(0.0) - log1p_accurate(mul_add, exp_accurate(mul_add, -z.abs()))
}

/// The largest error of `found` over `count + 1` points from `low` to `high`, in units in the last place.
fn worst(found: impl Fn(MulAdd, f32) -> f32, exact: fn(f64) -> f64, low: f32, high: f32, count: u32) -> f64 {
    let points = (0..=count).map(|i| low + (high - low) * (i as f32 / count as f32));
    let error = |x: f32| {
        let expected = exact(f64::from(x));
        let rounded = (expected as f32).abs();
        let ulp = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
        EITHER.map(|mul_add| (f64::from(found(mul_add, x)) - expected).abs() / ulp).into_iter().fold(0.0, f64::max)
    };
    points.map(error).fold(0.0, f64::max)
}

fn exact_log_sigmoid(z: f64) -> f64 {
    z.min(0.0) - (-z.abs()).exp().ln_1p()
}

#[test]
fn exp_is_accurate() {
    assert!(worst(exp_accurate, f64::exp, -87.0, 88.0, 2_000_000) <= 1.5);
    assert!(worst(exp_accurate, f64::exp, -1e-3, 1e-3, 10_000) <= 1.0);
    for mul_add in EITHER {
        assert_eq!(exp_accurate(mul_add, 0.0), 1.0);
        assert_eq!(exp_accurate(mul_add, -87.1), 0.0);
        assert_eq!(exp_accurate(mul_add, -1e9), 0.0);
        assert!(exp_accurate(mul_add, 1e9).is_finite());
    }
}

#[test]
fn log1p_is_accurate() {
    assert!(worst(log1p_accurate, f64::ln_1p, 1e-30, 1.0, 1_000_000) <= 3.0);
    assert!(worst(log1p_accurate, f64::ln_1p, 1e-30, 1e-6, 10_000) <= 2.0);
    assert_eq!(log1p_accurate(EITHER[0], 0.0), 0.0);
}

#[test]
fn tanh_is_accurate() {
    assert!(worst(tanh_accurate, f64::tanh, -20.0, 20.0, 1_000_000) <= 3.0);
    assert!(worst(tanh_accurate, f64::tanh, -0.35, 0.35, 100_000) <= 3.0);
    assert!(worst(tanh_accurate, f64::tanh, 1e-30, 1e-6, 10_000) <= 1.0);
}

#[test]
fn log_sigmoid_is_accurate() {
    assert!(worst(log_sigmoid, exact_log_sigmoid, -20.0, 20.0, 1_000_000) <= 4.0);
    assert!(worst(log_sigmoid, exact_log_sigmoid, -1000.0, 86.0, 1_000_000) <= 4.0);
}

/// A number that is missing from the port means that only the shader was changed.
#[test]
fn port_has_the_numbers_of_the_shader() {
    let numbers = |text: &str| -> BTreeSet<String> {
        let code = text.lines().map(|line| line.split("//").next().expect("a part"));
        let words = code.flat_map(|line| {
            line.split(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        words.filter(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit())).collect()
    };
    let port = numbers(include_str!("math.rs").split("fn log_sigmoid").next().expect("a part"));
    let missing: Vec<_> = numbers(include_str!("../wgsl/shared/math.wgsl")).difference(&port).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}
