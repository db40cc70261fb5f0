//! Rotary frequencies, and the tables of cosines and sines for the attention kernels
//! (`docs/model.md`, Attention and rotary embeddings).

use std::f64::consts::TAU;
use std::ops::Range;

use crate::config::RopeScaling;

/// Computes the frequencies `[head_dim / 2]` in radians per position, and the factor on cosine and sine.
///
/// `max_position` is the original context length if `scaling` gives none. For sliding layers, pass
/// [`RopeScaling::None`] whatever the model's scaling.
pub fn inverse_frequencies(head_dim: usize, theta: f64, scaling: &RopeScaling, max_position: usize) -> (Vec<f64>, f64) {
    let plain = (0..head_dim / 2).map(|i| theta.powf(-((2 * i) as f64) / head_dim as f64));
    let context = |original: usize| if original == 0 { max_position as f64 } else { original as f64 };
    match *scaling {
        RopeScaling::None => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|f| f / factor).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let context = context(original_max_position_embeddings);
            let scaled = plain.map(|f| {
                let turns = context * f / TAU;
                // 0 for low frequencies, which are divided, and 1 for high ones, which are kept.
                let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                f * keep + f / factor * (1.0 - keep)
            });
            (scaled.collect(), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => {
            let context = context(original_max_position_embeddings);
            // The dimension, as a real number, that makes this many turns within the original context.
            let dim_at = |turns: f64| head_dim as f64 * (context / (turns * TAU)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) = (dim_at(beta_fast), dim_at(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
            let width = if high > low { high - low } else { 0.001 };
            let scaled = plain.enumerate().map(|(i, f)| {
                let divide = ((i as f64 - low) / width).clamp(0.0, 1.0);
                f * (1.0 - divide) + f / factor * divide
            });
            (scaled.collect(), attention_factor)
        }
    }
}

/// Computes the cosines and sines `[positions, inverse.len(), 2]` of the given positions, in f64 and rounded once.
///
/// `inverse` and `factor` are the results of [`inverse_frequencies`].
pub fn cos_sin(positions: Range<usize>, inverse: &[f64], factor: f64) -> Vec<f32> {
    let mut table = Vec::with_capacity(positions.len().saturating_mul(inverse.len()).saturating_mul(2));
    for position in positions {
        for frequency in inverse {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            table.push((cos * factor) as f32);
            table.push((sin * factor) as f32);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn plain_and_linear() {
        let (plain, factor) = inverse_frequencies(8, 10_000.0, &RopeScaling::None, 4096);
        close(&plain, &[1.0, 0.1, 0.01, 0.001]);
        assert_eq!(factor, 1.0);
        let (linear, _) = inverse_frequencies(8, 10_000.0, &RopeScaling::Linear { factor: 4.0 }, 4096);
        close(&linear, &[0.25, 0.025, 0.0025, 0.00025]);
    }

    // The expected values below come from an independent float64 implementation.
    #[test]
    fn yarn() {
        let yarn = |truncate| RopeScaling::Yarn {
            factor: 8.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_max_position_embeddings: 8192,
            attention_factor: 1.25,
            truncate,
        };
        let (inverse, factor) = inverse_frequencies(16, 5e5, &yarn(true), 65_536);
        close(
            &inverse,
            &[
                1.0,
                0.19392274474868576,
                0.03760603093086393,
                0.005165637522195453,
                0.0005892556509887897,
                3.428102195952591e-05,
                6.647869871181235e-06,
                1.2891731721515574e-06,
            ],
        );
        assert_eq!(factor, 1.25);
        let (inverse, _) = inverse_frequencies(16, 5e5, &yarn(false), 65_536);
        close(
            &inverse,
            &[
                1.0,
                0.19392274474868576,
                0.03760603093086393,
                0.005058221359323482,
                0.00039523864706474685,
                3.428102195952591e-05,
                6.647869871181235e-06,
                1.2891731721515574e-06,
            ],
        );
    }

    #[test]
    fn llama3() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        let (inverse, factor) = inverse_frequencies(16, 5e5, &scaling, 65_536);
        close(
            &inverse,
            &[
                1.0,
                0.0794030091792082,
                0.004700753866357992,
                0.0009115830921521387,
                0.00017677669529663688,
                3.428102195952591e-05,
                6.647869871181235e-06,
                1.2891731721515574e-06,
            ],
        );
        assert_eq!(factor, 1.0);
    }

    #[test]
    fn an_absent_original_context_is_the_models() {
        let llama = |original| RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: original,
        };
        assert_eq!(inverse_frequencies(64, 5e5, &llama(0), 777), inverse_frequencies(64, 5e5, &llama(777), 123_456));
    }

    #[test]
    fn table_is_cosine_then_sine_with_the_factor() {
        let table = cos_sin(2..4, &[1.0, 0.5], 2.0);
        let expected: Vec<f32> =
            [2.0f64, 1.0, 3.0, 1.5].iter().flat_map(|a| [(2.0 * a.cos()) as f32, (2.0 * a.sin()) as f32]).collect();
        assert_eq!(table, expected);
        assert!(cos_sin(5..5, &[1.0], 1.0).is_empty());
    }
}
