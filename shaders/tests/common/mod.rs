//! Parsing and validation of kernels by naga.

use bolmo_shaders::table::KERNELS;
use bolmo_shaders::{Kernel, KernelId, Variant, WeightFormat};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Every variant of every kernel, with a name for messages.
pub fn variants() -> impl Iterator<Item = (&'static Kernel, Variant, String)> {
    KERNELS.iter().flat_map(|kernel| {
        kernel.variants().into_iter().map(move |variant| (kernel, variant, format!("{} ({variant})", kernel.stem)))
    })
}

/// Parses and validates a variant with only the capabilities that it declares: subgroup operations, cooperative
/// matrices with f16, and unpacking f16 to f32. The latter is part of core WebGPU and missing only from some OpenGL
/// adapters (`SHADER_F16_IN_F32` of wgpu).
pub fn module(kernel: &Kernel, variant: Variant) -> (naga::Module, ModuleInfo) {
    let text = kernel.source(variant);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{} ({variant}): {}", kernel.stem, error.emit_to_string(&text)));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, variant.subgroups());
    capabilities.set(
        Capabilities::SHADER_FLOAT16_IN_FLOAT32,
        kernel.id == KernelId::RoundF16 || variant.weights.is_some_and(|format| format != WeightFormat::F32),
    );
    let cooperative = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX;
    capabilities.set(cooperative, variant.cooperative());
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{} ({variant}): {}", kernel.stem, error.emit_to_string(&text)));
    (module, info)
}
