//! Several sessions of one model decoded together. Each has a row of every product, so that they share the reading of
//! weights.
//!
//! A slot that has nothing to do in a step is halted: the kernels skip its row.

use std::sync::Arc;

use crate::device::{Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Inner;
use crate::sampling::device::{CONTROL_STRIDE, DeviceSampler};
use crate::sampling::host::Sampler;
use crate::session::cancel::CancelToken;
use crate::session::decode::{Slot, record_bytes, take_chosen, write_angles};
use crate::session::device_decode::DecodeStep;
use crate::session::machine::{Operation, Session};
use crate::stages::ops::Context;
use crate::state::workspace::Workspace;
use crate::text::ids;

/// Rows of slots must be multiples of this many floats, because bindings begin at them.
const ROW_FLOATS: usize = 64;

/// Maximum number of slots. Each slot adds dispatches, and a submission holds a limited number.
const MAX_SLOTS: usize = 24;

/// What slots share.
#[derive(Debug)]
pub(crate) struct Batch {
    model: Arc<Inner>,
    /// `[slots, CONTROL_STRIDE]` u32
    control: Slice,
    /// The same on the host's side.
    readable: Slice,
    samplers: Vec<DeviceSampler>,
    workspace: Workspace,
    recorder: Recorder,
    /// Copies of the sessions' arenas from before a step, on devices that can stop within one; else empty.
    before: Vec<Slice>,
}

impl Batch {
    /// How many sessions of this one's model a batch takes, at least 1.
    pub(crate) fn max_slots(session: &Session) -> usize {
        let (config, capabilities) = (&session.model.config, &session.model.device().capabilities);
        let rows_are_aligned =
            config.hidden_size.is_multiple_of(ROW_FLOATS) && config.query_width().is_multiple_of(ROW_FLOATS);
        if rows_are_aligned { capabilities.matvec_max_rows.clamp(1, MAX_SLOTS) } else { 1 }
    }

    /// A batch of sessions that choose by `choosers`, their samplers and stop strings. `None` if they cannot be decoded
    /// together.
    pub(crate) async fn new(sessions: &[&mut Session], choosers: &[(&Sampler, &[Vec<u8>])]) -> Result<Option<Self>> {
        let Some(first) = sessions.first() else { return Ok(None) };
        let (model, count) = (first.model.clone(), sessions.len());
        let device = model.device().clone();
        if count > Self::max_slots(first)
            || model.max_decode_bytes() == 0
            || Workspace::fitting(&device, &model.config, count)? < count
            || sessions.iter().any(|session| !Arc::ptr_eq(&session.model, &model))
        {
            return Ok(None);
        }
        let stops: Vec<_> = sessions.iter().map(|session| session.cancel.request()).collect();
        let _permit = device.continue_work(&stops).await?;
        let stride = 4 * CONTROL_STRIDE as u64;
        let control = device.allocate("the device sampler", count as u64 * stride).await?;
        let readable = device.allocate_readable(count as u64 * stride).await?;
        let mut samplers = Vec::new();
        for (row, &(sampler, stops)) in choosers.iter().enumerate() {
            let block = control.part(row as u64 * stride, stride)?;
            match DeviceSampler::new(&device, &block, None, sampler, stops, model.suffixes.as_ref()).await? {
                Some(sampler) => samplers.push(sampler),
                None => return Ok(None),
            }
        }
        let workspace = Workspace::new(&device, &model.config, count).await?;
        let recorder = Recorder::new(&device).await?;
        let mut before = Vec::new();
        if model.stops_steps(count) {
            for session in sessions {
                before.push(device.allocate("the state of a session", session.state.arena.size()).await?);
            }
        }
        Ok(Some(Self { model, control, readable, samplers, workspace, recorder, before }))
    }

    /// As [`Session::decode_step`] for each session that has a step; the others stay as they are.
    ///
    /// # Errors
    /// `Cancelled` if any session was cancelled on a device that can stop within a step, or while the device was
    /// suspended: all are as they were before.
    pub(crate) async fn decode_step(
        &mut self,
        sessions: &mut [&mut Session],
        steps: &[Option<DecodeStep<'_>>],
    ) -> Result<Vec<Vec<u16>>> {
        let stepping = sessions.iter().zip(steps).filter(|(_, step)| step.is_some());
        let stops: Vec<_> = stepping.map(|(session, _)| session.cancel.request()).collect();
        // One for all, so that no session keeps the device busy while another one waits for it.
        let permit = self.model.device().continue_work(&stops).await?;
        let trie = self.model.suffix_table().await?;
        // Sessions without a step take no part, but their states fill their rows.
        let mut active: Vec<Option<Operation<'_>>> = Vec::new();
        let mut idle: Vec<Option<&Session>> = Vec::new();
        for (session, step) in sessions.iter_mut().zip(steps) {
            match step {
                Some(_) => match session.begin_with(permit.clone()) {
                    Ok(operation) => {
                        active.push(Some(operation));
                        idle.push(None);
                    }
                    Err(error) => {
                        // Nothing has happened to the others yet.
                        active.into_iter().flatten().for_each(Operation::finish);
                        return Err(error);
                    }
                },
                None => {
                    active.push(None);
                    idle.push(Some(session));
                }
            }
        }
        let ends = self.prepare(&mut active, steps).await?;
        self.save(&active)?;
        let all = match self.submit(trie.as_ref(), &active, &idle, steps, &ends)?.await {
            Err(error) if error.kind() == ErrorKind::Cancelled && !self.before.is_empty() => {
                self.restore(&active)?;
                active.into_iter().flatten().for_each(Operation::finish);
                return Err(error);
            }
            all => all?,
        };
        let mut chosen = Vec::new();
        for (row, operation) in active.into_iter().enumerate() {
            let Some(mut operation) = operation else {
                chosen.push(Vec::new());
                continue;
            };
            let session = &mut *operation;
            if ends[row] && session.state.kv.advance(1) {
                self.recorder.forget_bindings();
            }
            let block = all.get(4 * CONTROL_STRIDE * row..).unwrap_or_default();
            let sampler = &mut self.samplers[row];
            chosen.push(take_chosen(&mut self.recorder, &mut session.state, sampler, block).await?);
            operation.finish();
        }
        Ok(chosen)
    }

    /// Writes what each slot chooses by, and halts the idle ones. Returns which of the chosen ids end a patch.
    async fn prepare(
        &mut self,
        active: &mut [Option<Operation<'_>>],
        steps: &[Option<DecodeStep<'_>>],
    ) -> Result<Vec<bool>> {
        let Self { model, samplers, workspace, recorder, .. } = self;
        let device = model.device().clone();
        let mut ends = vec![false; active.len()];
        let mut end_rows: Vec<u32> = Vec::new();
        for (row, (operation, step)) in active.iter_mut().zip(steps).enumerate() {
            let (Some(session), Some(step)) = (operation, step) else {
                samplers[row].halt(&device)?;
                continue;
            };
            let Some(&last) = session.state.ids.last() else {
                return Err(Error::internal("a decode step without a chosen id"));
            };
            let random = step.sampler.upcoming(step.flags.len());
            samplers[row].begin(&device, &session.state.ids, model.suffixes.as_ref(), step.bytes, &random)?;
            ends[row] = ids::is_fused(last);
            if ends[row] {
                session.state.kv.reserve(&device, recorder, 1).await?;
                write_angles(model, workspace, end_rows.len(), session.state.kv.len())?;
                // Row 0 of h is not a slot's.
                end_rows.push(1 + row as u32);
            }
        }
        device.write(&workspace.ends, 0, bytemuck::cast_slice(&end_rows))?;
        Ok(ends)
    }

    /// Records and submits the step. The future is the control blocks that it leaves.
    fn submit(
        &mut self,
        trie: Option<&Slice>,
        active: &[Option<Operation<'_>>],
        idle: &[Option<&Session>],
        steps: &[Option<DecodeStep<'_>>],
        ends: &[bool],
    ) -> Result<impl Future<Output = Result<Vec<u8>>> + use<>> {
        let Self { model, control, readable, samplers, workspace, recorder, before } = self;
        let mut slots = Vec::new();
        for (row, (operation, idle)) in active.iter().zip(idle).enumerate() {
            let Some(session) = operation.as_deref().or(*idle) else { continue };
            let flags = steps[row].as_ref().map_or(&[][..], |step| &step.flags);
            slots.push(Slot { state: &session.state, sampler: &samplers[row], ends_patch: ends[row], flags });
        }
        let mut cx = Context { recorder: &mut *recorder, config: &model.config, workspace };
        record_bytes(&mut cx, model, trie, control, &slots)?;
        let list = recorder.finish(control, readable)?;
        if !before.is_empty() {
            let tokens = active.iter().flatten().map(|session| &session.cancel);
            recorder.set_interrupt(Some(CancelToken::any(tokens)));
        }
        let all = recorder.submit_and_map(list, readable);
        recorder.set_interrupt(None);
        all
    }

    /// Copies the states of the sessions that have a step, if the step may be stopped part-way.
    fn save(&mut self, active: &[Option<Operation<'_>>]) -> Result<()> {
        if self.before.is_empty() {
            return Ok(());
        }
        for (session, before) in active.iter().zip(&self.before) {
            let Some(session) = session else { continue };
            self.recorder.copy(&session.state.arena, before)?;
        }
        self.recorder.submit_if_any()
    }

    /// Takes back what a step that was stopped has done to the states.
    fn restore(&mut self, active: &[Option<Operation<'_>>]) -> Result<()> {
        for (session, before) in active.iter().zip(&self.before) {
            let Some(session) = session else { continue };
            self.recorder.copy(before, &session.state.arena)?;
        }
        self.samplers.iter_mut().for_each(DeviceSampler::forget);
        self.recorder.submit_if_any()
    }
}
