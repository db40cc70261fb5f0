//! Progress bars on standard error, for work that takes long.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Common;

/// Work of unknown length shows its bar after this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Prompts and texts of more bytes show their bar at once.
const LONG_TEXT: u64 = 4096;

/// A bar that appears only on a terminal and if the work takes long. It disappears when it is dropped.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    wanted: bool,
    /// Larger work shows its bar at once.
    long: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar for text that goes through the model.
    pub fn of_text(what: &'static str, common: &Common) -> Self {
        Self::new(what, LONG_TEXT, common)
    }

    /// A bar for weights that are read or written.
    pub fn of_weights(what: &'static str, common: &Common) -> Self {
        Self::new(what, u64::MAX, common)
    }

    fn new(what: &'static str, long: u64, common: &Common) -> Self {
        let wanted = !common.json && !common.quiet && std::io::stderr().is_terminal();
        Self { what, wanted, long, started: Instant::now(), bar: None }
    }

    /// Sets the number of bytes that are done.
    pub fn update(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && self.wanted && (total > self.long || self.started.elapsed() > PATIENCE) {
            self.bar = Some(bar(self.what, total));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    let template = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} to go";
    // The template is a constant. Should it not parse, the default style is used.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
