//! Derivatives by central differences, with an estimate of their error.

/// A derivative by central differences.
#[derive(Debug, Clone, Copy)]
pub struct Slope {
    /// The derivative.
    pub value: f64,
    /// The error estimate: how far neighboring steps disagree, and no less than what rounding to f32 may change.
    pub error: f64,
}

/// The smallest step.
const FINEST: f64 = 1e-4;
/// Each step is this much larger than the one before.
const RATIO: f64 = 4.0;
/// Steps tried, the largest of which is 0.1.
const STEPS: usize = 6;

/// The derivative of `f` at 0, from the three neighboring steps that disagree least.
///
/// A central difference has a truncation error, which grows with the square of the step, and a rounding error, which
/// shrinks with it; no fixed step suits every function. Of three steps that agree, the largest shows the truncation
/// error, 16 times that of the middle one, and the smallest the rounding error, 4 times that of the middle one: the
/// middle one is good to what they disagree by. Steps grow from the finest one, so that a feature of `f` between two
/// coarse steps cannot hide, until the disagreement is at most `enough`.
pub fn slope(mut f: impl FnMut(f64) -> f64, enough: f64) -> Slope {
    let mut difference = |step: f64| {
        let (above, below) = (f(step), f(-step));
        // Two values with half a unit in the last place each; `f` is at least as coarse as f32.
        let rounding = f64::from(f32::EPSILON) * above.abs().max(below.abs()) / (2.0 * step);
        ((above - below) / (2.0 * step), rounding)
    };
    let mut best = Slope { value: f64::NAN, error: f64::INFINITY };
    let mut step = RATIO * FINEST;
    let ((mut fine, _), mut middle) = (difference(FINEST), difference(step));
    for _ in 2..STEPS {
        step *= RATIO;
        let coarse = difference(step);
        let disagreement = (fine - middle.0).abs().max((middle.0 - coarse.0).abs());
        // Rounded values may agree by chance.
        let error = disagreement.max(1.25 * middle.1);
        if error < best.error {
            best = Slope { value: middle.0 + (middle.0 - coarse.0) / (RATIO * RATIO - 1.0), error };
        }
        if best.error <= enough {
            break;
        }
        (fine, middle) = (middle.0, coarse);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_within_their_error_for_gentle_and_steep_functions() {
        for steepness in [0.1, 1.0, 30.0, 100.0] {
            // Rounded as a loss is that was computed in f32.
            let f = |x: f64| f64::from((1.5 + 0.01 * (steepness * x + 0.3).sin()) as f32);
            let expected = 0.01 * steepness * 0.3_f64.cos();
            let found = slope(f, 0.0);
            assert!((found.value - expected).abs() <= found.error, "{steepness}: {found:?}, expected {expected}");
            assert!(found.error <= 0.02 * expected, "{steepness}: {found:?}, expected {expected}");
        }
    }

    #[test]
    fn a_feature_between_coarse_steps_is_seen() {
        // Coarse steps see a slope of 1.
        let f = |x: f64| x + x * (-(x / 4e-3).powi(2)).exp();
        assert!((slope(f, 0.2).value - 2.0).abs() < 1e-2);
    }
}
