//! Several sessions of one model decoded together: a row of every product each, so that they share the reading of weights.
//!
//! A lane that has nothing to do in a round is halted: the kernels skip its row.

use std::sync::Arc;

use crate::device::{Recorder, Slice};
use crate::error::{Error, Result};
use crate::model::Inner;
use crate::sampling::device::{CONTROL_STRIDE, Choices};
use crate::sampling::host::Sampler;
use crate::session::Session;
use crate::session::decode::{Lane, Round, record_steps, take_chosen, write_angles};
use crate::stages::Context;
use crate::state::workspace::Workspace;
use crate::text::ids;

/// Rows of lanes have to be multiples of so many floats: bindings begin at them.
const ROW_FLOATS: usize = 64;

/// Each lane has dispatches of its own, and a submission holds so many.
const MOST_LANES: usize = 24;

/// What lanes share.
#[derive(Debug)]
pub(crate) struct Batch {
    model: Arc<Inner>,
    /// `[lanes, CONTROL_STRIDE]` u32
    control: Slice,
    /// The same on the host's side.
    readable: Slice,
    choices: Vec<Choices>,
    workspace: Workspace,
    recorder: Recorder,
}

impl Batch {
    /// How many sessions of this one's model a batch takes, at least 1.
    pub(crate) fn most_lanes(session: &Session) -> usize {
        let (config, capabilities) = (&session.model.config, &session.model.gpu().capabilities);
        let rows_begin_well =
            config.hidden_size.is_multiple_of(ROW_FLOATS) && config.query_width().is_multiple_of(ROW_FLOATS);
        if rows_begin_well { capabilities.matvec_max_rows.clamp(1, MOST_LANES) } else { 1 }
    }

    /// A batch of sessions that choose by `lanes`, their samplers and stop strings, or `None` if they cannot be decoded together.
    pub(crate) async fn new(sessions: &[&mut Session], lanes: &[(&Sampler, &[Vec<u8>])]) -> Result<Option<Self>> {
        let Some(first) = sessions.first() else { return Ok(None) };
        let (model, count) = (first.model.clone(), sessions.len());
        let gpu = model.gpu().clone();
        if count > Self::most_lanes(first)
            || model.most_steps() == 0
            || Workspace::fitting(&gpu, &model.config, count)? < count
            || sessions.iter().any(|session| !Arc::ptr_eq(&session.model, &model))
        {
            return Ok(None);
        }
        let stride = 4 * CONTROL_STRIDE as u64;
        let control = gpu.allocate("the choice of ids", count as u64 * stride).await?;
        let readable = gpu.allocate_readable(count as u64 * stride).await?;
        let mut choices = Vec::new();
        for (row, &(sampler, stops)) in lanes.iter().enumerate() {
            let block = control.part(row as u64 * stride, stride)?;
            match Choices::new(&gpu, &block, None, sampler, stops, model.suffixes.as_ref()).await? {
                Some(lane) => choices.push(lane),
                None => return Ok(None),
            }
        }
        let workspace = Workspace::new(&gpu, &model.config, count).await?;
        let recorder = Recorder::new(&gpu).await?;
        Ok(Some(Self { model, control, readable, choices, workspace, recorder }))
    }

    /// As [`Session::round`] for each session that has a round; the others stay as they are.
    pub(crate) async fn round(
        &mut self,
        sessions: &mut [&mut Session],
        rounds: &[Option<Round<'_>>],
    ) -> Result<Vec<Vec<u16>>> {
        let Self { model, control, readable, choices, workspace, recorder } = self;
        let gpu = model.gpu().clone();
        let trie = model.suffix_table().await?;
        let mut ends = vec![false; sessions.len()];
        let mut end_rows: Vec<u32> = Vec::new();
        for (row, (session, round)) in sessions.iter_mut().zip(rounds).enumerate() {
            let Some(round) = round else {
                choices[row].halt(&gpu)?;
                continue;
            };
            session.begin()?;
            let Some(&last) = session.state.ids.last() else {
                return Err(Error::internal("a round without a choice"));
            };
            let random = round.sampler.upcoming(round.flags.len());
            choices[row].begin(&gpu, &session.state.ids, model.suffixes.as_ref(), round.bytes, &random)?;
            ends[row] = ids::is_fused(last);
            if ends[row] {
                session.state.kv.reserve(&gpu, recorder, 1).await?;
                write_angles(model, workspace, end_rows.len(), session.state.kv.len())?;
                // Row 0 of h is not a lane's.
                end_rows.push(1 + row as u32);
            }
        }
        gpu.write(&workspace.ends, 0, bytemuck::cast_slice(&end_rows))?;
        let mut lanes = Vec::new();
        for (row, (session, round)) in sessions.iter().zip(rounds).enumerate() {
            let flags = round.as_ref().map_or(&[][..], |round| &round.flags);
            lanes.push(Lane { state: &session.state, choices: &choices[row], ends: ends[row], flags });
        }
        let mut cx = Context { recorder: &mut *recorder, config: &model.config, workspace };
        record_steps(&mut cx, model, trie.as_ref(), control, &lanes)?;
        let list = recorder.finish(control, readable)?;
        let all = recorder.submit_and_map(list, readable)?.await?;

        let mut chosen = Vec::new();
        for (row, (session, round)) in sessions.iter_mut().zip(rounds).enumerate() {
            if round.is_none() {
                chosen.push(Vec::new());
                continue;
            }
            if ends[row] && session.state.kv.advance(1) {
                recorder.forget_bindings();
            }
            let block = all.get(4 * CONTROL_STRIDE * row..).unwrap_or_default();
            chosen.push(take_chosen(recorder, &mut session.state, &mut choices[row], block).await?);
            session.end();
        }
        Ok(chosen)
    }
}
