//! A generation under way.

use std::ops::ControlFlow;

use super::{GenerateOptions, Generation, Piece, StopReason};
use crate::constraint::Matcher;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{CancelToken, Session};
use crate::stages::bytes;
use crate::stages::sample::Sampler;
use crate::stop::StopMatcher;

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
    /// Plain ids of the session, for the repetition penalty.
    history: Vec<u16>,
    /// Bytes that were chosen or forced.
    taken: usize,
    bytes: Vec<u8>,
    ids: Vec<u16>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        session: &Session,
        options: &'a GenerateOptions,
        on_piece: &'a mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Self> {
        Ok(Self {
            options,
            on_piece,
            sampler: Sampler::new(options.sampling.clone())?,
            stops: StopMatcher::new(options.stops.clone())?,
            matcher: options.constraint.as_ref().map(|constraint| constraint.matcher()),
            cancel: session.cancel_token(),
            byte_offset: session.byte_offset()?,
            history: session.ids().iter().map(|&id| bytes::plain(id)).collect(),
            taken: 0,
            bytes: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// Takes the next byte, or the next bytes if there is no choice, or says why there is none.
    pub(super) async fn step(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        if self.matcher.as_ref().is_some_and(|matcher| matcher.is_match() && !matcher.can_continue()) {
            return Ok(Some(StopReason::Complete));
        }
        if self.taken >= self.options.max_bytes {
            return Ok(Some(StopReason::Budget));
        }
        if self.cancel.take() {
            return Ok(Some(StopReason::Cancelled));
        }
        let forced = self.forced()?;
        if forced.is_empty() { self.choose(session).await } else { self.append(session, &forced).await }
    }

    /// Lets the model choose a byte or the end.
    async fn choose(&mut self, session: &mut Session) -> Result<Option<StopReason>> {
        let logits = session.logits(self.options.sampling.boundary_bias).await?;
        let remaining = self.options.max_bytes - self.taken;
        let allowed = self.matcher.as_ref().map(|matcher| matcher.allowed(Some(remaining)));
        let id = self.sampler.choose(&logits, &self.history, allowed.as_ref())?;
        self.ids.push(id);
        let Some(byte) = bytes::id_to_byte(id, self.byte_offset) else {
            return Ok(Some(StopReason::End));
        };
        session.push(id).await?;
        self.take(id, byte)
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
        self.ids.extend_from_slice(&ids);
        for (&id, &byte) in ids.iter().zip(run) {
            if let Some(stop) = self.take(id, byte)? {
                return Ok(Some(stop));
            }
        }
        Ok(cancelled.then_some(StopReason::Cancelled))
    }

    /// Takes account of a byte that the session has, and hands out what can no longer be part of a stop string.
    fn take(&mut self, id: u16, byte: u8) -> Result<Option<StopReason>> {
        self.taken += 1;
        self.history.push(bytes::plain(id));
        if let Some(matcher) = &mut self.matcher {
            matcher.advance(byte)?;
        }
        let held = self.stops.push(byte);
        if self.hand_out(&held.released).is_break() {
            return Ok(Some(StopReason::Cancelled));
        }
        Ok(held.matched.map(|_| StopReason::StopString))
    }

    fn hand_out(&mut self, new: &[u8]) -> ControlFlow<()> {
        let released = self.bytes.len();
        self.bytes.extend_from_slice(new);
        match self.ids.get(released..released + new.len()) {
            Some(ids) if !new.is_empty() => (self.on_piece)(Piece { bytes: new, ids }),
            _ => ControlFlow::Continue(()),
        }
    }

    pub(super) fn finish(mut self, stop: StopReason) -> Generation {
        // What was held back in vain belongs to the text, whatever ended it.
        let rest = if stop == StopReason::StopString { Vec::new() } else { self.stops.flush() };
        let _ = self.hand_out(&rest);
        let matched = self.options.constraint.as_ref().map(|constraint| constraint.matches(&self.bytes));
        Generation { bytes: self.bytes, ids: self.ids, stop, matched }
    }
}
