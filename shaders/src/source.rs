//! The variants of a kernel, and the WGSL text of each.

use crate::table::Kernel;
use crate::variant::{Fusion, Reduce, Tiles, Variant, WeightFormat};

/// The forms of a dimension that a kernel has itself: those that are what they come to. A kernel without the dimension has one form.
fn own_forms<T: Copy + PartialEq, const N: usize>(all: [T; N], comes_to: impl Fn(T) -> Option<T>) -> Vec<Option<T>> {
    let own: Vec<_> = all.into_iter().filter(|&form| comes_to(form) == Some(form)).map(Some).collect();
    if own.is_empty() { vec![None] } else { own }
}

impl Kernel {
    /// Every variant of the kernel.
    pub fn variants(&self) -> Vec<Variant> {
        let weights: Vec<_> = if self.weights.is_some() { WeightFormat::ALL.map(Some).to_vec() } else { vec![None] };
        let mut reduce = own_forms(Reduce::ALL, |reduce| self.reduces(reduce));
        if self.lone {
            reduce.push(None);
        }
        let fusion: Vec<_> = if self.fusion { Fusion::ALL.map(Some).to_vec() } else { vec![None] };
        let mut all = Vec::new();
        for &weights in &weights {
            let tiles = own_forms(Tiles::ALL, |tiles| self.tiles(weights, tiles));
            for &reduce in &reduce {
                for &fusion in &fusion {
                    all.extend(tiles.iter().map(|&tiles| Variant { weights, reduce, fusion, tiles }));
                }
            }
        }
        all
    }

    /// Storage buffers of the variant that binds most of them.
    pub fn most_storage_buffers(&self) -> usize {
        self.bindings.len() + usize::from(self.guard) + usize::from(self.weights.is_some())
    }

    /// The variant of this kernel that a caller's choices come to: dimensions that the kernel lacks are dropped.
    pub fn variant(&self, weights: WeightFormat, reduce: Reduce, fusion: Fusion, tiles: Tiles) -> Variant {
        Variant {
            weights: self.weights.map(|_| weights),
            reduce: self.reduces(reduce),
            fusion: self.fusion.then_some(fusion),
            tiles: self.tiles(self.weights.map(|_| weights), tiles),
        }
    }

    /// The form that there is where `reduce` is asked for.
    fn reduces(&self, reduce: Reduce) -> Option<Reduce> {
        if self.lone {
            return (reduce == Reduce::OneLane).then_some(reduce);
        }
        // Products have teams.
        self.reduce.then_some(if self.fusion && reduce == Reduce::OneSubgroup { Reduce::Subgroup } else { reduce })
    }

    /// The form that there is where `tiles` is asked for.
    fn tiles(&self, weights: Option<WeightFormat>, tiles: Tiles) -> Option<Tiles> {
        let cooperates = self.cooperative_text.is_some() && weights.is_some_and(|format| format != WeightFormat::F32);
        self.subgroup_text.map(|_| match tiles {
            Tiles::Cooperative8 | Tiles::Cooperative16 if !cooperates => Tiles::Workgroup,
            Tiles::OneLane if self.one_lane_text.is_none() => Tiles::Workgroup,
            tiles => tiles,
        })
    }

    /// The whole WGSL text of a variant: the shared parts it is made of, then the kernel's own file.
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
            Some(Tiles::OneLane) => self.one_lane_text,
            Some(Tiles::Workgroup) | None => None,
        };
        match variant.reduce {
            Some(_) if self.lone => text.push_str(&without_barriers(self.text)),
            _ => text.push_str(own.unwrap_or(self.text)),
        }
        text
    }
}

/// A kernel's text for a workgroup of one lane, which waits for nobody. CPUs are slow to compile barriers, and to keep them.
fn without_barriers(text: &str) -> String {
    text.replace("workgroupBarrier();", "").replace("workgroupUniformLoad(&", "(")
}
