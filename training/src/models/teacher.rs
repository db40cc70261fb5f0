//! The teacher of stage 1: the source subword model, run over a batch's subwords without keeping anything (SPEC 10). Its blocks are the
//! student's own frozen ones; only embeddings, final norm and head are its own.

use std::sync::Arc;

use bolmo_runtime::internals::{
    Context, Gpu, Matrix, Recorder, Rows, Slice, Weights, Workspace, attention_half, feed_forward_half,
};
use bolmo_runtime::{Config, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::LogSoftmax;

use crate::layers::{Shape, buffer, copy_rows, global, stream};
use crate::loss::byte_distillation::Spelling;
use crate::parameters::{Group, Memory, Parameters, TensorSource};

/// Floats of logits that are in memory at a time.
const LOGITS: usize = 16 << 20;

/// What a teacher has besides its blocks.
#[derive(Debug)]
pub(crate) struct TeacherWeights {
    /// `[rows, D]`
    embedding: Matrix,
    /// `[D]`
    final_norm: Slice,
    /// `[rows, D]`; the embedding if `None`.
    head: Option<Matrix>,
}

/// A teacher and its buffers.
#[derive(Debug)]
pub(crate) struct Teacher {
    parameters: Parameters<TeacherWeights>,
    /// Rows of its vocabulary.
    vocabulary: usize,
    /// Blocks behind which the student is compared.
    compared: usize,
    /// The stream behind those, and behind all blocks, `[patches, D]`.
    pub(crate) early: Slice,
    pub(crate) last: Slice,
    /// Keys and values of one block at a time: no block needs what another one's were.
    kv: Slice,
    ids: Slice,
    labels: Slice,
    members: Slice,
    logits: Slice,
    /// What the logits say, `[patches, 4]`.
    pub(crate) likelihood: Slice,
    /// What they say of each next byte, if that is wanted.
    pub(crate) spelling: Option<Spelling>,
}

/// What a teacher is made of.
pub(crate) struct TeacherOptions<'a> {
    /// Rows of its vocabulary.
    pub(crate) vocabulary: usize,
    /// Whether its head is its embedding.
    pub(crate) tied: bool,
    /// Entries of the vocabulary that begin with a space, a tab or a newline.
    pub(crate) spaces: &'a [u32],
    /// Blocks behind which the student is compared.
    pub(crate) compared: usize,
    /// The ids of each entry of the vocabulary, if the student's logits are compared id by id.
    pub(crate) sequences: Option<&'a [Vec<u16>]>,
}

impl Teacher {
    pub(crate) async fn new(
        gpu: &Arc<Gpu>,
        config: &Config,
        shape: Shape,
        options: &TeacherOptions<'_>,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        let &TeacherOptions { vocabulary, tied, spaces, compared, sequences } = options;
        let d = config.hidden_size;
        let build = |memory: &mut dyn Memory| {
            let named = |name: &str| name.to_owned();
            Ok(TeacherWeights {
                embedding: memory.matrix(Group::Embeddings, named("model.embed_tokens.weight"), vocabulary, d)?,
                final_norm: memory.vector(Group::Local, named("model.norm.weight"), d)?,
                head: match tied {
                    true => None,
                    false => Some(memory.matrix(Group::Local, named("lm_head.weight"), vocabulary, d)?),
                },
            })
        };
        let parameters = Parameters::new(gpu, |_| false, build).await?;
        parameters.load(source).await?;
        let patches = shape.all_patches();
        let members = buffer(gpu, vocabulary, 1).await?;
        let mut in_set = vec![0u32; vocabulary];
        for &id in spaces {
            if let Some(member) = in_set.get_mut(id as usize) {
                *member = 1;
            }
        }
        gpu.write(&members, 0, bytemuck::cast_slice(&in_set))?;
        let spelling = match sequences {
            Some(sequences) => Some(Spelling::new(gpu, sequences, shape, config.vocab_size).await?),
            None => None,
        };
        Ok(Self {
            spelling,
            parameters,
            vocabulary,
            compared,
            kv: buffer(gpu, patches, 2 * config.key_value_width()).await?,
            early: buffer(gpu, patches, d).await?,
            last: buffer(gpu, patches, d).await?,
            ids: buffer(gpu, patches, 1).await?,
            labels: buffer(gpu, patches, 1).await?,
            members,
            logits: buffer(gpu, rows_at_once(vocabulary, patches), vocabulary).await?,
            likelihood: buffer(gpu, patches, 4).await?,
        })
    }

    /// Runs a batch of subwords, `[B, P]`, and says what the logits are about those in `labels`. `blocks` are the student's.
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
        let gpu = recorder.gpu().clone();
        gpu.write(&self.ids, 0, bytemuck::cast_slice(ids))?;
        gpu.write(&self.labels, 0, bytemuck::cast_slice(labels))?;
        let cx = &mut Context { recorder, config, workspace: ws };
        let weights = &self.parameters.weights;
        cx.gather(&weights.embedding, &self.ids, &ws.patches, 0, patches, false)?;
        for (i, layer) in blocks.global.iter().enumerate() {
            attention_half(cx, layer, global::sequences(&self.kv, shape), i)?;
            feed_forward_half(cx, layer, patches)?;
            if i + 1 == self.compared {
                copy_rows(cx, &ws.patches, &self.early, patches)?;
            }
        }
        copy_rows(cx, &ws.patches, &self.last, patches)?;
        let (x, u) = (stream(config, &self.last), stream(config, &ws.u));
        cx.norm(&weights.final_norm, config.rms_norm_eps, x, u, patches, 1, d, false)?;
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        let n = self.vocabulary;
        let at_once = rows_at_once(n, patches);
        for first in (0..patches).step_by(at_once) {
            let rows = at_once.min(patches - first);
            cx.linear(head, Rows::new(&ws.u, d, first), Rows::new(&self.logits, n, 0), rows, false)?;
            let params = LogSoftmax { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
            let labels = self.labels.part(4 * first as u64, 4 * rows as u64)?;
            let likelihood = self.likelihood.part(16 * first as u64, 16 * rows as u64)?;
            let slices = [&self.logits, &labels, &self.members, &likelihood];
            cx.recorder.dispatch(KernelId::LogSoftmax, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
            if let Some(spelling) = &self.spelling {
                spelling.take(cx.recorder, &self.logits, n, first, rows)?;
            }
        }
        Ok(())
    }
}

/// Rows whose logits are in memory at a time: a multiple of 64, so that parts of buffers begin where bindings may.
fn rows_at_once(vocabulary: usize, patches: usize) -> usize {
    (LOGITS / vocabulary / 64 * 64).clamp(64, patches.next_multiple_of(64))
}
