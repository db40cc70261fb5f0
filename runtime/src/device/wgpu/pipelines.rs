//! Compiled kernels, compiled on first use and kept as long as the device.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use bolmo_shaders::sizes::{GUARD_BINDING, SCALES_BINDING};
use bolmo_shaders::{Access, Kernel, KernelId, Variant, WeightFormat};

#[cfg(not(target_family = "wasm"))]
use super::kernel_cache::DiskCache;
use crate::device::capabilities::Capabilities;

/// A compiled kernel and the layout of its bindings.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// The compiled kernels of a device.
#[derive(Debug)]
pub(super) struct Pipelines {
    device: wgpu::Device,
    matvec_rows: u32,
    matvec_team_rows: u32,
    matvec_ahead: bool,
    cell_lanes: u32,
    cooperative_lanes: u32,
    #[cfg(not(target_family = "wasm"))]
    disk: Option<DiskCache>,
    compiled: Mutex<HashMap<(KernelId, Variant), Pipeline>>,
}

impl Pipelines {
    pub(super) fn new(device: &wgpu::Device, capabilities: &Capabilities) -> Self {
        let &Capabilities { matvec_rows, matvec_team_rows, matvec_ahead, cell_lanes, .. } = capabilities;
        Self {
            device: device.clone(),
            matvec_rows,
            matvec_team_rows,
            matvec_ahead,
            cell_lanes,
            cooperative_lanes: 4 * capabilities.subgroup_lanes.unwrap_or_default(),
            #[cfg(not(target_family = "wasm"))]
            disk: None,
            compiled: Mutex::default(),
        }
    }

    /// Loads compiled kernels from `disk` and saves them there.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn with_disk(self, disk: Option<DiskCache>) -> Self {
        Self { disk, ..self }
    }

    /// Writes the compiled kernels to the kernel cache, if there is one.
    pub(super) fn save(&self) {
        #[cfg(not(target_family = "wasm"))]
        if let Some(disk) = &self.disk {
            disk.save();
        }
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<(KernelId, Variant), Pipeline>> {
        // A panic elsewhere cannot leave the map in an inconsistent state.
        self.compiled.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The kernel in this variant. The device's error handler receives compilation errors.
    pub(super) fn get(&self, id: KernelId, variant: Variant) -> Pipeline {
        if let Some(pipeline) = self.compiled().get(&(id, variant)) {
            return pipeline.clone();
        }
        let pipeline = self.compile(id, variant);
        self.compiled().insert((id, variant), pipeline.clone());
        pipeline
    }

    fn compile(&self, id: KernelId, variant: Variant) -> Pipeline {
        let kernel = id.kernel();
        let label = format!("{} {variant}", kernel.stem);
        let layout = self.layout(kernel, variant, &label);
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(kernel.source(variant).into()),
        };
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: the kernels are part of this project. Every loop in them is bounded by a parameter or a constant.
        // Every index stays within the sizes in the parameters, which property tests check for each kernel, and the
        // stages derive parameters and bindings from the same sizes. Runtime checks would double the time of a matrix
        // product (docs/rejected.md).
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &self.constants(id, variant),
                // A kernel uses nothing that it reads from workgroup memory before it has written it.
                zero_initialize_workgroup_memory: false,
            },
            #[cfg(not(target_family = "wasm"))]
            cache: self.disk.as_ref().map(|disk| &disk.cache),
            #[cfg(target_family = "wasm")]
            cache: None,
        });
        Pipeline { pipeline, layout }
    }

    /// The layout of a kernel's bindings: the parameters, the bindings of the table, then those with fixed numbers.
    fn layout(&self, kernel: &Kernel, variant: Variant, label: &str) -> wgpu::BindGroupLayout {
        let buffer = |binding: u32, ty, dynamic, size: Option<u64>| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: dynamic,
                min_binding_size: size.and_then(wgpu::BufferSize::new),
            },
            count: None,
        };
        let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform, true, Some(kernel.params.size as u64))];
        entries.extend((1u32..).zip(kernel.bindings).map(|(i, b)| {
            let read_only = b.access == Access::Read;
            buffer(i, wgpu::BufferBindingType::Storage { read_only }, false, None)
        }));
        let guard = kernel.guard.then_some(GUARD_BINDING);
        let scales = variant.weights.is_some_and(WeightFormat::has_scales).then_some(SCALES_BINDING);
        let read = wgpu::BufferBindingType::Storage { read_only: true };
        entries.extend(guard.into_iter().chain(scales).map(|i| buffer(i, read, false, None)));
        self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
    }

    /// Values of a kernel's overridable constants.
    fn constants(&self, id: KernelId, variant: Variant) -> Vec<(&'static str, f64)> {
        match id {
            KernelId::MatVec => {
                let times = if variant.fusion.is_some_and(|fusion| fusion.tall) { 2 } else { 1 };
                vec![
                    ("ROWS", f64::from(times * self.matvec_rows)),
                    ("TEAM_ROWS", f64::from(times * self.matvec_team_rows)),
                    ("AHEAD", f64::from(u8::from(self.matvec_ahead && times * self.matvec_team_rows == 4))),
                ]
            }
            KernelId::MatMul if variant.cooperative() => vec![("LANES", f64::from(self.cooperative_lanes))],
            KernelId::MlstmCell | KernelId::Sample if variant.reduce.is_some() => vec![("LANES", 1.0)],
            KernelId::MlstmCell => vec![("LANES", f64::from(self.cell_lanes))],
            _ => Vec::new(),
        }
    }
}
