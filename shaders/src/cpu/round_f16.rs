use half::f16;

use super::sizes;
use crate::params;

/// `y = x` rounded to the nearest f16, clamped to the range of f16.
///
/// Shapes: x `[count]`, y `[count]`.
pub fn round_f16(p: &params::RoundF16, x: &[f32], y: &mut [f16]) {
    let [count] = sizes([4 * p.count4]);
    let largest = f32::from(f16::MAX);
    for (x, y) in x[..count].iter().zip(y) {
        *y = f16::from_f32(x.clamp(-largest, largest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_become_the_largest() {
        let x = [1.0, -65504.0, 1e6, f32::NEG_INFINITY, f32::NAN, 0.333_333_34, 1e-9, 6e-8];
        let mut y = [f16::ONE; 9];
        round_f16(&params::RoundF16 { count4: 2 }, &x, &mut y);
        let found = y.map(f32::from);
        assert_eq!(found[..4], [1.0, -65504.0, 65504.0, -65504.0]);
        assert!(found[4].is_nan());
        assert_eq!(found[5..], [0.333_251_95, 0.0, 5.960_464_5e-8, 1.0]);
    }
}
