//! Running a kernel in every instruction set, alone and on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::{Call, Fault, InstructionSet, Memory, OddRows, Workers};
use crate::cpu::Matrix;
use crate::cpu::noise::noise;
use crate::params::Params;
use crate::quant;
use crate::table::KernelId;
use crate::variant::{Fusion, Products, WeightFormat};

/// Sizes to test with, the smallest ones first: under Miri, which takes a thousand times as long, the first two.
pub(super) fn cases<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    all.into_iter().take(if cfg!(miri) { 2 } else { usize::MAX })
}

/// Runs tasks on a number of threads of its own.
pub(super) struct Threads(pub(super) usize);

impl Workers for Threads {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if cfg!(target_family = "wasm") {
            // There are no threads.
            return (0..tasks).rev().for_each(task);
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        // From the last task to the first: their order must not matter.
                        let done = next.fetch_add(1, Ordering::Relaxed);
                        match tasks.checked_sub(done + 1) {
                            Some(number) => task(number),
                            None => break,
                        }
                    }
                });
            }
        });
    }
}

/// Bytes aligned as the CPU device aligns them.
#[derive(Clone, Copy, PartialEq)]
#[repr(align(64))]
struct Line([u32; 16]);

/// A kernel with the initial contents of its bindings.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) kernel: KernelId,
    pub(super) format: WeightFormat,
    pub(super) fusion: Fusion,
    pub(super) products: Products,
    pub(super) params: Vec<u8>,
    /// Words of each storage binding.
    pub(super) bindings: Vec<Vec<u32>>,
    /// Words of the scales, in formats that have them.
    pub(super) scales: Option<Vec<u32>>,
    /// Words of the odd rows of a matrix and of their scales, if they are apart.
    pub(super) odd_rows: Option<(Vec<u32>, Option<Vec<u32>>)>,
    pub(super) any_order: bool,
    /// Words of the guard flags.
    pub(super) guard: Option<Vec<u32>>,
    pub(super) grid: [u32; 3],
}

/// The contents of the bindings after a run.
pub(super) struct Found(Vec<Vec<u32>>);

impl Found {
    pub(super) fn f32(&self, binding: usize) -> &[f32] {
        bytemuck::cast_slice(&self.0[binding])
    }

    pub(super) fn u32(&self, binding: usize) -> &[u32] {
        &self.0[binding]
    }
}

/// The words of some values, filled up to whole words.
pub(super) fn words<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u32> {
    let mut bytes = bytemuck::cast_slice::<T, u8>(values).to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

/// A matrix of noise in a weight format.
pub(super) enum Table {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Q8(Vec<u8>, Vec<f16>),
    Q4(Vec<u8>, Vec<f16>),
}

impl Table {
    pub(super) fn new(format: WeightFormat, seed: u64, count: usize) -> Self {
        let values = noise(seed, count, 1.0);
        let (mut weights, mut scales) = (Vec::new(), Vec::new());
        if format.has_scales() {
            quant::quantize(format, &values, &mut weights, &mut scales).expect("values in range");
        }
        match format {
            WeightFormat::F32 => Self::F32(values),
            WeightFormat::F16 => Self::F16(values.into_iter().map(f16::from_f32).collect()),
            WeightFormat::Q8 => Self::Q8(weights, scales),
            WeightFormat::Q4 => Self::Q4(weights, scales),
        }
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        match self {
            Self::F32(w) => Matrix::F32(w),
            Self::F16(w) => Matrix::F16(w),
            Self::Q8(w, scales) => Matrix::Q8(w, scales),
            Self::Q4(w, scales) => Matrix::Q4(w, scales),
        }
    }

    /// The bytes of the weights, without padding.
    pub(super) fn matrix_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(w) => bytemuck::cast_slice(w).to_vec(),
            Self::F16(w) => bytemuck::cast_slice(w).to_vec(),
            Self::Q8(w, _) | Self::Q4(w, _) => w.clone(),
        }
    }

    /// The bytes of the scales, without padding.
    pub(super) fn scale_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::F32(_) | Self::F16(_) => None,
            Self::Q8(_, scales) | Self::Q4(_, scales) => Some(bytemuck::cast_slice(scales).to_vec()),
        }
    }

    /// The words of the first binding.
    pub(super) fn weights(&self) -> Vec<u32> {
        match self {
            Self::F32(w) => words(w),
            Self::F16(w) => words(w),
            Self::Q8(w, _) | Self::Q4(w, _) => words(w),
        }
    }

    pub(super) fn scales(&self) -> Option<Vec<u32>> {
        match self {
            Self::F32(_) | Self::F16(_) => None,
            Self::Q8(_, scales) | Self::Q4(_, scales) => Some(words(scales)),
        }
    }
}

impl Run {
    /// A kernel without weight formats, fusions and guard.
    pub(super) fn new<P: Params>(kernel: KernelId, params: &P, bindings: Vec<Vec<u32>>, grid: [u32; 3]) -> Self {
        Self {
            kernel,
            format: WeightFormat::F32,
            fusion: Fusion::default(),
            products: Products::F32,
            params: bytemuck::bytes_of(params).to_vec(),
            bindings,
            scales: None,
            odd_rows: None,
            any_order: false,
            guard: None,
            grid,
        }
    }

    /// Runs the kernel once.
    pub(super) fn once(&self, instructions: InstructionSet, workers: &dyn Workers) -> Result<Found, Fault> {
        let lines = |words: &Vec<u32>| -> Vec<Line> {
            let line = |words: &[u32]| Line(std::array::from_fn(|i| words.get(i).copied().unwrap_or_default()));
            words.chunks(16).map(line).collect()
        };
        let mut memory: Vec<Vec<Line>> = self.bindings.iter().map(lines).collect();
        let mut scales = self.scales.as_ref().map(lines);
        let mut odd_rows = self.odd_rows.as_ref().map(|(w, scales)| (lines(w), scales.as_ref().map(lines)));
        let mut guard = self.guard.as_ref().map(lines);
        // SAFETY: the memory is as large as the words it was made from, nobody else uses it before the call is over.
        let view = |lines: &mut Vec<Line>, words: &Vec<u32>| unsafe {
            Memory::new(lines.as_mut_ptr().cast::<u32>(), words.len())
        };
        let bindings: Vec<_> = memory.iter_mut().zip(&self.bindings).map(|(lines, words)| view(lines, words)).collect();
        let odd_rows =
            odd_rows.as_mut().zip(self.odd_rows.as_ref()).map(|((w, scales), (words, scale_words))| OddRows {
                weights: view(w, words),
                scales: scales.as_mut().zip(scale_words.as_ref()).map(|(lines, words)| view(lines, words)),
            });
        let call = Call {
            kernel: self.kernel,
            format: self.format,
            fusion: self.fusion,
            params: &self.params,
            bindings: &bindings,
            scales: scales.as_mut().zip(self.scales.as_ref()).map(|(lines, words)| view(lines, words)),
            odd_rows,
            any_order: self.any_order,
            guard: guard.as_mut().zip(self.guard.as_ref()).map(|(lines, words)| view(lines, words)),
            grid: self.grid,
            instructions,
            products: self.products,
            workers,
        };
        call.run()?;
        let values = |(lines, words): (&Vec<Line>, &Vec<u32>)| -> Vec<u32> {
            lines.iter().flat_map(|line| line.0).take(words.len()).collect()
        };
        Ok(Found(memory.iter().zip(&self.bindings).map(values).collect()))
    }

    /// Why the first instruction set refuses the bindings.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.once(InstructionSet::best(), &Threads(1)).err()
    }

    /// Checks that each binding is refused if it lacks its last `words` words, and each of the first `fields`
    /// parameters if it is the largest number.
    pub(super) fn refuses_what_does_not_fit(&self, words: usize, fields: usize) {
        for binding in 0..self.bindings.len() {
            let mut run = self.clone();
            let length = run.bindings[binding].len();
            run.bindings[binding].truncate(length - words);
            assert!(run.fault().is_some(), "binding {binding}");
        }
        for field in 0..fields {
            let mut run = self.clone();
            run.params[4 * field..4 * (field + 1)].fill(0xff);
            assert!(run.fault().is_some(), "parameter {field}");
        }
    }

    /// Runs the kernel in every instruction set and passes what it wrote to `check`. The results of one, two and three
    /// threads must have the same bits.
    pub(super) fn all(&self, check: impl Fn(&Found)) {
        for instructions in InstructionSet::available() {
            let found = self.once(instructions, &Threads(1)).expect("a call with bindings that are large enough");
            for threads in [2, 3] {
                let again = self.once(instructions, &Threads(threads)).expect("the same call");
                assert!(again.0 == found.0, "{}: other bits with {threads} threads", instructions.name());
            }
            check(&found);
        }
    }
}
