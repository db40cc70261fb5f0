//! The fast form of kernels on CPUs: vectors and several threads.
//!
//! `simd/<stem>.rs` computes what `wgsl/<stem>.wgsl` computes, with the same parameter block and the same bindings, in
//! f32. It is written once, in terms of [`Vector`](vector::Vector), and compiled for every instruction set.
//!
//! Results depend on the instruction set, because lanes are added up in another order, but never on the number of
//! threads: work is divided into tasks by sizes alone, and a task adds up in a fixed order. A row of a product has the
//! same bits alone, in a batch and in a prompt.
//!
//! Every kernel follows the same steps: [`Call::params`], the bindings by [`Call::read`], [`Call::write`] and
//! [`Call::matrix`], which check that they are as large as the parameters say, then [`Call::each`].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod call;
mod direct;
mod extent;
mod instruction_set;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod portable;
mod product;
mod scratch;
#[cfg(test)]
mod testing;
mod tile;
mod vector;
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

pub use call::{Call, Workers};
pub use instruction_set::InstructionSet;
pub use memory::{Fault, Memory};

/// A kernel's fast form.
pub type SimdKernel = fn(&Call<'_>) -> Result<(), Fault>;

/// The fast form of the kernel with this stem, if there is one.
pub(crate) const fn kernel(stem: &str) -> Option<SimdKernel> {
    macro_rules! find {
        ($($name:ident)*) => {
            $(if crate::table::same(stem, stringify!($name)) { return Some($name::$name); })*
        };
    }
    find!(
        attention boundary copy gather_rows matmul matvec mlstm_cell mlstm_chunk_out mlstm_chunk_scan
        mlstm_chunk_state mlstm_gates mlstm_norm mlstm_step rms_norm rope sample silu_mul
    );
    None
}
