//! Wall times of a side, sample by sample.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a side gets before a sample to put the spinning threads of the side before it to sleep.
const SETTLE: Duration = Duration::from_millis(10);

/// Runs one sample.
pub type Sample<'a> = Box<dyn FnMut() -> Result<(), String> + 'a>;

/// Times one sample, in seconds.
pub fn time(sample: &mut Sample<'_>) -> Result<f64, String> {
    thread::sleep(SETTLE);
    let begun = Instant::now();
    sample()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds per product.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub minimum: f64,
    pub median: f64,
}

impl Times {
    /// The times of one product in samples of `products` products.
    pub fn of(samples: &[f64], products: usize) -> Self {
        let mut sorted: Vec<f64> = samples.iter().map(|seconds| seconds / products as f64).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        Self { minimum: at(0), median: at(sorted.len() / 2) }
    }

    pub fn to_json(self) -> Value {
        json!({ "minimum": self.minimum, "median": self.median })
    }
}

/// The geometric mean, NaN of no values.
pub fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logarithms: Vec<f64> = values.map(f64::ln).collect();
    (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp()
}
