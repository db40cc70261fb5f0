//! The variants of a kernel, and the WGSL text of each variant.

use crate::table::Kernel;
use crate::variant::{Fusion, Reduce, Tiles, Variant, WeightFormat};

/// The values of a variant dimension that a kernel implements, which are those that `resolve` maps to themselves.
///
/// A kernel without the dimension has the single value `None`.
fn own_variants<T: Copy + PartialEq, const N: usize>(all: [T; N], resolve: impl Fn(T) -> Option<T>) -> Vec<Option<T>> {
    let own: Vec<_> = all.into_iter().filter(|&value| resolve(value) == Some(value)).map(Some).collect();
    if own.is_empty() { vec![None] } else { own }
}

impl Kernel {
    /// Returns every variant of the kernel.
    pub fn variants(&self) -> Vec<Variant> {
        let weights: Vec<_> = if self.weights.is_some() { WeightFormat::ALL.map(Some).to_vec() } else { vec![None] };
        let mut reduce = own_variants(Reduce::ALL, |reduce| self.resolve_reduce(reduce));
        if self.single_lane {
            reduce.push(None);
        }
        let fusion: Vec<_> = if self.fusion { Fusion::ALL.map(Some).to_vec() } else { vec![None] };
        let mut all = Vec::new();
        for &weights in &weights {
            let tiles = own_variants(Tiles::ALL, |tiles| self.resolve_tiles(weights, tiles));
            for &reduce in &reduce {
                for &fusion in &fusion {
                    all.extend(tiles.iter().map(|&tiles| Variant { weights, reduce, fusion, tiles }));
                }
            }
        }
        all
    }

    /// Returns the maximum number of storage buffers that a variant of the kernel binds.
    pub fn max_storage_buffers(&self) -> usize {
        self.bindings.len() + usize::from(self.guard) + usize::from(self.weights.is_some())
    }

    /// Returns the variant that matches the caller's choices; dimensions that the kernel lacks are dropped.
    pub fn variant(&self, weights: WeightFormat, reduce: Reduce, fusion: Fusion, tiles: Tiles) -> Variant {
        Variant {
            weights: self.weights.map(|_| weights),
            reduce: self.resolve_reduce(reduce),
            fusion: self.fusion.then_some(fusion),
            tiles: self.resolve_tiles(self.weights.map(|_| weights), tiles),
        }
    }

    /// Returns the variant that serves a request for `reduce`.
    fn resolve_reduce(&self, reduce: Reduce) -> Option<Reduce> {
        if self.single_lane {
            return (reduce == Reduce::SingleLane).then_some(reduce);
        }
        // Kernels with teams have no `OneSubgroup` variant.
        self.reduce.then_some(if self.fusion && reduce == Reduce::OneSubgroup { Reduce::Subgroup } else { reduce })
    }

    /// Returns the variant that serves a request for `tiles`.
    fn resolve_tiles(&self, weights: Option<WeightFormat>, tiles: Tiles) -> Option<Tiles> {
        let cooperates = self.cooperative_text.is_some() && weights.is_some_and(|format| format != WeightFormat::F32);
        self.subgroup_text.map(|_| match tiles {
            Tiles::Cooperative8 | Tiles::Cooperative16 if !cooperates => Tiles::Workgroup,
            Tiles::SingleLane if self.single_lane_text.is_none() => Tiles::Workgroup,
            tiles => tiles,
        })
    }

    /// Returns the complete WGSL text of a variant: its shared parts, then the kernel's own file.
    pub fn source(&self, variant: Variant) -> String {
        let (first, types) = variant.tiles.map_or_else(Default::default, Tiles::parts);
        let mut text = first.to_owned();
        if self.math {
            text.push_str(include_str!("../wgsl/shared/math.wgsl"));
        }
        if self.guard {
            text.push_str(include_str!("../wgsl/shared/guard.wgsl"));
        }
        let weights = variant.weights.zip(self.weights).map(|(format, access)| format.part(access));
        let reduce = variant.reduce.filter(|_| self.reduce).map(|reduce| reduce.part(self.fusion));
        for part in [reduce, weights].into_iter().flatten() {
            text.push_str(part);
        }
        if let Some(fusion) = variant.fusion {
            text.push_str(&fusion.part());
        }
        text.push_str(&types);
        let own = match variant.tiles {
            Some(Tiles::Subgroup) => self.subgroup_text,
            Some(Tiles::Cooperative8 | Tiles::Cooperative16) => self.cooperative_text,
            Some(Tiles::SingleLane) => self.single_lane_text,
            Some(Tiles::Workgroup) | None => None,
        };
        match variant.reduce {
            Some(_) if self.single_lane => text.push_str(&without_barriers(self.text)),
            _ => text.push_str(own.unwrap_or(self.text)),
        }
        text
    }
}

/// Removes the barriers from a kernel's text, for a workgroup of a single lane.
///
/// Barriers are slow on CPUs, both to compile and to run.
fn without_barriers(text: &str) -> String {
    text.replace("workgroupBarrier();", "").replace("workgroupUniformLoad(&", "(")
}
