//! Several sessions of one model decoded together. Each has a row of every product, so that they share the reading of
//! weights.
//!
//! A batch holds what the rows of a step share. Sessions bring their own state and device sampler, so that any of them
//! can be part of one step and not of the next one, or take a step alone in between.

use std::sync::Arc;

use crate::device::{Permit, Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Inner;
use crate::sampling::device::CONTROL_STRIDE;
use crate::session::cancel::CancelToken;
use crate::session::decode::{Slot, record_bytes, take_chosen, write_angles};
use crate::session::device_decode::{DecodeStep, DeviceDecode};
use crate::session::machine::{Operation, Session};
use crate::stages::ops::Context;
use crate::state::workspace::Workspace;
use crate::text::ids;

/// Rows of slots must be multiples of this many floats, because bindings begin at them.
const ROW_FLOATS: usize = 64;

/// Maximum number of slots. Each slot adds dispatches, and a submission holds a limited number.
const MAX_SLOTS: usize = 24;

/// What the slots of a step share.
#[derive(Debug)]
pub(crate) struct Batch {
    model: Arc<Inner>,
    /// `[slots, CONTROL_STRIDE]` u32
    control: Slice,
    /// The block of each slot in `control`.
    blocks: Vec<Slice>,
    /// `control` on the host's side.
    readable: Slice,
    workspace: Workspace,
    recorder: Recorder,
    /// The arenas of the sessions that took the last step, by slot.
    arenas: Vec<Slice>,
}

/// A session's part in a step.
struct Member<'a> {
    operation: Operation<'a>,
    decode: DeviceDecode,
    step: &'a DecodeStep<'a>,
    /// Whether the chosen id ends a patch.
    ends_patch: bool,
}

impl Batch {
    /// How many sessions of this one's model a step takes, at least 1.
    pub(crate) fn max_slots(session: &Session) -> usize {
        let (config, capabilities) = (&session.model.config, &session.model.device().capabilities);
        let rows_are_aligned =
            config.hidden_size.is_multiple_of(ROW_FLOATS) && config.query_width().is_multiple_of(ROW_FLOATS);
        if rows_are_aligned { capabilities.matvec_max_rows.clamp(1, MAX_SLOTS) } else { 1 }
    }

    /// A batch with `slots` slots for sessions of this one's model. `None` if they cannot be decoded together.
    pub(crate) async fn new(session: &Session, slots: usize) -> Result<Option<Self>> {
        let model = session.model.clone();
        let device = model.device().clone();
        if slots > Self::max_slots(session)
            || model.max_decode_bytes() == 0
            || Workspace::fitting(&device, &model.config, slots)? < slots
        {
            return Ok(None);
        }
        let _permit = device.continue_work(&[session.cancel.request()]).await?;
        let stride = 4 * CONTROL_STRIDE as u64;
        let control = device.allocate("the device sampler", slots as u64 * stride).await?;
        let readable = device.allocate_readable(slots as u64 * stride).await?;
        let blocks = (0..slots as u64).map(|slot| control.part(slot * stride, stride)).collect::<Result<_>>()?;
        let workspace = Workspace::new(&device, &model.config, slots).await?;
        let recorder = Recorder::new(&device).await?;
        Ok(Some(Self { model, control, blocks, readable, workspace, recorder, arenas: Vec::new() }))
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> usize {
        self.blocks.len()
    }

    /// Whether a session is of this batch's model.
    pub(crate) fn takes(&self, session: &Session) -> bool {
        Arc::ptr_eq(&self.model, &session.model)
    }

    /// As [`Session::decode_step`] for several sessions, at most one for each slot. A session that cannot take the step
    /// has its own error, and the others take it.
    ///
    /// # Errors
    /// `Cancelled` if any session was cancelled on a device that can stop within a step, or while the device was
    /// suspended: all are as they were before. After other errors all have failed.
    pub(crate) async fn decode_step(
        &mut self,
        sessions: &mut [(&mut Session, DecodeStep<'_>)],
    ) -> Result<Vec<Result<Vec<u16>>>> {
        let model = self.model.clone();
        let stops: Vec<_> = sessions.iter().map(|(session, _)| session.cancel.request()).collect();
        // One for all, so that no session keeps the device busy while another one waits for it.
        let permit = model.device().continue_work(&stops).await?;
        let trie = model.suffix_table().await?;
        // Copies of the states, to return to if the step is stopped part-way.
        let saves = model.stops_steps(sessions.len());
        let mut members: Vec<Member<'_>> = Vec::new();
        let mut refusals = Vec::new();
        let mut end_rows: Vec<u32> = Vec::new();
        for (session, step) in sessions.iter_mut() {
            let member = self.join((session, permit.clone()), step, (members.len(), saves), &mut end_rows).await;
            refusals.push(member.map(|member| members.push(member)).err());
        }
        let mut chosen = Vec::new();
        if !members.is_empty() {
            model.device().write(&self.workspace.ends, 0, bytemuck::cast_slice(&end_rows))?;
            self.forget_others(&members);
            if saves {
                self.save(&members)?;
            }
            let all = match self.submit(trie.as_ref(), &members, saves)?.await {
                Err(error) if error.kind() == ErrorKind::Cancelled && saves => {
                    self.restore(members)?;
                    return Err(error);
                }
                all => all?,
            };
            for (slot, member) in members.into_iter().enumerate() {
                chosen.push(self.leave(member, all.get(4 * CONTROL_STRIDE * slot..).unwrap_or_default()).await);
            }
        }
        let mut chosen = chosen.into_iter();
        let outcome = |refusal: Option<Error>| match refusal {
            Some(error) => Err(error),
            None => chosen.next().unwrap_or_else(|| Err(Error::internal("a session of a batch took no step"))),
        };
        Ok(refusals.into_iter().map(outcome).collect())
    }

    /// Begins a session's part in a step and writes what its slot chooses by.
    async fn join<'a>(
        &mut self,
        (session, permit): (&'a mut Session, Permit),
        step: &'a DecodeStep<'a>,
        (slot, saves): (usize, bool),
        end_rows: &mut Vec<u32>,
    ) -> Result<Member<'a>> {
        let Self { model, blocks, workspace, recorder, .. } = self;
        let device = model.device();
        let mut operation = session.begin_with(Some(permit))?;
        let (Some(mut decode), Some(&last), Some(block)) =
            (operation.device_decode.take(), operation.state.ids.last(), blocks.get(slot))
        else {
            return Err(Error::internal("a decode step without a chosen id or a slot"));
        };
        // Recorded for the session alone.
        decode.ahead = None;
        if saves && decode.before.is_none() {
            decode.before = Some(device.allocate("the state of a session", operation.state.arena.size()).await?);
        }
        let random = step.sampler.upcoming(step.flags.len());
        decode.sampler.begin(device, block, &operation.state.ids, model.suffixes.as_ref(), step.bytes, &random)?;
        let ends_patch = ids::is_fused(last);
        if ends_patch {
            operation.state.kv.reserve(device, recorder, 1).await?;
            write_angles(model, workspace, end_rows.len(), operation.state.kv.len())?;
            // Row 0 of h is not a slot's.
            end_rows.push(1 + slot as u32);
        }
        Ok(Member { operation, decode, step, ends_patch })
    }

    /// Drops what is kept of the sessions that took the last step.
    pub(crate) fn forget(&mut self) {
        self.recorder.forget_bindings();
        self.arenas.clear();
    }

    /// Drops bind groups if other sessions take this step than took the last one, because they keep the memory of
    /// sessions that have left.
    fn forget_others(&mut self, members: &[Member<'_>]) {
        let arenas: Vec<Slice> = members.iter().map(|member| member.operation.state.arena.clone()).collect();
        if self.arenas != arenas {
            self.recorder.forget_bindings();
            self.arenas = arenas;
        }
    }

    /// Records and submits the step. The future is the control blocks that it leaves.
    fn submit(
        &mut self,
        trie: Option<&Slice>,
        members: &[Member<'_>],
        saves: bool,
    ) -> Result<impl Future<Output = Result<Vec<u8>>> + use<>> {
        let Self { model, control, blocks, readable, workspace, recorder, .. } = self;
        let slots: Vec<Slot<'_>> = members
            .iter()
            .zip(blocks.iter())
            .map(|(member, control)| Slot {
                state: &member.operation.state,
                sampler: &member.decode.sampler,
                control,
                ends_patch: member.ends_patch,
                flags: &member.step.flags,
            })
            .collect();
        let mut cx = Context { recorder: &mut *recorder, config: &model.config, workspace };
        record_bytes(&mut cx, model, trie, control, &slots)?;
        let list = recorder.finish(control, readable)?;
        if saves {
            let tokens = members.iter().map(|member| &member.operation.cancel);
            recorder.set_interrupt(Some(CancelToken::any(tokens)));
        }
        let all = recorder.submit_and_map(list, readable);
        recorder.set_interrupt(None);
        all
    }

    /// Applies the control block of a member's slot, and ends its part in the step. Returns the chosen ids.
    async fn leave(&mut self, member: Member<'_>, block: &[u8]) -> Result<Vec<u16>> {
        let Member { mut operation, mut decode, ends_patch, .. } = member;
        let session = &mut *operation;
        if ends_patch && session.state.kv.advance(1) {
            self.recorder.forget_bindings();
        }
        let chosen = take_chosen(&mut self.recorder, &mut session.state, &mut decode.sampler, block).await?;
        session.device_decode.put(decode);
        operation.finish()?;
        Ok(chosen)
    }

    /// Copies the states of the members.
    fn save(&mut self, members: &[Member<'_>]) -> Result<()> {
        for Member { operation, decode, .. } in members {
            if let Some(before) = &decode.before {
                self.recorder.copy(&operation.state.arena, before)?;
            }
        }
        self.recorder.submit_if_any()
    }

    /// Takes back what a step that was stopped has done to the members' states, and ends their parts in it.
    fn restore(&mut self, mut members: Vec<Member<'_>>) -> Result<()> {
        for Member { operation, decode, .. } in &mut members {
            if let Some(before) = &decode.before {
                self.recorder.copy(before, &operation.state.arena)?;
            }
            decode.sampler.forget();
        }
        self.recorder.submit_if_any()?;
        for Member { operation, decode, .. } in members {
            operation.device_decode.put(decode);
            operation.finish()?;
        }
        Ok(())
    }
}
