//! A dispatch of a kernel on the CPU.

use half::f16;

use super::instruction_set::InstructionSet;
use super::memory::{Fault, Memory, Output};
use super::weights::WeightRows;
use crate::cpu::Matrix;
use crate::params::Params;
use crate::sizes::QUANT_BLOCK;
use crate::table::{Access, Kernel, KernelId};
use crate::variant::{Fusion, Products, WeightFormat};

/// Words from one row's guard flag to the next, as in `wgsl/shared/guard.wgsl`.
const GUARD_STRIDE: usize = 64;
/// Multiply-adds below which threads cost more than they save: waking and awaiting them takes about as long.
/// Under Miri, small inputs must go through threads too.
const SERIAL_COST: usize = if cfg!(miri) { 0 } else { 40_000 };

/// The product of sizes, or the largest number, for which no binding is large enough, if it exceeds that.
pub(super) fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// Threads that share the tasks of a kernel.
pub trait Workers: Sync {
    /// Calls `task` once with each number below `tasks`, on any of the threads, and returns when all calls have.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Every other row of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct OddRows<'a> {
    /// `[n / 2, k]`
    pub weights: Memory<'a>,
    /// Their scales, in formats that have scales.
    pub scales: Option<Memory<'a>>,
}

/// A dispatch of a kernel.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The kernel.
    pub kernel: KernelId,
    /// Format of the matrix in binding 1, if the kernel has one.
    pub format: WeightFormat,
    /// Operations fused into a product.
    pub fusion: Fusion,
    /// The parameter block.
    pub params: &'a [u8],
    /// The storage bindings, in the order of the table.
    pub bindings: &'a [Memory<'a>],
    /// Scales of the matrix, in formats that have scales.
    pub scales: Option<Memory<'a>>,
    /// Where rows with odd numbers of a product's matrix are, if they are apart. Binding 1 has the even ones then.
    pub odd_rows: Option<OddRows<'a>>,
    /// Whether the sums of a `matmul` may be added up in any order, which is faster. Otherwise an output has the same
    /// bits in `matvec`, and for any number of rows.
    pub any_order: bool,
    /// Flags that skip rows, of a guarded kernel.
    pub guard: Option<Memory<'a>>,
    /// Workgroups of the shader. Kernels take from it what parameters lack, such as the number of rows.
    pub grid: [u32; 3],
    /// The instruction set to compute with.
    pub instructions: InstructionSet,
    /// The arithmetic of products.
    pub products: Products,
    /// The threads to compute on.
    pub workers: &'a dyn Workers,
}

impl<'a> Call<'a> {
    /// Runs the kernel.
    ///
    /// # Errors
    /// [`Fault`] if a binding is missing, is too small for the parameters, or overlaps one that is written. Nothing has
    /// been written then.
    pub fn run(&self) -> Result<(), Fault> {
        let row = self.kernel.kernel();
        self.check_bindings(row)?;
        super::kernel(self.kernel)(self)
    }

    fn check_bindings(&self, row: &Kernel) -> Result<(), Fault> {
        let found = self.bindings.len();
        if found != row.bindings.len() {
            return Err(Fault::new(format!("{}: found {found} bindings, expected {}", row.stem, row.bindings.len())));
        }
        let all = || row.bindings.iter().zip(self.bindings).enumerate();
        for (i, (written, memory)) in all().filter(|(_, (binding, _))| binding.access == Access::ReadWrite) {
            if let Some((_, (other, _))) = all().find(|(j, (_, other))| *j != i && memory.overlaps(other)) {
                return Err(Fault::new(format!("{}: {} overlaps {}", row.stem, written.name, other.name)));
            }
        }
        Ok(())
    }

    /// The parameter block.
    pub(super) fn params<P: Params>(&self) -> Result<P, Fault> {
        let bytes = self.params.get(..size_of::<P>());
        bytes
            .map(bytemuck::pod_read_unaligned)
            .ok_or_else(|| self.fault("parameters", size_of::<P>(), self.params.len()))
    }

    /// The first `count` values of storage binding `i`, counted from 0 in the order of the table.
    pub(super) fn read(&self, i: usize, count: usize) -> Result<&'a [f32], Fault> {
        self.bindings[i].values(count).ok_or_else(|| self.too_small(i, count))
    }

    /// As [`Self::read`], for unsigned integers.
    pub(super) fn read_u32(&self, i: usize, count: usize) -> Result<&'a [u32], Fault> {
        self.bindings[i].values(count).ok_or_else(|| self.too_small(i, count))
    }

    /// Access for writing to the first `count` values of storage binding `i`.
    pub(super) fn write(&self, i: usize, count: usize) -> Result<Output<'a>, Fault> {
        self.bindings[i].output(count).ok_or_else(|| self.too_small(i, count))
    }

    /// As [`Self::write`], for unsigned integers.
    pub(super) fn write_u32(&self, i: usize, count: usize) -> Result<Output<'a, u32>, Fault> {
        self.bindings[i].output(count).ok_or_else(|| self.too_small(i, count))
    }

    /// The matrix in the first storage binding, of `count` weights.
    pub(super) fn matrix(&self, count: usize) -> Result<Matrix<'a>, Fault> {
        self.matrix_in(&self.bindings[0], self.scales.as_ref(), count)
    }

    /// The matrix `[n, k]` of a product, in the first storage binding and in [`Self::odd_rows`].
    pub(super) fn weight_rows(&self, n: usize, k: usize) -> Result<WeightRows<Matrix<'a>>, Fault> {
        let Some(OddRows { weights, scales }) = &self.odd_rows else {
            return Ok(WeightRows { k, tensors: [self.matrix(product(&[n, k]))?; 2], alternate: false });
        };
        let even = self.matrix(product(&[n.div_ceil(2), k]))?;
        let odd = self.matrix_in(weights, scales.as_ref(), product(&[n / 2, k]))?;
        Ok(WeightRows { k, tensors: [even, odd], alternate: true })
    }

    fn matrix_in(&self, w: &Memory<'a>, scales: Option<&Memory<'a>>, count: usize) -> Result<Matrix<'a>, Fault> {
        let scales = || {
            let blocks = count.div_ceil(QUANT_BLOCK);
            let found = scales.and_then(|scales| scales.values::<f16>(blocks));
            found.ok_or_else(|| self.fault("scales", 2 * blocks, scales.map_or(0, |scales| 4 * scales.words())))
        };
        let matrix = match self.format {
            WeightFormat::F32 => w.values(count).map(Matrix::F32),
            WeightFormat::F16 => w.values(count).map(Matrix::F16),
            WeightFormat::Q8 => w.values(count).map(|w| Ok(Matrix::Q8(w, scales()?))).transpose()?,
            WeightFormat::Q4 => w.values(count.div_ceil(2)).map(|w| Ok(Matrix::Q4(w, scales()?))).transpose()?,
        };
        let name = self.kernel.kernel().bindings[0].name;
        matrix.ok_or_else(|| self.fault(name, count.saturating_mul(4), 4 * w.words()))
    }

    /// Whether a guard flag tells to skip this row.
    pub(super) fn halted(&self, row: usize) -> bool {
        let flags = self.guard.as_ref().and_then(|guard| guard.values::<u32>(guard.words()));
        // Rows past the end have the last flag.
        flags.is_some_and(|flags| flags.get(row * GUARD_STRIDE).or(flags.last()).is_some_and(|&flag| flag != 0))
    }

    /// Calls `task` once with each number below `tasks`, on several threads if all tasks together cost more than about
    /// 40 000 multiply-adds.
    pub(super) fn each(&self, tasks: usize, cost: usize, task: impl Fn(usize) + Sync) {
        if tasks < 2 || cost < SERIAL_COST {
            return (0..tasks).for_each(task);
        }
        self.workers.run(tasks, &task);
    }

    fn too_small(&self, i: usize, count: usize) -> Fault {
        self.fault(self.kernel.kernel().bindings[i].name, count.saturating_mul(4), 4 * self.bindings[i].words())
    }

    fn fault(&self, what: &str, expected: usize, found: usize) -> Fault {
        let stem = self.kernel.kernel().stem;
        Fault::new(format!("{stem}: {what} has {found} bytes, its parameters ask for {expected}"))
    }
}
