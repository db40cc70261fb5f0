//! Shared parts of the benchmarks: progress on standard error, the model's name, the memory of the process, and the
//! load of the machine.

use std::io::{self, IsTerminal, Write};

use crate::args::Common;

/// Prints the current step on a terminal.
pub struct Steps {
    shown: bool,
}

impl Steps {
    /// Prints steps if standard error is a terminal and `--quiet` is not set.
    pub fn new(common: &Common) -> Self {
        Self { shown: !common.quiet && io::stderr().is_terminal() }
    }

    /// Announces the next step.
    pub fn next(&self, what: &str) {
        if self.shown {
            let _ = writeln!(io::stderr(), "bench: {what}");
        }
    }
}

/// The model's name in a table.
pub fn model_name(common: &Common) -> String {
    match &common.model {
        None => "the built-in demo model".to_owned(),
        Some(dir) => {
            dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
        }
    }
}

/// Peak main memory of the process, if the system reports it.
pub fn host_peak() -> Option<u64> {
    status("VmHWM:")
}

/// Memory that this process shares with no file and no other process, now, in bytes.
pub fn host_own() -> Option<u64> {
    status("RssAnon:")
}

/// A size of this process, if the system reports it.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The machine's load average over one minute, if the system reports it.
pub fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
