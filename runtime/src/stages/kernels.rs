//! Which kernels a model runs on, so that they can be compiled before they are needed.

use bolmo_shaders::table::MLSTM_CELL_MAX_DV;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::config::{BlockType, Config};
use crate::formats::Formats;
use crate::gpu::Capabilities;

/// Kernels with the formats and forms that the stages dispatch them in; those that come first last. One that is missing is compiled when
/// it is dispatched, one too many costs time.
pub(crate) fn kernels(
    config: &Config,
    formats: Formats,
    capabilities: &Capabilities,
) -> Vec<(KernelId, WeightFormat, Fusion)> {
    let d = config.hidden_size;
    let plain = Fusion::default();
    let norm = d <= capabilities.fused_norm_width;
    let mut all = Vec::new();
    let mut add = |kernel: KernelId, format: WeightFormat, fusion: Fusion| {
        if !all.contains(&(kernel, format, fusion)) {
            all.push((kernel, format, fusion));
        }
    };
    let f32 = WeightFormat::F32;
    let (local, global, embeddings) =
        (formats.local.fitting(d), formats.global.fitting(d), formats.embeddings.fitting(d));
    // decoding and short prompts
    for kernel in [KernelId::Sample, KernelId::Rope, KernelId::Attention, KernelId::RmsNorm, KernelId::Boundary] {
        add(kernel, f32, plain);
    }
    add(KernelId::GatherRows, f32, plain);
    add(KernelId::GatherRows, embeddings, plain);
    add(KernelId::MatVec, local, plain);
    add(KernelId::MatVec, local, Fusion { norm, gated: false });
    add(KernelId::MatVec, local, Fusion { norm, gated: true });
    let norm_in_front = norm && config.block_type == BlockType::PreNorm;
    add(KernelId::MatVec, global, plain);
    add(KernelId::MatVec, global, Fusion { norm: norm_in_front, gated: false });
    add(KernelId::MatVec, global, Fusion { norm: norm_in_front, gated: true });
    if config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize {
        add(KernelId::MlstmCell, f32, plain);
    } else {
        add(KernelId::MlstmStep, f32, plain);
    }
    // stretches of a prompt
    for kernel in [
        KernelId::MlstmGates,
        KernelId::MlstmChunkState,
        KernelId::MlstmChunkScan,
        KernelId::MlstmChunkOut,
        KernelId::MlstmNorm,
        KernelId::SiluMul,
    ] {
        add(kernel, f32, plain);
    }
    add(KernelId::MatMul, local, plain);
    add(KernelId::MatMul, global, plain);
    all.reverse();
    all
}
