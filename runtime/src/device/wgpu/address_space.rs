//! Whether the process has the address space that graphics drivers need.
//!
//! Drivers check few of their own allocations: below a limit such as that of `ulimit -v` they crash, and the process
//! with them. Mesa's llvmpipe does so with less than 1050 MiB on two cores, 1600 MiB on 16 and 2000 MiB on 32.

/// Says why no driver is loaded, if the process has too little address space left.
pub(in crate::device) fn shortage() -> Option<String> {
    let free = free_bytes()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let needed = needed_bytes(cores);
    (free < needed).then(|| {
        format!(
            "only {} MiB of address space are left, and graphics drivers may crash with less than {} MiB; raise the \
             limit, such as that of `ulimit -v`, or use the CPU device",
            free >> 20,
            needed >> 20
        )
    })
}

/// Address space below which drivers may crash, with a margin.
fn needed_bytes(cores: usize) -> u64 {
    // Software drivers have at most 32 threads, each with a stack and memory of its own.
    (1536 + 64 * cores.min(32) as u64) << 20
}

/// Address space that the process may still use; `None` if it is not limited.
#[cfg(target_os = "linux")]
fn free_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is valid for the whole call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    if !known || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    // SAFETY: reads a number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let used = pages.unwrap_or_default().saturating_mul(page);
    #[allow(clippy::useless_conversion)] // 32 bits wide on some systems
    Some(u64::from(limit.rlim_cur).saturating_sub(used))
}

/// Other systems don't limit address space, or don't tell.
#[cfg(not(target_os = "linux"))]
fn free_bytes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_cores_need_more_up_to_a_bound() {
        assert_eq!(needed_bytes(2), 1664 << 20);
        assert_eq!(needed_bytes(32), needed_bytes(500));
        // The limits that llvmpipe was seen to need.
        for (cores, mib) in [(2, 1050), (16, 1600), (32, 2000)] {
            assert!(needed_bytes(cores) > (mib << 20) * 5 / 4, "{cores} cores");
        }
    }
}
