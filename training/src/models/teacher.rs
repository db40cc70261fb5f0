//! The teacher of stage 1: the source subword model, which only runs forward (docs/model.md, "Training losses").
//!
//! It shares the student's frozen blocks. Only its embeddings, final norm and head are its own.

use std::sync::Arc;

use bolmo_runtime::unstable::{
    Context, Device, Gather, Matrix, Norm, NormRows, Product, Recorder, Rows, Slice, Weights, Workspace,
    attention_half, feed_forward_half,
};
use bolmo_runtime::{Config, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::LogSoftmax;

use crate::layers::activations::{buffer, copy_rows, stream};
use crate::layers::{Shape, global};
use crate::loss::byte_distillation::ByteDistillation;
use crate::parameters::{Allocator, Group, Parameters, TensorSource};

/// Logits that are in memory at a time.
const LOGITS: usize = 16 << 20;

/// Weights of a teacher besides its blocks.
#[derive(Debug)]
pub(crate) struct TeacherWeights {
    /// `[rows, D]`
    embedding: Matrix,
    /// `[D]`
    final_norm: Slice,
    /// `[rows, D]`; `None` if the head is the embedding.
    head: Option<Matrix>,
}

/// A teacher and its buffers.
#[derive(Debug)]
pub(crate) struct Teacher {
    parameters: Parameters<TeacherWeights>,
    /// Rows of its vocabulary.
    vocabulary: usize,
    /// Number of blocks after which the student is compared with the teacher.
    compared: usize,
    /// The stream after those blocks, `[patches, D]`.
    pub(crate) early: Slice,
    /// The stream after all blocks, `[patches, D]`.
    pub(crate) last: Slice,
    /// Keys and values of the current block.
    kv: Slice,
    ids: Slice,
    labels: Slice,
    members: Slice,
    logits: Slice,
    /// Likelihoods from the logits, `[patches, 4]`.
    pub(crate) likelihood: Slice,
    /// Targets of byte distillation, if it is enabled.
    pub(crate) byte_distillation: Option<ByteDistillation>,
}

/// Options of a teacher.
pub(crate) struct TeacherOptions<'a> {
    /// Rows of its vocabulary.
    pub(crate) vocabulary: usize,
    /// Whether its head is its embedding.
    pub(crate) tied: bool,
    /// Subwords that begin with a space, a tab or a newline.
    pub(crate) spaces: &'a [u32],
    /// Number of blocks after which the student is compared with the teacher.
    pub(crate) compared: usize,
    /// The ids of each subword, if byte distillation is enabled.
    pub(crate) sequences: Option<&'a [Vec<u16>]>,
}

impl Teacher {
    pub(crate) async fn new(
        device: &Arc<Device>,
        config: &Config,
        shape: Shape,
        options: &TeacherOptions<'_>,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        let &TeacherOptions { vocabulary, tied, spaces, compared, sequences } = options;
        let d = config.hidden_size;
        let build = |allocator: &mut dyn Allocator| {
            let named = |name: &str| name.to_owned();
            Ok(TeacherWeights {
                embedding: allocator.matrix(Group::Embeddings, named("model.embed_tokens.weight"), vocabulary, d)?,
                final_norm: allocator.vector(Group::Local, named("model.norm.weight"), d)?,
                head: match tied {
                    true => None,
                    false => Some(allocator.matrix(Group::Local, named("lm_head.weight"), vocabulary, d)?),
                },
            })
        };
        let parameters = Parameters::new(device, |_| false, build).await?;
        parameters.load(source).await?;
        let patches = shape.all_patches();
        let members = buffer(device, vocabulary, 1).await?;
        let mut is_space = vec![0u32; vocabulary];
        for &id in spaces {
            if let Some(member) = is_space.get_mut(id as usize) {
                *member = 1;
            }
        }
        device.write(&members, 0, bytemuck::cast_slice(&is_space))?;
        let byte_distillation = match sequences {
            Some(sequences) => Some(ByteDistillation::new(device, sequences, shape, config.vocab_size).await?),
            None => None,
        };
        Ok(Self {
            byte_distillation,
            parameters,
            vocabulary,
            compared,
            kv: buffer(device, patches, 2 * config.key_value_width()).await?,
            early: buffer(device, patches, d).await?,
            last: buffer(device, patches, d).await?,
            ids: buffer(device, patches, 1).await?,
            labels: buffer(device, patches, 1).await?,
            members,
            logits: buffer(device, rows_at_once(vocabulary, patches), vocabulary).await?,
            likelihood: buffer(device, patches, 4).await?,
        })
    }

    /// Runs a batch of subwords and computes the likelihoods of `labels`, `[B, P]` each. `blocks` are the student's.
    pub(crate) fn run(
        &self,
        (recorder, config, ws): (&mut Recorder, &Config, &Workspace),
        blocks: &Weights,
        shape: Shape,
        ids: &[u32],
        labels: &[u32],
    ) -> Result<()> {
        let patches = shape.all_patches();
        let d = config.hidden_size;
        let device = recorder.device().clone();
        device.write(&self.ids, 0, bytemuck::cast_slice(ids))?;
        device.write(&self.labels, 0, bytemuck::cast_slice(labels))?;
        let cx = &mut Context { recorder, config, workspace: ws };
        let weights = &self.parameters.weights;
        cx.gather(
            &weights.embedding,
            Gather { index: &self.ids, y: &ws.patches, y_row: 0, count: patches, add: false },
        )?;
        for (i, layer) in blocks.global.iter().enumerate() {
            attention_half(cx, layer, global::sequences(&self.kv, shape), i)?;
            feed_forward_half(cx, layer, patches)?;
            if i + 1 == self.compared {
                copy_rows(cx, &ws.patches, &self.early, patches)?;
            }
        }
        copy_rows(cx, &ws.patches, &self.last, patches)?;
        let (x, u) = (stream(config, &self.last), stream(config, &ws.u));
        cx.norm(NormRows::new(Norm { scale: &weights.final_norm, eps: config.rms_norm_eps }, x, u, patches, d))?;
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        let n = self.vocabulary;
        let at_once = rows_at_once(n, patches);
        for first in (0..patches).step_by(at_once) {
            let rows = at_once.min(patches - first);
            cx.linear(Product::new(head, Rows::new(&ws.u, d, first), Rows::new(&self.logits, n, 0), rows))?;
            let params = LogSoftmax { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
            let labels = self.labels.part(4 * first as u64, 4 * rows as u64)?;
            let likelihood = self.likelihood.part(16 * first as u64, 16 * rows as u64)?;
            let slices = [&self.logits, &labels, &self.members, &likelihood];
            cx.recorder.dispatch(KernelId::LogSoftmax, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
            if let Some(byte_distillation) = &self.byte_distillation {
                byte_distillation.add_teacher_logits(cx.recorder, &self.logits, n, first, rows)?;
            }
        }
        Ok(())
    }
}

/// Rows whose logits are in memory at a time. A multiple of 64, so that parts of buffers are aligned for bindings.
fn rows_at_once(vocabulary: usize, patches: usize) -> usize {
    (LOGITS / vocabulary / 64 * 64).clamp(64, patches.next_multiple_of(64))
}
