//! The fast form of kernels on CPUs: vectors and several threads.
//!
//! `simd/<stem>.rs` computes what `wgsl/<stem>.wgsl` computes, with the same parameter block and the same bindings, in
//! f32. It is written once, in terms of [`Vector`](vector::Vector), and compiled for every instruction set.
//!
//! Results depend on the instruction set, because lanes are added up in another order, but never on the number of
//! threads: work is divided into tasks by sizes alone, and a task adds up in a fixed order. A row of a product has the
//! same bits alone, in a batch and in a prompt. Products in integers ([`Int8`](crate::Products::Int8)) have bits of
//! their own.
//!
//! Every kernel follows the same steps: [`Call::params`], the bindings by [`Call::read`], [`Call::write`] and
//! [`Call::matrix`], which check that they are as large as the parameters say, then [`Call::each`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod call;
mod direct;
mod extent;
mod instruction_set;
#[cfg(not(target_family = "wasm"))]
mod int8;
mod memory;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod panels;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
mod product;
mod row_sum;
mod scratch;
mod softmax;
#[cfg(test)]
mod testing;
mod tile;
mod transposed;
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
mod weights;

mod attention;
mod boundary;
mod copy;
mod gather_rows;
mod matmul;
mod matvec;
mod rms_norm;
mod rope;
mod silu_mul;

mod mlstm_cell;
mod mlstm_chunk_out;
mod mlstm_chunk_scan;
mod mlstm_chunk_state;
mod mlstm_gates;
mod mlstm_norm;
mod mlstm_step;
mod sample;

mod adamw;
mod attention_grad;
mod attention_grad_kv;
mod attention_grad_q;
mod boundary_grad;
mod entropy;
mod gather_rows_grad;
mod log_softmax;
mod log_softmax_grad;
mod mlstm_chunk_out_grad;
mod mlstm_chunk_scan_grad;
mod mlstm_chunk_scores;
mod mlstm_chunk_state_grad;
mod mlstm_gate_dots;
mod mlstm_gates_grad;
mod mlstm_norm_grad;
mod next_ids;
mod rms_norm_grad;
mod rope_grad;
mod round_f16;
mod row_distance;
mod row_distance_grad;
mod silu_mul_grad;
mod soft_labels;
mod sum_rows;
mod sum_squares;
mod transpose;

pub use call::{Call, OddRows, Workers};
pub use instruction_set::InstructionSet;
pub use memory::{Fault, Memory};
pub use scratch::NoMemory;

use crate::table::{KernelId, TRAINS};

/// A kernel's fast form.
pub type SimdKernel = fn(&Call<'_>) -> Result<(), Fault>;

/// The fast form of a kernel that only training uses, in builds that have it.
#[inline(always)]
fn training(kernel: SimdKernel) -> SimdKernel {
    let missing: SimdKernel = |call| {
        let stem = call.kernel.kernel().stem;
        Err(Fault::new(format!("{stem}: only training uses this kernel, and builds for browsers have none for it")))
    };
    if TRAINS { kernel } else { missing }
}

/// The fast form of a kernel.
pub fn kernel(id: KernelId) -> SimdKernel {
    match id {
        KernelId::Adamw => training(adamw::adamw),
        KernelId::Attention => attention::attention,
        KernelId::AttentionGradKv => training(attention_grad_kv::attention_grad_kv),
        KernelId::AttentionGradQ => training(attention_grad_q::attention_grad_q),
        KernelId::Boundary => boundary::boundary,
        KernelId::BoundaryGrad => training(boundary_grad::boundary_grad),
        KernelId::Copy => copy::copy,
        KernelId::Entropy => training(entropy::entropy),
        KernelId::GatherRows => gather_rows::gather_rows,
        KernelId::GatherRowsGrad => training(gather_rows_grad::gather_rows_grad),
        KernelId::LogSoftmax => training(log_softmax::log_softmax),
        KernelId::LogSoftmaxGrad => training(log_softmax_grad::log_softmax_grad),
        KernelId::MatMul => matmul::matmul,
        KernelId::MatVec => matvec::matvec,
        KernelId::MlstmCell => mlstm_cell::mlstm_cell,
        KernelId::MlstmChunkOut => mlstm_chunk_out::mlstm_chunk_out,
        KernelId::MlstmChunkOutGrad => training(mlstm_chunk_out_grad::mlstm_chunk_out_grad),
        KernelId::MlstmChunkScan => mlstm_chunk_scan::mlstm_chunk_scan,
        KernelId::MlstmChunkScanGrad => training(mlstm_chunk_scan_grad::mlstm_chunk_scan_grad),
        KernelId::MlstmChunkScores => training(mlstm_chunk_scores::mlstm_chunk_scores),
        KernelId::MlstmChunkState => mlstm_chunk_state::mlstm_chunk_state,
        KernelId::MlstmChunkStateGrad => training(mlstm_chunk_state_grad::mlstm_chunk_state_grad),
        KernelId::MlstmGateDots => training(mlstm_gate_dots::mlstm_gate_dots),
        KernelId::MlstmGates => mlstm_gates::mlstm_gates,
        KernelId::MlstmGatesGrad => training(mlstm_gates_grad::mlstm_gates_grad),
        KernelId::MlstmNorm => mlstm_norm::mlstm_norm,
        KernelId::MlstmNormGrad => training(mlstm_norm_grad::mlstm_norm_grad),
        KernelId::MlstmStep => mlstm_step::mlstm_step,
        KernelId::NextIds => training(next_ids::next_ids),
        KernelId::RmsNorm => rms_norm::rms_norm,
        KernelId::RmsNormGrad => training(rms_norm_grad::rms_norm_grad),
        KernelId::Rope => rope::rope,
        KernelId::RopeGrad => training(rope_grad::rope_grad),
        KernelId::RoundF16 => round_f16::round_f16,
        KernelId::RowDistance => training(row_distance::row_distance),
        KernelId::RowDistanceGrad => training(row_distance_grad::row_distance_grad),
        KernelId::Sample => sample::sample,
        KernelId::SiluMul => silu_mul::silu_mul,
        KernelId::SiluMulGrad => training(silu_mul_grad::silu_mul_grad),
        KernelId::SoftLabels => training(soft_labels::soft_labels),
        KernelId::SumRows => training(sum_rows::sum_rows),
        KernelId::SumSquares => training(sum_squares::sum_squares),
        KernelId::Transpose => training(transpose::transpose),
    }
}
