//! What the teacher says of each next byte: its probabilities of subwords, added up over those that begin with what is there of a subword
//! already. They are targets of the student's logits, with every id's share and not only the one that came. Not of the paper, whose
//! distillation compares the probabilities of whole subwords that came.

use std::ops::Range;
use std::sync::Arc;

use bolmo_runtime::internals::{Gpu, Recorder, Slice, by_shares};
use bolmo_runtime::stages::bytes::FUSED_OFFSET;
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{NextIds, SoftLabels, SumRows};
use bolmo_shaders::table::WORKGROUP;

use crate::layers::{Shape, buffer};
use crate::loss::{IGNORED, Targets};

/// No node, and no place.
const NOWHERE: u32 = u32::MAX;
/// The node of nothing.
const ROOT: u32 = 0;

/// Subwords in the order of their bytes, and a node for each beginning that several bytes of some subword make.
#[derive(Debug, Default)]
struct Tree {
    /// Subwords as their bytes are sorted.
    order: Vec<u32>,
    /// First child of each node, and the number of all children behind the last one.
    starts: Vec<u32>,
    /// Id (a fused one if a subword ends with it), first subword in `order`, number of subwords, 0.
    children: Vec<[u32; 4]>,
    /// The node that each child leads to.
    leads_to: Vec<u32>,
}

impl Tree {
    /// Of the ids of each subword; subwords without ids are left out.
    fn new(sequences: &[Vec<u16>]) -> Self {
        let mut order: Vec<u32> =
            (0..sequences.len() as u32).filter(|&at| !sequences[at as usize].is_empty()).collect();
        order.sort_by_key(|&at| &sequences[at as usize]);
        let of = |place: usize| &sequences[order[place] as usize];
        let (mut starts, mut children, mut leads_to) = (Vec::new(), Vec::new(), Vec::new());
        // Nodes by their number: how many ids are there already, and the subwords that begin so.
        let mut nodes = vec![(0, 0..order.len())];
        let mut node = 0;
        while let Some((depth, places)) = nodes.get(node).cloned() {
            starts.push(children.len() as u32);
            let mut at = places.start;
            while at < places.end {
                let id = of(at)[depth];
                let ends = |place: &usize| of(*place)[depth] == id && of(*place).len() == depth + 1;
                let same = |place: &usize| of(*place)[depth] == id;
                let ending = (at..places.end).take_while(ends).count();
                let longer = (at + ending..places.end).take_while(same).count();
                if ending > 0 {
                    children.push([u32::from(id + FUSED_OFFSET), at as u32, ending as u32, 0]);
                    leads_to.push(NOWHERE);
                }
                at += ending;
                if longer > 0 {
                    children.push([id.into(), at as u32, longer as u32, 0]);
                    leads_to.push(nodes.len() as u32);
                    nodes.push((depth + 1, at..at + longer));
                }
                at += longer;
            }
            node += 1;
        }
        starts.push(children.len() as u32);
        Self { order, starts, children, leads_to }
    }

    /// The node behind another one and an id.
    fn step(&self, node: u32, id: u32) -> u32 {
        let (Some(&first), Some(&last)) = (self.starts.get(node as usize), self.starts.get(node as usize + 1)) else {
            return NOWHERE;
        };
        let mut all = first as usize..last as usize;
        all.find(|&child| self.children[child][0] == id).map_or(NOWHERE, |child| self.leads_to[child])
    }

    /// Row of the teacher and node of what each byte's logits are about, `[B, L, 2]`.
    fn places(&self, targets: &Targets<'_>, ids: &[u32]) -> Vec<[u32; 2]> {
        if self.order.is_empty() {
            return vec![[0, NOWHERE]; ids.len()];
        }
        let rows = ids.len() / targets.shape.bytes;
        let of_rows = |rows: Range<usize>| rows.flat_map(|row| self.places_of(row, targets, ids)).collect::<Vec<_>>();
        by_shares(rows, 1, 1, of_rows).into_iter().flat_map(|(_, places)| places).collect()
    }

    /// The same of one example.
    fn places_of(&self, row: usize, targets: &Targets<'_>, ids: &[u32]) -> Vec<[u32; 2]> {
        let Shape { bytes, patches, .. } = targets.shape;
        let own = row * bytes..(row + 1) * bytes;
        let (ids, patch_of) = (&ids[own.clone()], &targets.patch_of[own.clone()]);
        let (labels, truth) = (&targets.labels[own.clone()], &targets.truth[own]);
        let real = |t: usize| labels[t] != IGNORED;
        let mut places = vec![[0, NOWHERE]; bytes];
        let mut node = NOWHERE;
        for t in 0..bytes - 1 {
            let patch = patch_of[t + 1];
            node = if patch != patch_of[t] { ROOT } else { self.step(node, ids[t]) };
            // A subword's end that the labels don't tell of, in front of an end of text or of padding: nothing to compare.
            let ends = patch_of.get(t + 2) != Some(&patch);
            let told = truth[t + 1] && real(t + 1);
            if real(t) && (1..patches as u32).contains(&patch) && (!ends || told) {
                places[t] = [(row * patches) as u32 + patch - 1, node];
            }
        }
        places
    }
}

/// The tree on the device, and the targets of a batch.
#[derive(Debug)]
pub(crate) struct Spelling {
    tree: Tree,
    /// Ids of the student.
    n: usize,
    order: Slice,
    starts: Slice,
    children: Slice,
    /// `[bytes, 2]`
    place: Slice,
    /// Probabilities, then the gradient of the divergence from them, `[bytes, n]`.
    target: Slice,
    /// `[bytes]`
    pub(crate) divergence: Slice,
}

impl Spelling {
    /// Of the ids of each of the teacher's subwords, for a student with `n` ids.
    pub(crate) async fn new(gpu: &Arc<Gpu>, sequences: &[Vec<u16>], shape: Shape, n: usize) -> Result<Self> {
        let tree = Tree::new(sequences);
        let bytes = shape.all_bytes();
        let this = Self {
            n,
            order: buffer(gpu, tree.order.len().max(1), 1).await?,
            starts: buffer(gpu, tree.starts.len(), 1).await?,
            children: buffer(gpu, tree.children.len().max(1), 4).await?,
            place: buffer(gpu, bytes, 2).await?,
            target: buffer(gpu, bytes, n).await?,
            divergence: buffer(gpu, bytes, 1).await?,
            tree,
        };
        gpu.write(&this.order, 0, bytemuck::cast_slice(&this.tree.order))?;
        gpu.write(&this.starts, 0, bytemuck::cast_slice(&this.tree.starts))?;
        gpu.write(&this.children, 0, bytemuck::cast_slice(&this.tree.children))?;
        Ok(this)
    }

    /// Gets ready for a batch.
    pub(crate) fn begin(&self, recorder: &mut Recorder, targets: &Targets<'_>, ids: &[u32]) -> Result<()> {
        let places = self.tree.places(targets, ids);
        recorder.gpu().write(&self.place, 0, bytemuck::cast_slice(&places))?;
        recorder.clear(&self.target);
        Ok(())
    }

    /// Takes in the teacher's logits of `count` patches from `first` on, `[count, vocabulary]`.
    pub(crate) fn take(
        &self,
        recorder: &mut Recorder,
        logits: &Slice,
        vocabulary: usize,
        first: usize,
        count: usize,
    ) -> Result<()> {
        let rows = self.place.size() as usize / 8;
        let params = NextIds {
            rows: rows as u32,
            n: self.n as u32,
            vocabulary: vocabulary as u32,
            first: first as u32,
            count: count as u32,
        };
        let slices = [logits, &self.order, &self.starts, &self.children, &self.place, &self.target];
        recorder.dispatch(KernelId::NextIds, WeightFormat::F32, &params, &slices, [rows, 1, 1])
    }

    /// Compares the student's logits, `[bytes, n]`, about which `logs` are what `log_softmax` says. `scale` is that of the gradient.
    pub(crate) fn compare(&self, recorder: &mut Recorder, logits: &Slice, logs: &Slice, scale: f32) -> Result<()> {
        let rows = self.place.size() as usize / 8;
        let params = SoftLabels { rows: rows as u32, n: self.n as u32, scale };
        let slices = [logits, logs, &self.place, &self.target, &self.divergence];
        recorder.dispatch(KernelId::SoftLabels, WeightFormat::F32, &params, &slices, [rows, 1, 1])
    }

    /// Adds the gradient to that of the logits.
    pub(crate) fn add_gradient(&self, recorder: &mut Recorder, d_logits: &Slice) -> Result<()> {
        let rows = self.place.size() as usize / 8;
        // Sums of one row each.
        let params = SumRows {
            rows: rows as u32,
            columns: self.n as u32,
            x_offset: 0,
            x_stride: self.n as u32,
            per: 1,
            y_offset: 0,
            add: 1,
        };
        let grid = [self.n.div_ceil(WORKGROUP as usize), rows, 1];
        recorder.dispatch(KernelId::SumRows, WeightFormat::F32, &params, &[&self.target, d_logits], grid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of `a`, `ab`, `abc`, nothing, `b`, and `ab` once more.
    fn tree() -> Tree {
        Tree::new(&[vec![10], vec![10, 11], vec![10, 11, 12], vec![], vec![11], vec![10, 11]])
    }

    #[test]
    fn every_beginning_has_a_node() {
        let tree = tree();
        assert_eq!(tree.order, [0, 1, 5, 2, 4]);
        let fused = |id: u32| id + 260;
        assert_eq!(tree.starts, [0, 3, 5, 6]);
        let of_nothing = [[fused(10), 0, 1, 0], [10, 1, 3, 0], [fused(11), 4, 1, 0]];
        assert_eq!(tree.children[..3], of_nothing);
        assert_eq!(tree.children[3..], [[fused(11), 1, 2, 0], [11, 3, 1, 0], [fused(12), 3, 1, 0]]);
        let a = tree.step(ROOT, 10);
        assert_eq!((a, tree.step(a, 11), tree.step(ROOT, 11), tree.step(NOWHERE, 10)), (1, 2, NOWHERE, NOWHERE));
        assert_eq!(Tree::new(&[vec![]]).starts, [0, 0]);
    }

    #[test]
    fn places_follow_the_true_patches() {
        // <bos>, `ab`, `ac`, which is no subword, and `b` in front of padding.
        let ids = [1, 10, 11, 10, 12, 11, 0, 0];
        let shape = Shape { rows: 1, bytes: 8, patches: 4 };
        let targets = Targets {
            shape,
            labels: &[10, 11, 10, 12, 11, IGNORED, IGNORED, IGNORED],
            truth: &[true, false, true, false, true, true, false, false],
            patch_lens: &[1, 2, 2, 1],
            patch_of: &[0, 1, 1, 2, 2, 3, 4, 4],
        };
        let places = tree().places(&targets, &ids);
        let none = [0, NOWHERE];
        assert_eq!(places, [[0, 0], [0, 1], [1, 0], [1, 1], none, none, none, none]);
    }
}
