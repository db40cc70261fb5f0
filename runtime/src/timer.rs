//! The time that work takes, for log lines.

use std::fmt;

/// A time that began. Shown as `in 1.23 s`; in browsers, which have no clock for this, as `done`.
#[derive(Debug)]
pub(crate) struct Timer {
    #[cfg(not(target_family = "wasm"))]
    begun: std::time::Instant,
}

impl Timer {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(not(target_family = "wasm"))]
            begun: std::time::Instant::now(),
        }
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(not(target_family = "wasm"))]
        return write!(f, "in {:.3} s", self.begun.elapsed().as_secs_f64());
        #[cfg(target_family = "wasm")]
        f.write_str("done")
    }
}
