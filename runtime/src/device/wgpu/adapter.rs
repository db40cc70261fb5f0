//! The adapters that wgpu finds.

use bolmo_shaders::table::KERNELS;

use super::errors::caught;
use super::instance::instance;
use crate::device::adapter::{AdapterChoice, AdapterInfo, SOFTWARE};

/// An adapter that can be opened.
#[derive(Debug)]
pub(in crate::device) struct Found(pub(super) wgpu::Adapter);

/// Every adapter with its description; in browsers the one that they offer for `choice`.
pub(in crate::device) async fn enumerate(choice: &AdapterChoice) -> Vec<(Found, AdapterInfo)> {
    let described = |(i, adapter)| {
        let info = describe(i, &adapter);
        (Found(adapter), info)
    };
    let found = caught(async {
        let Some(instance) = instance() else { return Vec::new() };
        adapters(&instance, choice).await.into_iter().enumerate().map(described).collect()
    });
    found.await.unwrap_or_else(|error| {
        log::warn!("no adapter is listed: {error}");
        Vec::new()
    })
}

#[cfg(not(target_family = "wasm"))]
async fn adapters(instance: &wgpu::Instance, _: &AdapterChoice) -> Vec<wgpu::Adapter> {
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

#[cfg(target_family = "wasm")]
async fn adapters(instance: &wgpu::Instance, choice: &AdapterChoice) -> Vec<wgpu::Adapter> {
    let power_preference = match choice {
        AdapterChoice::LowPower => wgpu::PowerPreference::LowPower,
        _ => wgpu::PowerPreference::HighPerformance,
    };
    let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    instance.request_adapter(&options).await.into_iter().collect()
}

fn kind_name(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => SOFTWARE,
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
