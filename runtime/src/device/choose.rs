//! The choice among the adapters of this machine.

use crate::device::adapter::{AdapterChoice, AdapterInfo, CPU};
use crate::device::cpu;
use crate::device::wgpu;
use crate::error::{Error, Result};

/// Lists the adapters of this machine, the CPU device last, and marks the one that `choice` selects. No list is empty
/// outside of browsers.
pub async fn adapters(choice: &AdapterChoice) -> Vec<AdapterInfo> {
    let mut infos: Vec<_> = graphics_adapters(choice).await.into_iter().map(|(_, info)| info).collect();
    infos.extend(cpu::describe(infos.len()));
    // If no adapter can be chosen, the reasons say why.
    let _ = choose(choice, &mut infos);
    if let (AdapterChoice::Auto, Some(reason)) = (choice, no_drivers()) {
        for cpu in infos.iter_mut().filter(|info| info.is_cpu() && info.chosen) {
            cpu.reason = format!("used: {}", reason.message());
        }
    }
    infos
}

/// The adapters that wgpu finds: none if its drivers are better not loaded.
async fn graphics_adapters(choice: &AdapterChoice) -> Vec<(wgpu::Found, AdapterInfo)> {
    if let Some(reason) = no_drivers() {
        log::warn!("{}", reason.message());
        return Vec::new();
    }
    wgpu::enumerate(choice).await
}

/// A chosen adapter, to be opened.
pub(super) enum Chosen {
    /// One that wgpu has found.
    Gpu(wgpu::Found),
    /// The CPU device.
    Cpu,
}

/// Chooses an adapter and returns it with its description.
pub(super) async fn request(choice: &AdapterChoice) -> Result<(Chosen, AdapterInfo)> {
    if let (AdapterChoice::Cpu, Some(info)) = (choice, cpu::describe(0)) {
        // Looking for other adapters takes a tenth of a second, loads drivers, and may print their messages.
        let mut infos = [info];
        choose(choice, &mut infos)?;
        let [info] = infos;
        return Ok((Chosen::Cpu, info));
    }
    let (mut found, mut infos): (Vec<_>, Vec<_>) = graphics_adapters(choice).await.into_iter().unzip();
    infos.extend(cpu::describe(infos.len()));
    let index = choose(choice, &mut infos).map_err(|error| no_drivers().unwrap_or(error))?;
    let info = infos.swap_remove(index);
    if index == found.len() {
        return Ok((Chosen::Cpu, info));
    }
    Ok((Chosen::Gpu(found.swap_remove(index)), info))
}

/// Why no graphics driver is loaded, if none is.
fn no_drivers() -> Option<Error> {
    wgpu::no_drivers()
}

/// The place of an adapter among those that `choice` leaves; the first one is used.
fn rank(choice: &AdapterChoice, info: &AdapterInfo) -> u32 {
    match (choice, info.kind) {
        (AdapterChoice::LowPower, "integrated GPU") => return 0,
        (AdapterChoice::LowPower, CPU) => return 1,
        (AdapterChoice::LowPower, "virtual GPU") => return 2,
        (AdapterChoice::LowPower, "other") => return 3,
        (AdapterChoice::LowPower, "discrete GPU") => return 4,
        _ => {}
    }
    match info.kind {
        "discrete GPU" => 0,
        "integrated GPU" => 1,
        "virtual GPU" => 2,
        "other" => 3,
        CPU => 4,
        _ => 5,
    }
}

/// Marks the adapter that `choice` selects, sets the reason of each adapter, and returns the index of the chosen one.
fn choose(choice: &AdapterChoice, infos: &mut [AdapterInfo]) -> Result<usize> {
    if infos.is_empty() {
        return Err(Error::not_found(
            "no adapter was found; install a driver for the GPU, or a software adapter \
             (Debian and Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers)",
        ));
    }
    let matches = |info: &AdapterInfo| match choice {
        AdapterChoice::Auto | AdapterChoice::LowPower => true,
        AdapterChoice::Index(i) => info.index == *i,
        AdapterChoice::Software => info.is_software(),
        AdapterChoice::Cpu => info.is_cpu(),
        // A part of the CPU's name may be meant for a GPU of the same maker.
        AdapterChoice::Name(_) if info.is_cpu() => false,
        AdapterChoice::Name(name) => {
            let name = name.to_lowercase();
            [&info.name, &info.driver, &info.backend].iter().any(|text| text.to_lowercase().contains(&name))
        }
    };
    let candidates: Vec<usize> = (0..infos.len()).filter(|&i| matches(&infos[i])).collect();
    let best =
        candidates.iter().copied().filter(|&i| infos[i].unusable.is_none()).min_by_key(|&i| rank(choice, &infos[i]));
    for info in infos.iter_mut() {
        info.chosen = Some(info.index) == best;
        info.reason = match (&info.unusable, info.chosen) {
            (Some(lack), _) => format!("not used: {lack}"),
            (None, true) => match choice {
                AdapterChoice::Auto if info.has_host_memory() => "used: no GPU was found",
                AdapterChoice::Auto => "used: the first adapter of the best kind",
                AdapterChoice::LowPower => "used: the first adapter of the kind that takes the least power",
                _ => "used: requested",
            }
            .to_owned(),
            (None, false) if !candidates.contains(&info.index) => "not used: another adapter was requested".to_owned(),
            (None, false) => "not used: another adapter is better or comes first".to_owned(),
        };
        let AdapterInfo { index, name, kind, backend, driver, reason, .. } = &*info;
        log::debug!("adapter {index}: {name} ({kind}, {backend}, {driver}): {reason}");
    }
    best.ok_or_else(|| {
        let shown = |info: &AdapterInfo| match &info.unusable {
            Some(_) => format!("{} {} ({})", info.index, info.name, info.reason),
            None => format!("{} {}", info.index, info.name),
        };
        let list: Vec<_> = infos.iter().map(shown).collect();
        let what = match choice {
            AdapterChoice::Auto | AdapterChoice::LowPower => "no adapter can be used".to_owned(),
            AdapterChoice::Index(i) => format!("adapter {i} does not exist or cannot be used"),
            AdapterChoice::Name(name) => format!("no usable adapter matches {name:?}"),
            AdapterChoice::Cpu => "there is no CPU device here".to_owned(),
            AdapterChoice::Software => "no software adapter can be used \
                 (Debian and Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers)"
                .to_owned(),
        };
        Error::not_found(format!("{what}; choose one of: {}", list.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::adapter::SOFTWARE;

    fn adapter(index: usize, name: &str, kind: &'static str, unusable: Option<&str>) -> AdapterInfo {
        AdapterInfo {
            index,
            name: name.to_owned(),
            kind,
            backend: "vulkan".to_owned(),
            driver: String::new(),
            max_binding_bytes: 1 << 27,
            max_buffer_bytes: 1 << 31,
            workgroup_bytes: 16384,
            subgroup_sizes: None,
            shader_f16: false,
            workgroup_lanes: 256,
            cooperative_matrix: false,
            cooperative_sides: Vec::new(),
            timestamps: false,
            unusable: unusable.map(str::to_owned),
            chosen: false,
            reason: String::new(),
        }
    }

    fn four() -> Vec<AdapterInfo> {
        vec![
            adapter(0, "llvmpipe", SOFTWARE, None),
            adapter(1, "Graphics 630", "integrated GPU", None),
            adapter(2, "Radeon", "discrete GPU", None),
            adapter(3, "Radeon CPU", CPU, None),
        ]
    }

    #[test]
    fn a_gpu_is_preferred_to_the_cpu() {
        assert_eq!(choose(&AdapterChoice::Auto, &mut four()).unwrap(), 2);
        let mut broken = four();
        broken[2].unusable = Some("it lacks something".to_owned());
        assert_eq!(choose(&AdapterChoice::Auto, &mut broken).unwrap(), 1);
        assert!(broken[2].reason.contains("it lacks something"));
        assert_eq!(choose(&AdapterChoice::Auto, &mut four()[..1]).unwrap(), 0);
        // The CPU device is better than a driver that emulates a GPU.
        let mut no_gpu = [four().remove(0), four().remove(3)];
        assert_eq!(choose(&AdapterChoice::Auto, &mut no_gpu).unwrap(), 1);
    }

    #[test]
    fn low_power_prefers_an_integrated_gpu_then_the_cpu() {
        let low_power = AdapterChoice::parse("low-power");
        assert_eq!(low_power, AdapterChoice::LowPower);
        assert_eq!(choose(&low_power, &mut four()).unwrap(), 1);
        let mut broken = four();
        broken[1].unusable = Some("it lacks something".to_owned());
        assert_eq!(choose(&low_power, &mut broken).unwrap(), 3);
        let kinds = [SOFTWARE, "discrete GPU", "other", "virtual GPU", CPU, "integrated GPU"];
        let all: Vec<_> = kinds.iter().enumerate().map(|(i, kind)| adapter(i, "some", kind, None)).collect();
        for best in (0..kinds.len()).rev() {
            assert_eq!(choose(&low_power, &mut all[..=best].to_vec()).unwrap(), best, "{}", kinds[best]);
        }
    }

    #[test]
    fn a_choice_is_honored_or_explained() {
        assert_eq!(choose(&AdapterChoice::parse("software"), &mut four()).unwrap(), 0);
        assert_eq!(choose(&AdapterChoice::parse("cpu"), &mut four()).unwrap(), 3);
        assert_eq!(choose(&AdapterChoice::parse("3"), &mut four()).unwrap(), 3);
        assert_eq!(choose(&AdapterChoice::parse("radeon"), &mut four()).unwrap(), 2);
        assert_eq!(choose(&AdapterChoice::parse("1"), &mut four()).unwrap(), 1);
        assert_eq!(choose(&AdapterChoice::parse("graphics"), &mut four()).unwrap(), 1);
        for (choice, word) in [("7", "adapter 7"), ("arc", "\"arc\"")] {
            let e = choose(&AdapterChoice::parse(choice), &mut four()).unwrap_err();
            assert!(e.message().contains(word) && e.message().contains("Radeon"), "{e}");
        }
        assert!(choose(&AdapterChoice::Auto, &mut []).unwrap_err().message().contains("apt-get"));
    }
}
