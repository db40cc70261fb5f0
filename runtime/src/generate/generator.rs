//! The state of one generation and its steps.

use std::ops::ControlFlow;

use crate::constraint::Matcher;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::options::{GenerateOptions, Generation, LogProbs, Piece, StopReason};
use crate::sampling::device::{Flag, ends_patch, flagged};
use crate::sampling::host::Sampler;
use crate::sampling::logprobs::IdLogProbs;
use crate::session::{Call, CancelToken, DecodeStep, Progress as SessionProgress, Session, Tap};
use crate::text::ids;
use crate::text::stop::StopMatcher;
use crate::timer::Timer;

/// Receives the text of a generation as it is produced, and may break off.
pub(super) type OnPiece<'a> = dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send + 'a;

/// A generation in progress.
pub(super) struct Generator {
    options: GenerateOptions,
    sampler: Sampler,
    stops: StopMatcher,
    /// State of the constraint after the text so far.
    matcher: Option<Matcher>,
    cancel: CancelToken,
    /// Has the operations of the session wait while the device is suspended.
    _call: Call,
    byte_offset: u8,
    /// Whether the device chooses.
    on_device: bool,
    /// Moving average of the bytes per patch.
    patch_length: f32,
    /// Bytes that cannot be part of a stop string and were not passed to the callback yet.
    released: Vec<u8>,
    /// Plain ids of the session, for the repetition penalty.
    history: Vec<u16>,
    /// Number of bytes that were chosen or forced.
    taken: usize,
    /// The text that was passed to the callback.
    bytes: Vec<u8>,
    /// All chosen or forced ids.
    ids: Vec<u16>,
    /// Their log-probabilities, if they are wanted.
    logprobs: Option<LogProbs>,
    /// Shows other threads how many bytes were taken.
    progress: SessionProgress,
    timer: Timer,
}

impl Generator {
    pub(super) async fn new(session: &mut Session, options: GenerateOptions) -> Result<Self> {
        options.validate()?;
        let call = session.begin_call()?;
        let sampler = Sampler::new(options.sampling.clone())?;
        let (progress, timer) = (session.progress(), Timer::start());
        progress.begin(options.max_bytes);
        // The logits that a constraint restricts, or that log-probabilities come from, have to be on the host.
        let on_host = options.constraint.is_some() || options.logprobs;
        let on_device = !on_host && session.prepare_decode(&sampler, &options.stops).await?;
        let patches = session.patches().max(1);
        Ok(Self {
            on_device,
            patch_length: options
                .bytes_per_patch
                .map_or(session.ids().len() as f32 / patches as f32, |bytes| bytes as f32),
            released: Vec::new(),
            sampler,
            stops: StopMatcher::new(options.stops.clone())?,
            matcher: options.constraint.as_ref().map(|constraint| constraint.matcher()),
            logprobs: options.logprobs.then(LogProbs::default),
            options,
            cancel: session.cancel_token(),
            _call: call,
            byte_offset: session.byte_offset()?,
            history: session.ids().iter().map(|&id| ids::plain(id)).collect(),
            taken: 0,
            bytes: Vec::new(),
            ids: Vec::new(),
            progress,
            timer,
        })
    }

    /// Takes the next bytes: one that the host chooses, several that the device chooses, or all that are forced.
    /// Returns why the generation ends, if it does.
    pub(super) async fn step(
        &mut self,
        session: &mut Session,
        on_piece: &mut OnPiece<'_>,
    ) -> Result<Option<StopReason>> {
        if let Some(stop) = self.stop_reason() {
            return Ok(Some(stop));
        }
        if !self.has_device_step(session) {
            return self.step_on_host(session, on_piece).await;
        }
        let step = session.decode_step(&self.device_step(self.bytes_per_device_step(session))).await;
        match step {
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                self.cancel.take();
                Ok(self.deliver(Some(StopReason::Cancelled), on_piece))
            }
            ids => self.accept(session, ids?, on_piece).await,
        }
    }

    /// Why no further byte may be chosen, if so. Clears a request to cancel.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        if self.matcher.as_ref().is_some_and(|matcher| matcher.is_match() && !matcher.can_continue()) {
            return Some(StopReason::Complete);
        }
        if self.taken >= self.options.max_bytes {
            return Some(StopReason::Budget);
        }
        self.cancel.take().then_some(StopReason::Cancelled)
    }

    /// Whether the device chooses all bytes after the first, which the host chooses.
    pub(super) fn is_on_device(&self) -> bool {
        self.on_device
    }

    /// Whether the device can choose the next byte.
    pub(super) fn has_device_step(&self, session: &Session) -> bool {
        self.on_device && session.has_chosen()
    }

    /// Takes the next byte that the host chooses, or all forced bytes.
    pub(super) async fn step_on_host(
        &mut self,
        session: &mut Session,
        on_piece: &mut OnPiece<'_>,
    ) -> Result<Option<StopReason>> {
        let forced = self.forced()?;
        let stop = match forced.is_empty() {
            true => self.choose(session).await,
            false => self.append(session, &forced, on_piece).await,
        };
        let stop = match stop {
            // While the device was suspended.
            Err(error) if error.kind() == ErrorKind::Cancelled => Some(StopReason::Cancelled),
            stop => stop?,
        };
        Ok(self.deliver(stop, on_piece))
    }

    /// Number of bytes that the device chooses at once: an upper estimate of a patch's length.
    pub(super) fn bytes_per_device_step(&self, session: &Session) -> usize {
        let slack = session.model().engine().capabilities().decode_slack;
        let bytes = (self.patch_length * slack).ceil().max(1.0) as usize;
        bytes.min(session.max_decode_bytes())
    }

    /// A request to the device to choose at most `count` bytes.
    pub(super) fn device_step(&self, count: usize) -> DecodeStep<'_> {
        let flags = self.flags(self.taken, count);
        let next = self.taken + flags.len();
        let flags_ahead = if next < self.options.max_bytes { self.flags(next, count) } else { Vec::new() };
        DecodeStep { bytes: (self.taken, self.options.max_bytes), sampler: &self.sampler, flags, flags_ahead }
    }

    /// Adds the ids that the device has chosen to the generation.
    pub(super) async fn accept(
        &mut self,
        session: &mut Session,
        ids: Vec<u16>,
        on_piece: &mut OnPiece<'_>,
    ) -> Result<Option<StopReason>> {
        if ids.is_empty() {
            // The logits are faulty; choosing on the host reports how.
            return self.step_on_host(session, on_piece).await;
        }
        self.sampler.skip(ids.len());
        let mut stop = None;
        for id in ids {
            stop = self.take(id)?;
            if stop.is_some() {
                break;
            }
        }
        Ok(self.deliver(stop, on_piece))
    }

    /// Passes released bytes to the callback. Returns `stop`, or `Cancelled` if there is none and the callback breaks
    /// off.
    fn deliver(&mut self, stop: Option<StopReason>, on_piece: &mut OnPiece<'_>) -> Option<StopReason> {
        if self.deliver_released(on_piece).is_break() { Some(stop.unwrap_or(StopReason::Cancelled)) } else { stop }
    }

    /// How to decide between the plain and the fused id of at most `count` bytes from byte `first` of the generation
    /// on. The flags stop at the first known patch end. The device itself stops at the maximum length.
    fn flags(&self, first: usize, count: usize) -> Vec<Flag> {
        let flags = (first..first + count).map(|number| self.flag(number));
        let mut ended = false;
        flags.take_while(|&flag| !std::mem::replace(&mut ended, flag == Flag::Given(true))).collect()
    }

    /// How to decide between the plain and the fused id of byte `number` of the generation.
    fn flag(&self, number: usize) -> Flag {
        self.options.bytes_per_patch.map_or(Flag::Model, |bytes| Flag::Given(ends_patch(number, bytes)))
    }

    /// Chooses a byte or the end of the text from the model's logits, on the host.
    async fn choose(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        let logits = session.logits(self.options.sampling.boundary_bias).await?;
        let remaining = self.options.max_bytes - self.taken;
        let allowed = self.matcher.as_ref().map(|matcher| matcher.allowed(Some(remaining)));
        let id = self.sampler.choose(&logits, &self.history, allowed.as_ref())?;
        let id = flagged(id, self.flag(self.taken));
        if ids::id_to_byte(id, self.byte_offset).is_some() {
            session.push(id).await?;
        }
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.push(IdLogProbs::new(&logits, id), id);
        }
        self.take(id)
    }

    /// The next bytes as far as the constraint leaves no choice, up to the end of a stop string or the maximum length.
    fn forced(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(matcher) = &self.matcher else { return Ok(bytes) };
        let Some(mut next) = matcher.forced() else { return Ok(bytes) };
        let (mut matcher, mut stops) = (matcher.clone(), self.stops.clone());
        while bytes.len() < self.options.max_bytes - self.taken {
            bytes.push(next);
            matcher.advance(next)?;
            if stops.push(next).matched.is_some() {
                break;
            }
            match matcher.forced() {
                Some(byte) => next = byte,
                None => break,
            }
        }
        Ok(bytes)
    }

    /// Appends forced bytes to the session and passes them to the callback one by one.
    async fn append(
        &mut self,
        session: &mut Session,
        bytes: &[u8],
        on_piece: &mut OnPiece<'_>,
    ) -> Result<Option<StopReason>> {
        let before = session.ids().len();
        if before == 0 {
            return Err(Error::invalid("the session is empty; append <bos> or text before generating"));
        }
        let mut found = vec![IdLogProbs::default(); if self.logprobs.is_some() { bytes.len() } else { 0 }];
        let appended = match &self.logprobs {
            None => session.append_forced(bytes, None).await,
            Some(_) => {
                let byte_offset = self.byte_offset;
                let mut take = |position: usize, rows: &[f32]| {
                    for (next, row) in (position + 1..).zip(rows.chunks_exact(ids::IDS)) {
                        let forced = next.checked_sub(before).and_then(|i| Some((found.get_mut(i)?, bytes.get(i)?)));
                        if let Some((entry, &byte)) = forced {
                            *entry = IdLogProbs::new(row, ids::byte_to_id(byte, byte_offset));
                        }
                    }
                    Ok(())
                };
                session.append_forced(bytes, Some(&mut Tap { logits: &mut take, dump: None })).await
            }
        };
        let cancelled = match appended {
            Ok(()) => {
                // Computing the logits after the last byte decides whether it ends a patch.
                let decided = session.logits(self.options.sampling.boundary_bias).await;
                match decided {
                    Err(error) if error.kind() == ErrorKind::Cancelled => true,
                    decided => decided.map(|_| false)?,
                }
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => true,
            Err(error) => return Err(error),
        };
        let ids = session.ids().get(before..).unwrap_or_default().to_vec();
        if let Some(logprobs) = &mut self.logprobs {
            found.iter().zip(&ids).for_each(|(found, &id)| logprobs.push(*found, id));
        }
        for (i, &id) in ids.iter().enumerate() {
            let stop = self.take(id)?;
            let stop = self.deliver(stop, on_piece);
            if stop.is_some() {
                // The session has all forced bytes, wherever among them the text ends.
                self.ids.extend_from_slice(&ids[i + 1..]);
                return Ok(stop);
            }
        }
        Ok(cancelled.then_some(StopReason::Cancelled))
    }

    /// Adds a chosen or forced id to the generation. The session has it already, unless it ends the text.
    fn take(&mut self, id: u16) -> Result<Option<StopReason>> {
        self.ids.push(id);
        let Some(byte) = ids::id_to_byte(id, self.byte_offset) else {
            return Ok(Some(StopReason::End));
        };
        self.taken += 1;
        self.progress.advance(self.taken);
        self.history.push(ids::plain(id));
        self.update_patch_length(id);
        if let Some(matcher) = &mut self.matcher {
            matcher.advance(byte)?;
        }
        let held = self.stops.push(byte);
        self.released.extend_from_slice(&held.released);
        Ok(held.matched.map(|_| StopReason::StopString))
    }

    /// Updates the average patch length after `id` was added.
    fn update_patch_length(&mut self, id: u16) {
        const WEIGHT: f32 = 1.0 / 16.0;
        let length = self.ids.iter().rev().skip(1).take_while(|&&id| !ids::is_fused(id)).count() + 1;
        if ids::is_fused(id) {
            self.patch_length += WEIGHT * (length as f32 - self.patch_length);
        }
        // A very long patch counts before it ends.
        self.patch_length = self.patch_length.max(WEIGHT * length as f32);
    }

    /// Passes the released bytes to the callback, if there are any.
    fn deliver_released(&mut self, on_piece: &mut OnPiece<'_>) -> ControlFlow<()> {
        let new = std::mem::take(&mut self.released);
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&new);
        match self.ids.get(before..before + new.len()) {
            Some(ids) if !new.is_empty() => on_piece(Piece { bytes: &new, ids }),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Passes on what is left and returns the result.
    pub(super) fn finish(mut self, stop: StopReason, on_piece: &mut OnPiece<'_>) -> Generation {
        // Bytes held back for a stop string that did not come belong to the text.
        if stop != StopReason::StopString {
            self.released = self.stops.flush();
        }
        let _ = self.deliver_released(on_piece);
        let matched = self.options.constraint.as_ref().map(|constraint| constraint.matches(&self.bytes));
        let patches = self.ids.iter().filter(|&&id| ids::is_fused(id)).count();
        log::info!("generated {} bytes, {patches} patches, {}; stop: {stop:?}", self.taken, self.timer);
        Generation { bytes: self.bytes, ids: self.ids, stop, matched, logprobs: self.logprobs }
    }
}
