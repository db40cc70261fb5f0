//! How many threads compute.

use std::thread::available_parallelism;

use crate::device::options::EngineOptions;
use crate::error::{Error, Result};

/// Most threads that can be asked for.
const MAX_THREADS: usize = 256;

/// The threads that `options` ask for, else the environment variable `BOLMO_THREADS`, else one for each physical core
/// that this process may use.
pub(in crate::device) fn wanted_threads(options: &EngineOptions) -> Result<usize> {
    if let Some(threads) = options.threads {
        return checked("threads", &threads.to_string());
    }
    match std::env::var_os("BOLMO_THREADS").filter(|text| !text.is_empty()) {
        Some(text) => checked("BOLMO_THREADS", &text.to_string_lossy()),
        None => Ok(default_threads()),
    }
}

fn checked(name: &str, text: &str) -> Result<usize> {
    let threads = text.trim().parse().ok().filter(|threads| (1..=MAX_THREADS).contains(threads));
    threads.ok_or_else(|| Error::invalid(format!("{name}: expected a number from 1 to {MAX_THREADS}, found {text:?}")))
}

/// One thread for each physical core. Two threads on one core share its arithmetic units and caches.
fn default_threads() -> usize {
    // The process's affinity and the quota of its control group bound what it may use.
    let usable = available_parallelism().map_or(1, usize::from);
    usable.min(num_cpus::get_physical()).clamp(1, MAX_THREADS)
}

/// The name of the CPU.
pub(super) fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| format!("CPU ({})", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}
