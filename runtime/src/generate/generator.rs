//! A generation under way.

use std::ops::ControlFlow;

use crate::constraint::Matcher;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{GenerateOptions, Generation, Piece, StopReason};
use crate::sampling::device::{Flag, ends_patch, flagged};
use crate::sampling::host::Sampler;
use crate::session::{CancelToken, Round, Session};
use crate::text::ids;
use crate::text::stop::StopMatcher;

/// What a generation carries from byte to byte.
pub(super) struct Run<'a> {
    options: &'a GenerateOptions,
    on_piece: &'a mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    sampler: Sampler,
    stops: StopMatcher,
    /// Where in the constraint the text is.
    matcher: Option<Matcher>,
    cancel: CancelToken,
    byte_offset: u8,
    /// Whether the device chooses.
    rounds: bool,
    /// Bytes that patches have had, later ones counting for more.
    pace: f32,
    /// Bytes that no stop string begins with, not handed out yet.
    released: Vec<u8>,
    /// Plain ids of the session, for the repetition penalty.
    history: Vec<u16>,
    /// Bytes that were chosen or forced.
    taken: usize,
    bytes: Vec<u8>,
    ids: Vec<u16>,
}

impl<'a> Run<'a> {
    pub(super) async fn new(
        session: &mut Session,
        options: &'a GenerateOptions,
        on_piece: &'a mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Self> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let rounds = options.constraint.is_none() && session.prepare_rounds(&sampler, &options.stops).await?;
        let patches = session.patches().max(1);
        Ok(Self {
            rounds,
            pace: options.bytes_per_patch.map_or(session.ids().len() as f32 / patches as f32, |bytes| bytes as f32),
            released: Vec::new(),
            options,
            on_piece,
            sampler,
            stops: StopMatcher::new(options.stops.clone())?,
            matcher: options.constraint.as_ref().map(|constraint| constraint.matcher()),
            cancel: session.cancel_token(),
            byte_offset: session.byte_offset()?,
            history: session.ids().iter().map(|&id| ids::plain(id)).collect(),
            taken: 0,
            bytes: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// Takes the next byte, or the next bytes at once if the device chooses or there is no choice, or says why there is none.
    pub(super) async fn step(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        if let Some(stop) = self.ended() {
            return Ok(Some(stop));
        }
        if !self.has_round(session) {
            return self.step_on_host(session).await;
        }
        let ids = session.round(&self.round(self.wanted_steps(session))).await?;
        self.accept(session, ids).await
    }

    /// Why nothing is to be chosen any more.
    pub(super) fn ended(&self) -> Option<StopReason> {
        if self.matcher.as_ref().is_some_and(|matcher| matcher.is_match() && !matcher.can_continue()) {
            return Some(StopReason::Complete);
        }
        if self.taken >= self.options.max_bytes {
            return Some(StopReason::Budget);
        }
        self.cancel.take().then_some(StopReason::Cancelled)
    }

    /// Whether the device chooses, once the host has chosen first.
    pub(super) fn on_device(&self) -> bool {
        self.rounds
    }

    /// Whether the device can choose now.
    pub(super) fn has_round(&self, session: &Session) -> bool {
        self.rounds && session.has_chosen()
    }

    /// Takes the next byte that the host chooses, or bytes that have to come.
    pub(super) async fn step_on_host(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        let forced = self.forced()?;
        let stop = if forced.is_empty() { self.choose(session).await? } else { self.append(session, &forced).await? };
        Ok(self.handed_out(stop))
    }

    /// How many bytes the device is to choose at once: as many as a patch may have.
    pub(super) fn wanted_steps(&self, session: &Session) -> usize {
        let slack = session.model().engine().capabilities().decode_slack;
        let wanted = (self.pace * slack).ceil().max(1.0) as usize;
        wanted.min(session.most_steps())
    }

    /// What the device is to do, in at most `steps` steps.
    pub(super) fn round(&self, steps: usize) -> Round<'_> {
        let flags = self.flags(self.taken, steps);
        // Where the model decides, one round's flags are like another's.
        let behind = self.taken + flags.len();
        let flags_ahead = if behind < self.options.max_bytes { self.flags(behind, steps) } else { Vec::new() };
        Round { bytes: (self.taken, self.options.max_bytes), sampler: &self.sampler, flags, flags_ahead }
    }

    /// What a generation on the device goes by.
    pub(super) fn choices(&self) -> (&Sampler, &[Vec<u8>]) {
        (&self.sampler, &self.options.stops)
    }

    /// Takes account of what the device has chosen.
    pub(super) async fn accept(&mut self, session: &mut Session, ids: Vec<u16>) -> Result<Option<StopReason>> {
        if ids.is_empty() {
            // The host finds out what is wrong with the logits.
            return self.step_on_host(session).await;
        }
        self.sampler.skip(ids.len());
        let mut stop = None;
        for id in ids {
            stop = self.take(id)?;
            if stop.is_some() {
                break;
            }
        }
        Ok(self.handed_out(stop))
    }

    /// Hands out what was taken; `stop` is why the generation ends, if it does, unless the caller breaks it off.
    fn handed_out(&mut self, stop: Option<StopReason>) -> Option<StopReason> {
        if self.hand_out().is_break() { Some(stop.unwrap_or(StopReason::Cancelled)) } else { stop }
    }

    /// Which twins the bytes from this number on get, up to the end of a patch if that is known, at most `steps` of them. The device stops
    /// at the budget by itself.
    fn flags(&self, first: usize, steps: usize) -> Vec<Flag> {
        let flags = (first..first + steps).map(|number| self.flag(number));
        let mut ended = false;
        flags.take_while(|&flag| !std::mem::replace(&mut ended, flag == Flag::Given(true))).collect()
    }

    /// Which twin the byte with this number gets.
    fn flag(&self, number: usize) -> Flag {
        self.options.bytes_per_patch.map_or(Flag::Model, |bytes| Flag::Given(ends_patch(number, bytes)))
    }

    /// Lets the model choose a byte or the end.
    async fn choose(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        let logits = session.logits(self.options.sampling.boundary_bias).await?;
        let remaining = self.options.max_bytes - self.taken;
        let allowed = self.matcher.as_ref().map(|matcher| matcher.allowed(Some(remaining)));
        let id = self.sampler.choose(&logits, &self.history, allowed.as_ref())?;
        let id = flagged(id, self.flag(self.taken));
        if ids::id_to_byte(id, self.byte_offset).is_some() {
            session.push(id).await?;
        }
        self.take(id)
    }

    /// The bytes that must come next, up to the end of a stop string or of the budget.
    fn forced(&self) -> Result<Vec<u8>> {
        let mut run = Vec::new();
        let Some(matcher) = &self.matcher else { return Ok(run) };
        let Some(mut next) = matcher.forced() else { return Ok(run) };
        let (mut matcher, mut stops) = (matcher.clone(), self.stops.clone());
        while run.len() < self.options.max_bytes - self.taken {
            run.push(next);
            matcher.advance(next)?;
            if stops.push(next).matched.is_some() {
                break;
            }
            match matcher.forced() {
                Some(byte) => next = byte,
                None => break,
            }
        }
        Ok(run)
    }

    /// Appends bytes that must come, and hands them out one by one.
    async fn append(&mut self, session: &mut Session, run: &[u8]) -> Result<Option<StopReason>> {
        let before = session.ids().len();
        if before == 0 {
            return Err(Error::invalid("the session is empty: append <bos> or text before generating"));
        }
        let cancelled = match session.append(run, &mut |_, _| {}).await {
            Ok(()) => {
                // The last byte's flag is decided with the logits behind it.
                session.logits(self.options.sampling.boundary_bias).await?;
                false
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => true,
            Err(error) => return Err(error),
        };
        let ids = session.ids().get(before..).unwrap_or_default().to_vec();
        for (i, &id) in ids.iter().enumerate() {
            let stop = self.take(id)?;
            let stop = self.handed_out(stop);
            if stop.is_some() {
                // All of the run is in the session, whatever ends the text within it.
                self.ids.extend_from_slice(&ids[i + 1..]);
                return Ok(stop);
            }
        }
        Ok(cancelled.then_some(StopReason::Cancelled))
    }

    /// Takes account of an id that was chosen or forced, which the session has unless it ends the text.
    fn take(&mut self, id: u16) -> Result<Option<StopReason>> {
        self.ids.push(id);
        let Some(byte) = ids::id_to_byte(id, self.byte_offset) else {
            return Ok(Some(StopReason::End));
        };
        self.taken += 1;
        self.history.push(ids::plain(id));
        self.count(id);
        if let Some(matcher) = &mut self.matcher {
            matcher.advance(byte)?;
        }
        let held = self.stops.push(byte);
        self.released.extend_from_slice(&held.released);
        Ok(held.matched.map(|_| StopReason::StopString))
    }

    /// Keeps account of how long patches are.
    fn count(&mut self, id: u16) {
        const WEIGHT: f32 = 1.0 / 16.0;
        let length = self.ids.iter().rev().skip(1).take_while(|&&id| !ids::is_fused(id)).count() + 1;
        if ids::is_fused(id) {
            self.pace += WEIGHT * (length as f32 - self.pace);
        }
        // A patch that goes on and on counts before it ends.
        self.pace = self.pace.max(WEIGHT * length as f32);
    }

    /// Hands out what can no longer be part of a stop string.
    fn hand_out(&mut self) -> ControlFlow<()> {
        let new = std::mem::take(&mut self.released);
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&new);
        match self.ids.get(before..before + new.len()) {
            Some(ids) if !new.is_empty() => (self.on_piece)(Piece { bytes: &new, ids }),
            _ => ControlFlow::Continue(()),
        }
    }

    pub(super) fn finish(mut self, stop: StopReason) -> Generation {
        // What was held back in vain belongs to the text, whatever ended it.
        if stop != StopReason::StopString {
            self.released = self.stops.flush();
        }
        let _ = self.hand_out();
        let matched = self.options.constraint.as_ref().map(|constraint| constraint.matches(&self.bytes));
        Generation { bytes: self.bytes, ids: self.ids, stop, matched }
    }
}
