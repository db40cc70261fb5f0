//! The kernels that a model runs, so that they can be compiled before they are needed.

use bolmo_shaders::sizes::MLSTM_CELL_MAX_DV;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::checkpoint::formats::Formats;
use crate::config::{BlockType, Config};
use crate::device::Capabilities;

/// A kernel in the form in which a stage dispatches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelSpec {
    pub(crate) kernel: KernelId,
    /// Format of the kernel's matrix.
    pub(crate) format: WeightFormat,
    /// Operations fused into a product.
    pub(crate) fusion: Fusion,
}

/// A list of kernels without duplicates.
#[derive(Default)]
struct KernelList(Vec<KernelSpec>);

impl KernelList {
    fn add(&mut self, kernel: KernelId, format: WeightFormat, fusion: Fusion) {
        let spec = KernelSpec { kernel, format, fusion };
        if !self.0.contains(&spec) {
            self.0.push(spec);
        }
    }

    fn plain(&mut self, kernel: KernelId, format: WeightFormat) {
        self.add(kernel, format, Fusion::default());
    }
}

/// Lists the kernels needed for the first byte after a short prompt, then those needed later, each in the order of use.
/// A kernel that is missing here is compiled when it is dispatched; one too many costs time.
pub(crate) fn kernels(config: &Config, formats: Formats, capabilities: &Capabilities) -> [Vec<KernelSpec>; 2] {
    let mut list = KernelList::default();
    decode_kernels(&mut list, config, formats, capabilities);
    let first = list.0.len();
    // The host samples the first byte.
    list.plain(KernelId::Sample, WeightFormat::F32);
    prefill_kernels(&mut list, config, formats, capabilities);
    let later = list.0.split_off(first);
    [list.0, later]
}

/// Adds the kernels for decoding and for short prompts.
fn decode_kernels(list: &mut KernelList, config: &Config, formats: Formats, capabilities: &Capabilities) {
    let d = config.hidden_size;
    let (local, global, embeddings) =
        (formats.local.fitting(d), formats.global.fitting(d), formats.embeddings.fitting(d));
    for kernel in [KernelId::Rope, KernelId::Attention, KernelId::RmsNorm, KernelId::Boundary, KernelId::GatherRows] {
        list.plain(kernel, WeightFormat::F32);
    }
    list.plain(KernelId::GatherRows, embeddings);
    // The form for a matrix with this number of rows.
    let product = |norm: bool, gated: bool, rows: usize| Fusion { norm, gated, tall: rows >= capabilities.tall_rows };
    let norm = d <= capabilities.fused_norm_width;
    list.add(KernelId::MatVec, local, product(false, false, config.vocab_size));
    list.add(KernelId::MatVec, local, product(false, false, d));
    list.add(KernelId::MatVec, local, product(norm, false, 3 * d));
    list.add(KernelId::MatVec, local, product(norm, true, 2 * config.local_intermediate_size));
    let norm_first = norm && config.block_type == BlockType::PreNorm;
    list.add(KernelId::MatVec, global, product(false, false, d));
    list.add(KernelId::MatVec, global, product(norm_first, false, config.query_width() + 2 * config.key_value_width()));
    list.add(KernelId::MatVec, global, product(norm_first, true, 2 * config.intermediate_size));
    let single_dispatch = config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize;
    list.plain(if single_dispatch { KernelId::MlstmCell } else { KernelId::MlstmStep }, WeightFormat::F32);
}

/// Adds the kernels for prefill chunks.
fn prefill_kernels(list: &mut KernelList, config: &Config, formats: Formats, capabilities: &Capabilities) {
    let d = config.hidden_size;
    let cell = capabilities.cell_rows(config.mlstm_key_dim(), config.mlstm_value_dim());
    let (recurrent, prefill) = (capabilities.recurrent_rows, capabilities.prefill_bytes);
    if prefill > cell {
        list.plain(KernelId::MlstmGates, WeightFormat::F32);
        list.plain(KernelId::MlstmNorm, WeightFormat::F32);
    }
    if recurrent > cell {
        list.plain(KernelId::MlstmStep, WeightFormat::F32);
    }
    if prefill > recurrent {
        for kernel in [KernelId::MlstmChunkState, KernelId::MlstmChunkScan, KernelId::MlstmChunkOut] {
            list.plain(kernel, WeightFormat::F32);
        }
    }
    if prefill > capabilities.matvec_max_rows {
        list.plain(KernelId::SiluMul, WeightFormat::F32);
        list.plain(KernelId::MatMul, formats.local.fitting(d));
        list.plain(KernelId::MatMul, formats.global.fitting(d));
    }
}
