//! The choice of an adapter, with a reason for each one.

use bolmo_shaders::table::KERNELS;

use crate::error::{Error, Result};

/// How to choose an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdapterChoice {
    /// The best one: a discrete GPU, else an integrated one, else a virtual one, else a software adapter.
    #[default]
    Auto,
    /// The adapter at this index of [`adapters`].
    Index(usize),
    /// The best adapter whose name, driver or backend contains this text, ignoring case.
    Name(String),
    /// An adapter that runs on the CPU.
    Software,
}

impl AdapterChoice {
    /// Parses a user's choice: nothing or `auto`, an index, `software` or `cpu`, or a part of a name.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "" | "auto" => Self::Auto,
            "software" | "cpu" => Self::Software,
            other => other.parse().map_or_else(|_| Self::Name(other.to_owned()), Self::Index),
        }
    }
}

/// The description of an adapter, and whether it was chosen.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Index in the list, for [`AdapterChoice::Index`].
    pub index: usize,
    /// Name reported by the driver.
    pub name: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// `vulkan`, `metal`, `dx12` or `webgpu`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// Largest binding in bytes. Larger matrices are split by rows.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Smallest and largest subgroup size, if kernels can use subgroups.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// Whether shaders can compute in f16.
    pub shader_f16: bool,
    /// Largest workgroup in lanes.
    pub workgroup_lanes: u32,
    /// Whether the adapter supports cooperative matrices.
    pub cooperative_matrix: bool,
    /// Sizes of the square cooperative matrices that multiply f16 and accumulate in f32.
    pub cooperative_sides: Vec<u32>,
    /// Whether the adapter supports timestamps.
    pub timestamps: bool,
    /// The missing capability, if the adapter cannot be used.
    pub unusable: Option<String>,
    /// Whether this adapter was chosen.
    pub chosen: bool,
    /// Why it was or was not chosen.
    pub reason: String,
}

impl AdapterInfo {
    /// Whether the adapter runs on the CPU.
    pub fn is_software(&self) -> bool {
        self.kind == kind_name(wgpu::DeviceType::Cpu)
    }
}

/// Lists the adapters of this machine and marks the one that `choice` selects. An empty list is not an error.
pub async fn adapters(choice: &AdapterChoice) -> Vec<AdapterInfo> {
    let found = enumerate(&instance()).await;
    let mut infos: Vec<_> = found.iter().enumerate().map(|(i, a)| describe(i, a)).collect();
    // If no adapter can be chosen, the reasons say why.
    let _ = choose(choice, &mut infos);
    infos
}

/// Chooses an adapter and returns it with its description.
pub(super) async fn request(choice: &AdapterChoice) -> Result<(wgpu::Adapter, AdapterInfo)> {
    let mut found = enumerate(&instance()).await;
    let mut infos: Vec<_> = found.iter().enumerate().map(|(i, a)| describe(i, a)).collect();
    let index = choose(choice, &mut infos)?;
    Ok((found.swap_remove(index), infos.swap_remove(index)))
}

fn instance() -> wgpu::Instance {
    // OpenGL is excluded: its drivers lack limits that the kernels need, and software drivers crash on faulty input.
    let backends =
        wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12 | wgpu::Backends::BROWSER_WEBGPU;
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::from_env().unwrap_or(backends) & backends,
        flags: wgpu::InstanceFlags::from_env_or_default(),
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(95),
            for_device_loss: None,
        },
        backend_options: wgpu::BackendOptions::default(),
        display: None,
    })
}

#[cfg(not(target_family = "wasm"))]
async fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

#[cfg(target_family = "wasm")]
async fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let options =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    instance.request_adapter(&options).await.into_iter().collect()
}

fn kind_name(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let needs = [
        ("storage buffers per stage", u64::from(limits.max_storage_buffers_per_shader_stage), max_storage_buffers()),
        ("lanes per workgroup", u64::from(limits.max_compute_invocations_per_workgroup), 64),
        ("bytes of workgroup memory", u64::from(limits.max_compute_workgroup_storage_size), 16384),
        ("workgroups per dimension", u64::from(limits.max_compute_workgroups_per_dimension), 65535),
        ("bytes per storage binding", limits.max_storage_buffer_binding_size, 1 << 16),
    ];
    let downlevel = adapter.get_downlevel_capabilities().flags;
    let lacks = [
        (wgpu::DownlevelFlags::COMPUTE_SHADERS, "it does not support compute shaders"),
        (wgpu::DownlevelFlags::SHADER_F16_IN_F32, "its shaders cannot convert from f16"),
    ];
    let unusable = needs
        .iter()
        .find(|(_, has, needed)| has < needed)
        .map(|(what, has, needed)| format!("it offers {has} {what}, at least {needed} are needed"))
        .or_else(|| lacks.iter().find(|(flag, _)| !downlevel.contains(*flag)).map(|(_, lack)| (*lack).to_owned()));
    AdapterInfo {
        index,
        name: if info.name.is_empty() { "unnamed adapter".to_owned() } else { info.name },
        kind: kind_name(info.device_type),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        workgroup_lanes: limits.max_compute_invocations_per_workgroup,
        cooperative_sides: cooperative_sides(adapter),
        cooperative_matrix: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        unusable,
        chosen: false,
        reason: String::new(),
    }
}

/// Largest number of storage buffers that a kernel binds.
fn max_storage_buffers() -> u64 {
    KERNELS.iter().map(|kernel| kernel.max_storage_buffers() as u64).max().unwrap_or_default()
}

fn cooperative_sides(adapter: &wgpu::Adapter) -> Vec<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let offered = adapter.cooperative_matrix_properties();
    let square = offered.iter().filter(|p| p.m_size == p.n_size && p.n_size == p.k_size);
    square.filter(|p| (p.ab_type, p.cr_type) == (F16, F32)).map(|p| p.m_size).collect()
}

fn rank(info: &AdapterInfo) -> u32 {
    match info.kind {
        "discrete GPU" => 0,
        "integrated GPU" => 1,
        "virtual GPU" => 2,
        "other" => 3,
        _ => 4,
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
        AdapterChoice::Auto => true,
        AdapterChoice::Index(i) => info.index == *i,
        AdapterChoice::Software => info.is_software(),
        AdapterChoice::Name(name) => {
            let name = name.to_lowercase();
            [&info.name, &info.driver, &info.backend].iter().any(|text| text.to_lowercase().contains(&name))
        }
    };
    let candidates: Vec<usize> = (0..infos.len()).filter(|&i| matches(&infos[i])).collect();
    let best = candidates.iter().copied().filter(|&i| infos[i].unusable.is_none()).min_by_key(|&i| rank(&infos[i]));
    for info in infos.iter_mut() {
        info.chosen = Some(info.index) == best;
        info.reason = match (&info.unusable, info.chosen) {
            (Some(lack), _) => format!("not used: {lack}"),
            (None, true) => match choice {
                AdapterChoice::Auto if info.is_software() => {
                    "used: no GPU was found, so a software adapter runs on the CPU"
                }
                AdapterChoice::Auto => "used: the first adapter of the best kind",
                _ => "used: requested",
            }
            .to_owned(),
            (None, false) if !candidates.contains(&info.index) => "not used: another adapter was requested".to_owned(),
            (None, false) => "not used: another adapter is better or comes first".to_owned(),
        };
    }
    best.ok_or_else(|| {
        let shown = |info: &AdapterInfo| match &info.unusable {
            Some(_) => format!("{} {} ({})", info.index, info.name, info.reason),
            None => format!("{} {}", info.index, info.name),
        };
        let list: Vec<_> = infos.iter().map(shown).collect();
        let what = match choice {
            AdapterChoice::Auto => "no adapter can be used".to_owned(),
            AdapterChoice::Index(i) => format!("adapter {i} does not exist or cannot be used"),
            AdapterChoice::Name(name) => format!("no usable adapter matches {name:?}"),
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

    fn adapter(index: usize, name: &str, kind: wgpu::DeviceType, unusable: Option<&str>) -> AdapterInfo {
        AdapterInfo {
            index,
            name: name.to_owned(),
            kind: kind_name(kind),
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

    fn three() -> Vec<AdapterInfo> {
        vec![
            adapter(0, "llvmpipe", wgpu::DeviceType::Cpu, None),
            adapter(1, "Graphics 630", wgpu::DeviceType::IntegratedGpu, None),
            adapter(2, "Radeon", wgpu::DeviceType::DiscreteGpu, None),
        ]
    }

    #[test]
    fn a_gpu_is_preferred_to_a_software_adapter() {
        assert_eq!(choose(&AdapterChoice::Auto, &mut three()).unwrap(), 2);
        let mut broken = three();
        broken[2].unusable = Some("it lacks something".to_owned());
        assert_eq!(choose(&AdapterChoice::Auto, &mut broken).unwrap(), 1);
        assert!(broken[2].reason.contains("it lacks something"));
        assert_eq!(choose(&AdapterChoice::Auto, &mut three()[..1]).unwrap(), 0);
    }

    #[test]
    fn a_choice_is_honored_or_explained() {
        assert_eq!(choose(&AdapterChoice::parse("software"), &mut three()).unwrap(), 0);
        assert_eq!(choose(&AdapterChoice::parse("1"), &mut three()).unwrap(), 1);
        assert_eq!(choose(&AdapterChoice::parse("graphics"), &mut three()).unwrap(), 1);
        for (choice, word) in [("7", "adapter 7"), ("arc", "\"arc\"")] {
            let e = choose(&AdapterChoice::parse(choice), &mut three()).unwrap_err();
            assert!(e.message().contains(word) && e.message().contains("Radeon"), "{e}");
        }
        assert!(choose(&AdapterChoice::Auto, &mut []).unwrap_err().message().contains("apt-get"));
    }
}
