//! How many threads compute.

use std::collections::BTreeSet;
use std::thread::available_parallelism;

use crate::device::options::EngineOptions;
use crate::error::{Error, Result};

/// Most threads that can be asked for.
const MAX_THREADS: usize = if cfg!(target_family = "wasm") { 1 } else { 256 };

/// Checks the number of threads that `options` ask for, whichever device is opened.
pub(in crate::device) fn check_threads(options: &EngineOptions) -> Result<()> {
    options.threads.map_or(Ok(()), |threads| checked("threads", &threads.to_string()).map(|_| ()))
}

/// The threads that `options` ask for, else the environment variable `BOLMO_THREADS`, else one for each physical core
/// that this process may use.
pub(super) fn wanted_threads(options: &EngineOptions) -> Result<usize> {
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
    let cores = usable_cores().unwrap_or_else(physical_cores);
    usable.min(cores).clamp(1, MAX_THREADS)
}

#[cfg(not(target_family = "wasm"))]
fn physical_cores() -> usize {
    num_cpus::get_physical()
}

#[cfg(target_family = "wasm")]
fn physical_cores() -> usize {
    1
}

/// Physical cores among the CPUs that this process may run on, on systems that report both.
fn usable_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let core = |cpu: usize| {
        let value = |name: &str| {
            let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}");
            std::fs::read_to_string(file).ok()?.trim().parse::<i64>().ok()
        };
        Some((value("physical_package_id")?, value("core_id")?))
    };
    let cores: Option<BTreeSet<_>> = cpus(allowed).into_iter().map(core).collect();
    cores.map(|cores| cores.len()).filter(|&count| count > 0)
}

/// The numbers of a list such as `0-3,8`. What is not a number or a range is left out.
fn cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let last = last.trim().parse::<usize>().ok()?.min(1 << 16);
        Some(first.trim().parse::<usize>().ok()?..=last)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The name of the CPU.
pub(super) fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| format!("CPU ({})", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("\t0-3,8"), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("5"), [5]);
        assert_eq!(cpus("x,2-1,7"), [7]);
    }

    #[test]
    fn numbers_of_threads_are_checked() {
        assert_eq!(checked("threads", " 2 ").unwrap(), 2);
        for bad in ["0", "-1", "257", "two", "1.5"] {
            let error = checked("BOLMO_THREADS", bad).unwrap_err();
            assert!(error.message().contains("BOLMO_THREADS: expected a number from 1 to 256"), "{error}");
        }
        assert!((1..=MAX_THREADS).contains(&default_threads()));
    }
}
