use super::{dot, sizes};
use crate::params;

/// The sum of squares over each block of x; the last block may be shorter.
///
/// Shapes: x `[count]`, out `[blocks]`.
pub fn sum_squares(p: &params::SumSquares, x: &[f32], out: &mut [f32]) {
    let [count, per] = sizes([4 * p.count4, 4 * p.per4]);
    for (x, out) in x[..count].chunks(per).zip(out) {
        *out = dot(x, x) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_block_may_be_shorter() {
        let x: Vec<f32> = (1..=16).map(|v| v as f32).collect();
        let mut out = [7.0; 3];
        sum_squares(&params::SumSquares { count4: 3, per4: 2 }, &x, &mut out);
        // n (n + 1) (2 n + 1) / 6 for n = 8 and 12.
        assert_eq!(out, [204.0, 650.0 - 204.0, 7.0]);
    }
}
