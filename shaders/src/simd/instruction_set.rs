//! The instruction sets that kernels are compiled for, and the choice of one.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected;

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
#[cfg(not(target_family = "wasm"))]
use super::int8::{DotTask, PortableDot};
#[cfg(target_arch = "x86_64")]
use super::int8::{Maddubs, Vnni512};
#[cfg(target_arch = "aarch64")]
use super::int8::{NeonDot, NeonWide};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use super::portable::Portable;
use super::vector::Vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::wasm::Simd128;

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    Portable,
}

impl InstructionSet {
    /// Every instruction set that this CPU has, the fastest one first.
    pub fn available() -> Vec<Self> {
        let all = [
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, has_avx512() && has_avx2()),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, has_avx2()),
            #[cfg(target_arch = "aarch64")]
            (Kind::Neon, true),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (Kind::Simd128, true),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            (Kind::Portable, true),
        ];
        all.into_iter().filter(|(_, has)| *has).map(|(kind, _)| Self(kind)).collect()
    }

    /// The fastest one that this CPU has.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// Its name: `avx512`, `avx2`, `neon`, `simd128` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => "simd128",
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => "portable",
        }
    }

    /// Runs `task` with the vectors of this instruction set.
    #[inline]
    pub(super) fn run<T: Task>(self, task: T) {
        match self.0 {
            // SAFETY: `available` is the only place that makes such a value, and has checked the CPU.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { run_avx512(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { run_avx2(task) },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => task.run::<Neon>(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => task.run::<Simd128>(),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => task.run::<Portable>(),
        }
    }

    /// Runs `task` with the dot products of this instruction set, in the fastest form that the CPU has.
    #[cfg(not(target_family = "wasm"))]
    #[inline]
    pub(super) fn run_dot<T: DotTask>(self, task: T) {
        match self.0 {
            // SAFETY: as for `run`, and the CPU has the instructions for dot products.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if is_x86_feature_detected!("avx512vnni") => unsafe { run_vnni(task) },
            // SAFETY: as for `run`. With AVX-512, the CPU has AVX2 too.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx2 => unsafe { run_maddubs(task) },
            // SAFETY: the CPU has the instructions for dot products.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon if is_aarch64_feature_detected!("dotprod") => unsafe { run_neon_dot(task) },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => task.run::<NeonWide>(),
            Kind::Portable => task.run::<PortableDot>(),
        }
    }
}

/// Work in vectors. Implementations are `#[inline(always)]`, and so is what they call with vectors: only then is their
/// code compiled for the instruction set.
pub(super) trait Task {
    /// Does the work.
    fn run<V: Vector>(self);
}

/// # Safety
/// The CPU has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<T: Task>(task: T) {
    task.run::<Avx2>();
}

/// # Safety
/// The CPU has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn run_avx512<T: Task>(task: T) {
    task.run::<Avx512>();
}

/// # Safety
/// The CPU has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_maddubs<T: DotTask>(task: T) {
    task.run::<Maddubs>();
}

/// # Safety
/// The CPU has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_vnni<T: DotTask>(task: T) {
    task.run::<Vnni512>();
}

/// # Safety
/// The CPU has the feature.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "dotprod")]
unsafe fn run_neon_dot<T: DotTask>(task: T) {
    task.run::<NeonDot>();
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::noise;

    /// Calls a closure-like struct with every vector.
    struct Exp<'a> {
        x: &'a [f32],
        y: &'a mut [f32],
    }

    impl Task for Exp<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            for (x, y) in self.x.chunks(V::LANES).zip(self.y.chunks_mut(V::LANES)) {
                // SAFETY: both chunks have that many values.
                unsafe { V::load_first(x.as_ptr(), x.len()).exp().store_first(y.as_mut_ptr(), y.len()) };
            }
        }
    }

    #[test]
    fn exp_is_accurate_in_every_instruction_set() {
        let mut x = noise(1, 4000, 87.0);
        x.extend(noise(2, 4000, 1.0));
        x.extend([0.0, -0.0, f32::MIN_POSITIVE, -87.3, 88.3]);
        for set in InstructionSet::available() {
            let mut y = vec![0.0; x.len()];
            set.run(Exp { x: &x, y: &mut y });
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(x).exp();
                assert!((f64::from(y) - expected).abs() <= 2e-7 * expected, "{}: exp({x}) = {y}", set.name());
            }
            let mut ends = [0.0; 3];
            set.run(Exp { x: &[-1e30, f32::NEG_INFINITY, 1e30], y: &mut ends });
            assert!(ends[0] <= 1.2e-38 && ends[1] <= 1.2e-38 && ends[2] > 2e38, "{}: {ends:?}", set.name());
        }
    }

    struct Sums<'a>(&'a [f32], &'a mut f32);

    impl Task for Sums<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            // SAFETY: there are 16 values.
            unsafe { *self.1 = V::load(self.0.as_ptr()).sum() + V::load_first(self.0.as_ptr(), 3).sum() };
        }
    }

    #[test]
    fn sums_cover_every_lane() {
        let values: [f32; 16] = std::array::from_fn(|i| (1 << i) as f32);
        for set in InstructionSet::available() {
            let mut sum = 0.0;
            set.run(Sums(&values, &mut sum));
            let lanes = match set.name() {
                "avx512" => 16,
                "neon" | "simd128" => 4,
                _ => 8,
            };
            assert_eq!(sum, ((1 << lanes) - 1 + 7) as f32, "{}", set.name());
        }
    }
}
