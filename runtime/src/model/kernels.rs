//! Which kernels a model runs on, so that they can be compiled before they are needed.

use bolmo_shaders::table::MLSTM_CELL_MAX_DV;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::checkpoint::formats::Formats;
use crate::config::{BlockType, Config};
use crate::device::Capabilities;

/// A kernel in the format and the form that a stage dispatches it in.
pub(crate) type Wanted = (KernelId, WeightFormat, Fusion);

/// The kernels that lead to the first byte behind a short prompt, and those that come after; each in their order. One that is missing is
/// compiled when it is dispatched, one too many costs time.
pub(crate) fn kernels(config: &Config, formats: Formats, capabilities: &Capabilities) -> [Vec<Wanted>; 2] {
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
    for kernel in [KernelId::Rope, KernelId::Attention, KernelId::RmsNorm, KernelId::Boundary] {
        add(kernel, f32, plain);
    }
    add(KernelId::GatherRows, f32, plain);
    add(KernelId::GatherRows, embeddings, plain);
    // A kernel for a matrix of so many rows.
    let product = |norm: bool, gated: bool, rows: usize| Fusion { norm, gated, tall: rows >= capabilities.tall_rows };
    add(KernelId::MatVec, local, product(false, false, config.vocab_size));
    add(KernelId::MatVec, local, product(false, false, d));
    add(KernelId::MatVec, local, product(norm, false, 3 * d));
    add(KernelId::MatVec, local, product(norm, true, 2 * config.local_intermediate_size));
    let norm_in_front = norm && config.block_type == BlockType::PreNorm;
    add(KernelId::MatVec, global, product(false, false, d));
    add(KernelId::MatVec, global, product(norm_in_front, false, config.query_width() + 2 * config.key_value_width()));
    add(KernelId::MatVec, global, product(norm_in_front, true, 2 * config.intermediate_size));
    if config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize {
        add(KernelId::MlstmCell, f32, plain);
    } else {
        add(KernelId::MlstmStep, f32, plain);
    }
    // The first byte is chosen on the host: what comes from here on is for later.
    add(KernelId::Sample, f32, plain);
    // stretches of a prompt
    let cell = capabilities.cell_rows(config.mlstm_key_dim(), config.mlstm_value_dim());
    let (recurrent, prefill) = (capabilities.recurrent_rows, capabilities.prefill_bytes);
    if prefill > cell {
        add(KernelId::MlstmGates, f32, plain);
        add(KernelId::MlstmNorm, f32, plain);
    }
    if recurrent > cell {
        add(KernelId::MlstmStep, f32, plain);
    }
    if prefill > recurrent {
        for kernel in [KernelId::MlstmChunkState, KernelId::MlstmChunkScan, KernelId::MlstmChunkOut] {
            add(kernel, f32, plain);
        }
    }
    if prefill > capabilities.few_rows {
        add(KernelId::SiluMul, f32, plain);
        add(KernelId::MatMul, local, plain);
        add(KernelId::MatMul, global, plain);
    }
    let first = all.iter().take_while(|(kernel, ..)| *kernel != KernelId::Sample).count();
    let later = all.split_off(first);
    [all, later]
}
