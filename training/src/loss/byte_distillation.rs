//! Byte distillation: the teacher's distribution of the next byte as the target of the student's logits.
//!
//! The teacher's probability of a byte is the sum of its probabilities of all subwords that continue the current prefix
//! with it. The target covers every id, not only the one that follows. The paper has no such term: its distillation
//! compares the probabilities of whole subwords of the text.

use std::ops::Range;
use std::sync::Arc;

use bolmo_runtime::ids::FUSED_OFFSET;
use bolmo_runtime::unstable::{Device, Recorder, Slice, map_chunks};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{NextIds, SoftLabels, SumRows};
use bolmo_shaders::sizes::WORKGROUP;

use super::targets::{IGNORED, Targets};
use crate::layers::Shape;
use crate::layers::activations::buffer;

/// Stands for a missing node.
const NO_NODE: u32 = u32::MAX;
/// The node of the empty prefix.
const ROOT: u32 = 0;

/// Trie of the subwords, with a node for each proper prefix.
#[derive(Debug, Default)]
struct Trie {
    /// Subwords, sorted by their bytes.
    order: Vec<u32>,
    /// First child of each node, followed by the number of children.
    starts: Vec<u32>,
    /// Id, first subword in `order`, number of subwords, and padding. The id is fused if a subword ends with it.
    children: Vec<[u32; 4]>,
    /// The node below each child.
    targets: Vec<u32>,
}

impl Trie {
    /// Builds the trie from the ids of each subword, without subwords that have no ids.
    fn new(sequences: &[Vec<u16>]) -> Self {
        let mut order: Vec<u32> =
            (0..sequences.len() as u32).filter(|&at| !sequences[at as usize].is_empty()).collect();
        order.sort_by_key(|&at| &sequences[at as usize]);
        let of = |at: usize| &sequences[order[at] as usize];
        let (mut starts, mut children, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        // Depth of each node, and the subwords below it.
        let mut nodes = vec![(0, 0..order.len())];
        let mut node = 0;
        while let Some((depth, range)) = nodes.get(node).cloned() {
            starts.push(children.len() as u32);
            let mut at = range.start;
            while at < range.end {
                let id = of(at)[depth];
                let ends = |at: &usize| of(*at)[depth] == id && of(*at).len() == depth + 1;
                let same = |at: &usize| of(*at)[depth] == id;
                let ending = (at..range.end).take_while(ends).count();
                let longer = (at + ending..range.end).take_while(same).count();
                if ending > 0 {
                    children.push([u32::from(id + FUSED_OFFSET), at as u32, ending as u32, 0]);
                    targets.push(NO_NODE);
                }
                at += ending;
                if longer > 0 {
                    children.push([id.into(), at as u32, longer as u32, 0]);
                    targets.push(nodes.len() as u32);
                    nodes.push((depth + 1, at..at + longer));
                }
                at += longer;
            }
            node += 1;
        }
        starts.push(children.len() as u32);
        Self { order, starts, children, targets }
    }

    /// The node below another one by an id.
    fn child(&self, node: u32, id: u32) -> u32 {
        let (Some(&first), Some(&last)) = (self.starts.get(node as usize), self.starts.get(node as usize + 1)) else {
            return NO_NODE;
        };
        let mut all = first as usize..last as usize;
        all.find(|&child| self.children[child][0] == id).map_or(NO_NODE, |child| self.targets[child])
    }

    /// The teacher's row and the node for the logits of each byte, `[B, L, 2]`.
    fn positions(&self, targets: &Targets<'_>, ids: &[u32]) -> Vec<[u32; 2]> {
        if self.order.is_empty() {
            return vec![[0, NO_NODE]; ids.len()];
        }
        let rows = ids.len() / targets.shape.bytes;
        let of_rows =
            |rows: Range<usize>| rows.flat_map(|row| self.positions_of_row(row, targets, ids)).collect::<Vec<_>>();
        map_chunks(rows, 1, 1, of_rows).into_iter().flat_map(|(_, positions)| positions).collect()
    }

    /// The same for one example.
    fn positions_of_row(&self, row: usize, targets: &Targets<'_>, ids: &[u32]) -> Vec<[u32; 2]> {
        let Shape { bytes, patches, .. } = targets.shape;
        let own = row * bytes..(row + 1) * bytes;
        let (ids, patch_of) = (&ids[own.clone()], &targets.patch_of[own.clone()]);
        let (labels, truth) = (&targets.labels[own.clone()], &targets.truth[own]);
        let real = |t: usize| labels[t] != IGNORED;
        let mut positions = vec![[0, NO_NODE]; bytes];
        let mut node = NO_NODE;
        for t in 0..bytes - 1 {
            let patch = patch_of[t + 1];
            node = if patch != patch_of[t] { ROOT } else { self.child(node, ids[t]) };
            // Labels don't mark the end of a subword before an end of text or padding: there is nothing to compare.
            let ends = patch_of.get(t + 2) != Some(&patch);
            let labeled = truth[t + 1] && real(t + 1);
            if real(t) && (1..patches as u32).contains(&patch) && (!ends || labeled) {
                positions[t] = [(row * patches) as u32 + patch - 1, node];
            }
        }
        positions
    }
}

/// The trie on the device, and the targets of a batch.
#[derive(Debug)]
pub(crate) struct ByteDistillation {
    trie: Trie,
    /// Number of the student's ids.
    n: usize,
    order: Slice,
    starts: Slice,
    children: Slice,
    /// `[bytes, 2]`
    positions: Slice,
    /// Target probabilities, later overwritten by the gradient of the divergence, `[bytes, n]`.
    target: Slice,
    /// Divergence of each byte, `[bytes]`.
    pub(crate) divergence: Slice,
}

impl ByteDistillation {
    /// Builds the trie from the ids of each of the teacher's subwords, for a student with `n` ids.
    pub(crate) async fn new(device: &Arc<Device>, sequences: &[Vec<u16>], shape: Shape, n: usize) -> Result<Self> {
        let trie = Trie::new(sequences);
        let bytes = shape.all_bytes();
        let this = Self {
            n,
            order: buffer(device, trie.order.len().max(1), 1).await?,
            starts: buffer(device, trie.starts.len(), 1).await?,
            children: buffer(device, trie.children.len().max(1), 4).await?,
            positions: buffer(device, bytes, 2).await?,
            target: buffer(device, bytes, n).await?,
            divergence: buffer(device, bytes, 1).await?,
            trie,
        };
        device.write(&this.order, 0, bytemuck::cast_slice(&this.trie.order))?;
        device.write(&this.starts, 0, bytemuck::cast_slice(&this.trie.starts))?;
        device.write(&this.children, 0, bytemuck::cast_slice(&this.trie.children))?;
        Ok(this)
    }

    /// Sets the batch and clears its targets.
    pub(crate) fn set_batch(&self, recorder: &mut Recorder, targets: &Targets<'_>, ids: &[u32]) -> Result<()> {
        let positions = self.trie.positions(targets, ids);
        recorder.device().write(&self.positions, 0, bytemuck::cast_slice(&positions))?;
        recorder.clear(&self.target);
        Ok(())
    }

    /// Adds the teacher's logits of `count` patches from `first` on to the targets, `[count, vocabulary]`.
    pub(crate) fn add_teacher_logits(
        &self,
        recorder: &mut Recorder,
        logits: &Slice,
        vocabulary: usize,
        first: usize,
        count: usize,
    ) -> Result<()> {
        let rows = self.positions.size() as usize / 8;
        let params = NextIds {
            rows: rows as u32,
            n: self.n as u32,
            vocabulary: vocabulary as u32,
            first: first as u32,
            count: count as u32,
        };
        let slices = [logits, &self.order, &self.starts, &self.children, &self.positions, &self.target];
        recorder.dispatch(KernelId::NextIds, WeightFormat::F32, &params, &slices, [rows, 1, 1])
    }

    /// Computes the divergence of the student's logits, `[bytes, n]`, and its gradient times `scale`. `logs` is the
    /// output of `log_softmax` for these logits.
    pub(crate) fn compare(&self, recorder: &mut Recorder, logits: &Slice, logs: &Slice, scale: f32) -> Result<()> {
        let rows = self.positions.size() as usize / 8;
        let params = SoftLabels { rows: rows as u32, n: self.n as u32, scale };
        let slices = [logits, logs, &self.positions, &self.target, &self.divergence];
        recorder.dispatch(KernelId::SoftLabels, WeightFormat::F32, &params, &slices, [rows, 1, 1])
    }

    /// Adds the gradient to that of the logits.
    pub(crate) fn add_gradient(&self, recorder: &mut Recorder, d_logits: &Slice) -> Result<()> {
        let rows = self.positions.size() as usize / 8;
        // Each sum has one row.
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

    /// A trie of `a`, `ab`, `abc`, an empty subword, `b`, and `ab` again.
    fn trie() -> Trie {
        Trie::new(&[vec![10], vec![10, 11], vec![10, 11, 12], vec![], vec![11], vec![10, 11]])
    }

    #[test]
    fn every_prefix_has_a_node() {
        let trie = trie();
        assert_eq!(trie.order, [0, 1, 5, 2, 4]);
        let fused = |id: u32| id + 260;
        assert_eq!(trie.starts, [0, 3, 5, 6]);
        let of_root = [[fused(10), 0, 1, 0], [10, 1, 3, 0], [fused(11), 4, 1, 0]];
        assert_eq!(trie.children[..3], of_root);
        assert_eq!(trie.children[3..], [[fused(11), 1, 2, 0], [11, 3, 1, 0], [fused(12), 3, 1, 0]]);
        let a = trie.child(ROOT, 10);
        assert_eq!((a, trie.child(a, 11), trie.child(ROOT, 11), trie.child(NO_NODE, 10)), (1, 2, NO_NODE, NO_NODE));
        assert_eq!(Trie::new(&[vec![]]).starts, [0, 0]);
    }

    #[test]
    fn positions_follow_the_true_patches() {
        // <bos>, `ab`, `ac`, which is not a subword, and `b` before padding.
        let ids = [1, 10, 11, 10, 12, 11, 0, 0];
        let shape = Shape { rows: 1, bytes: 8, patches: 4 };
        let targets = Targets {
            shape,
            labels: &[10, 11, 10, 12, 11, IGNORED, IGNORED, IGNORED],
            truth: &[true, false, true, false, true, true, false, false],
            patch_lens: &[1, 2, 2, 1],
            patch_of: &[0, 1, 1, 2, 2, 3, 4, 4],
        };
        let positions = trie().positions(&targets, &ids);
        let none = [0, NO_NODE];
        assert_eq!(positions, [[0, 0], [0, 1], [1, 0], [1, 1], none, none, none, none]);
    }
}
