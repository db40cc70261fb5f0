//! The instance of wgpu, which looks for adapters.

/// The instances to look for adapters in. There is none without a library that reaches GPUs.
pub(super) fn instance() -> Option<wgpu::Instance> {
    // OpenGL is excluded: its drivers lack limits that the kernels need, and software drivers crash on faulty input.
    let backends =
        wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12 | wgpu::Backends::BROWSER_WEBGPU;
    let backends = wgpu::Backends::from_env().unwrap_or(backends) & backends;
    let flags = wgpu::InstanceFlags::from_env_or_default();
    let memory_budget_thresholds =
        wgpu::MemoryBudgetThresholds { for_resource_creation: Some(95), for_device_loss: None };
    open(wgpu::InstanceDescriptor {
        backends,
        flags,
        memory_budget_thresholds,
        backend_options: wgpu::BackendOptions::default(),
        display: None,
    })
}

#[cfg(not(all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
fn open(descriptor: wgpu::InstanceDescriptor) -> Option<wgpu::Instance> {
    Some(wgpu::Instance::new(descriptor))
}

/// An instance of Vulkan without a connection to a display.
///
/// wgpu asks for all window systems that Vulkan knows. For each of them, Mesa then connects to the display when
/// adapters are listed, and without one Wayland's library prints `error: XDG_RUNTIME_DIR is invalid or not set in the
/// environment.` to the host's standard error. Nothing is ever shown here, so no window system is asked for.
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
fn open(descriptor: wgpu::InstanceDescriptor) -> Option<wgpu::Instance> {
    use std::ffi::CStr;

    use wgpu::hal;

    if !descriptor.backends.contains(wgpu::Backends::VULKAN) {
        return None;
    }
    let shows = |name: &CStr| {
        let systems = [c"VK_KHR_xlib_surface", c"VK_KHR_xcb_surface", c"VK_KHR_wayland_surface"];
        systems.contains(&name)
    };
    let hal_descriptor = hal::InstanceDescriptor {
        name: "bolmo",
        flags: descriptor.flags,
        memory_budget_thresholds: descriptor.memory_budget_thresholds,
        backend_options: descriptor.backend_options,
        telemetry: None,
        display: None,
    };
    let without_windows: Box<hal::vulkan::CreateInstanceCallback<'_>> =
        Box::new(move |arguments| arguments.extensions.retain(|name| !shows(name)));
    // SAFETY: the loader and the drivers are the system's, as with `wgpu::Instance::new`. A callback should remove no
    // extension, because wgpu might rely on it. It needs those that are removed here only to create a surface, looks
    // them up before, and no surface is ever created. No other extension depends on them.
    match unsafe { hal::vulkan::Instance::init_with_callback(&hal_descriptor, Some(without_windows)) } {
        // SAFETY: the instance was created just now and belongs to nobody else.
        Ok(instance) => Some(unsafe { wgpu::Instance::from_hal::<hal::api::Vulkan>(instance) }),
        Err(error) => {
            log::debug!("Vulkan cannot be used: {error}");
            None
        }
    }
}
