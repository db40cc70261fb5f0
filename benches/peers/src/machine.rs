//! The CPU and how busy it is.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// Cores that this process may use, without counting the hardware threads of a core twice.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = linux_cores().or_else(|| sysctl("hw.physicalcpu")?.parse().ok());
    cores.map_or(allowed, |cores| cores.clamp(1, allowed))
}

fn linux_cores() -> Option<usize> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (mut package, mut cores) = ("", BTreeSet::new());
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            "physical id" => package = value,
            "core id" => {
                cores.insert((package, value));
            }
            _ => {}
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Name of the CPU, its vector instructions and its cores.
pub fn describe() -> Value {
    let name = linux_name().or_else(|| sysctl("machdep.cpu.brand_string")).unwrap_or_else(|| "unknown CPU".to_owned());
    json!({ "name": name, "instructions": instructions(), "physical_cores": physical_cores() })
}

/// The model name, followed by family and model where the name alone says little.
fn linux_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |wanted: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim().to_owned())
    };
    let name = value("model name")?;
    Some(match (value("cpu family"), value("model")) {
        (Some(family), Some(model)) => format!("{name}, family {family} model {model}"),
        _ => name,
    })
}

fn sysctl(key: &str) -> Option<String> {
    let out = Command::new("sysctl").args(["-n", key]).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> String {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    present(&found)
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> String {
    use std::arch::is_aarch64_feature_detected;
    let found = [
        ("neon", is_aarch64_feature_detected!("neon")),
        ("fp16", is_aarch64_feature_detected!("fp16")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
    ];
    present(&found)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> String {
    std::env::consts::ARCH.to_owned()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn present(found: &[(&str, bool)]) -> String {
    let names: Vec<_> = found.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    names.join(" ")
}

/// Load average of the last minute, null where Linux doesn't report it.
pub fn load_average() -> Value {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!(text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()))
}
