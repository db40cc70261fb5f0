//! The memory that a model needs on devices that use the host's, and how much of it is available.

use bolmo_shaders::WeightFormat;

use crate::checkpoint::formats::Formats;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::model::device_bytes;

/// Rejects a load that does not fit in memory, and names a format that fits.
///
/// Software adapters and the CPU device use main memory, and operating systems kill programs that take too much of it.
/// `mapped` bytes of the weights need no memory of their own. `stored` says that the formats are those of a quantized
/// checkpoint, which loading cannot change.
pub(super) fn check_memory(config: &Config, formats: Formats, mapped: u64, stored: bool, available: u64) -> Result<()> {
    // The system can drop what is mapped from memory at any time, and reads it again.
    let needed = device_bytes(config, formats).saturating_sub(mapped);
    if needed <= available {
        return Ok(());
    }
    let by_format = WeightFormat::ALL.map(|format| (format, device_bytes(config, format)));
    let (advice, hint) = match by_format.iter().find(|(_, bytes)| *bytes <= available) {
        Some(&(format, bytes)) if stored => (
            format!("quantize the original checkpoint as {} ({bytes} bytes)", format.name()),
            Some(Hint::QuantizeOriginal { format: Some(format) }),
        ),
        Some(&(format, bytes)) => (
            format!("load them as {} ({bytes} bytes)", format.name()),
            Some(Hint::SmallerFormat { format: Some(format) }),
        ),
        None => {
            let least = by_format.iter().map(|(_, bytes)| *bytes).min().unwrap_or(needed);
            (format!("use a smaller model: in the smallest format this one needs {least} bytes"), None)
        }
    };
    let error = Error::new(
        ErrorKind::OutOfMemory,
        format!("the weights need {needed} bytes of main memory, but {available} bytes are available; {advice}"),
    );
    Err(match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// Main memory that this process can take without swapping, in bytes, on systems that report it. Limits of its control
/// groups count.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups_left(&groups, |file| std::fs::read_to_string(file).ok());
    Some(group.map_or(kib * 1024, |left| left.min(kib * 1024)))
}

/// Bytes left of the memory limits of the control groups in `/proc/self/cgroup`. `None` without a limit.
fn groups_left(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        // Version 2 has one hierarchy without names, version 1 one for memory.
        let (root, [limit, usage]) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        // The limits of all groups above hold too. In a container the path may be one of the host's.
        let mut group = path.trim_end_matches('/');
        loop {
            let folder = format!("{root}{group}");
            if let Some(limit) = number(&format!("{folder}/{limit}")) {
                let cached = read(&format!("{folder}/memory.stat")).as_deref().map_or(0, inactive_file);
                let used = number(&format!("{folder}/{usage}")).unwrap_or(0).saturating_sub(cached);
                let left = limit.saturating_sub(used);
                least = Some(least.map_or(left, |least| least.min(left)));
            }
            match group.rfind('/') {
                Some(end) => group = &group[..end],
                None => break,
            }
        }
    }
    least
}

/// Bytes of files in memory that the system gives up when it needs room, from `memory.stat`.
fn inactive_file(stat: &str) -> u64 {
    let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value("total_inactive_file ").or_else(|| value("inactive_file ")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset::Preset;

    #[test]
    fn limits_of_control_groups_count() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max"),
            ("/sys/fs/cgroup/a/memory.max", "1000"),
            ("/sys/fs/cgroup/a/memory.current", "700"),
            ("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100\n"),
            ("/sys/fs/cgroup/memory/old/memory.limit_in_bytes", "500"),
            ("/sys/fs/cgroup/memory/old/memory.usage_in_bytes", "150"),
        ];
        let read = |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| text.to_string());
        assert_eq!(groups_left("0::/a/b\n", read), Some(400));
        assert_eq!(groups_left("5:cpu,memory:/old\n0::/a\n", read), Some(350));
        assert_eq!(groups_left("0::/\n1:cpu:/old\n", read), None);
        assert_eq!(groups_left("nonsense", read), None);
    }

    #[test]
    fn a_rejected_load_names_a_format_that_fits() {
        let config = Preset::Mid.config();
        let bytes = |format| device_bytes(&config, format);
        let refused = |formats: WeightFormat, stored, available| {
            check_memory(&config, formats.into(), 0, stored, available).map_err(|e| e.message().to_owned())
        };
        assert_eq!(refused(WeightFormat::F32, false, bytes(WeightFormat::F32)), Ok(()));
        let half = bytes(WeightFormat::F32) / 2;
        assert!(check_memory(&config, WeightFormat::F32.into(), half, true, half).is_ok());
        assert!(check_memory(&config, WeightFormat::F32.into(), half, true, half - 1).is_err());
        let message = refused(WeightFormat::F32, false, bytes(WeightFormat::F16)).unwrap_err();
        assert!(message.contains("load them as f16"), "{message}");
        let message = refused(WeightFormat::F32, false, bytes(WeightFormat::F16) - 1).unwrap_err();
        assert!(message.contains("load them as q8"), "{message}");
        let message = refused(WeightFormat::F16, false, bytes(WeightFormat::Q4)).unwrap_err();
        assert!(message.contains("load them as q4"), "{message}");
        let message = refused(WeightFormat::Q8, true, bytes(WeightFormat::Q4)).unwrap_err();
        assert!(message.contains("quantize the original checkpoint as q4"), "{message}");
        let message = refused(WeightFormat::Q4, false, 1000).unwrap_err();
        assert!(message.contains("a smaller model"), "{message}");
    }
}
