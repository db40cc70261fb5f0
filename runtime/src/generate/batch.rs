//! Generating on several sessions at once.

use std::ops::ControlFlow;

use futures_util::future::join_all;

use crate::error::{Error, Result};
use crate::generate::generator::Run;
use crate::generate::{GenerateOptions, Generation, Piece, StopReason};
use crate::session::{Batch, Session};

/// A session and how far its generation has come.
struct Lane<'a> {
    session: &'a mut Session,
    run: Run<'a>,
    /// Set once the generation is over.
    ended: Option<Result<StopReason>>,
}

/// Generates on all sessions, groups of them together.
pub(super) async fn generate(sessions: &mut [Session], options: &[GenerateOptions]) -> Result<Vec<Result<Generation>>> {
    let lanes = sessions.first().map_or(1, Batch::most_lanes);
    let groups =
        sessions.chunks_mut(lanes).zip(options.chunks(lanes)).map(|(sessions, options)| group(sessions, options));
    Ok(join_all(groups).await.into_iter().flatten().collect())
}

/// Generates on sessions that may be decoded together.
async fn group(sessions: &mut [Session], options: &[GenerateOptions]) -> Vec<Result<Generation>> {
    let mut sinks: Vec<_> = sessions.iter().map(|_| |_: Piece<'_>| ControlFlow::Continue(())).collect();
    let mut lanes = Vec::new();
    let mut refused = Vec::new();
    for (((row, session), options), sink) in sessions.iter_mut().enumerate().zip(options).zip(&mut sinks) {
        let run = match options.validate() {
            Ok(()) => Run::new(session, options, sink).await,
            Err(error) => Err(error),
        };
        match run {
            Ok(run) => lanes.push(Lane { session, run, ended: None }),
            Err(error) => refused.push((row, error)),
        }
    }
    if let Err(error) = together(&mut lanes).await {
        // What ends all lanes is told to all that had not ended.
        lanes.iter_mut().for_each(|lane| {
            lane.ended.get_or_insert(Err(error.clone()));
        });
    }
    let mut results: Vec<Result<Generation>> = Vec::new();
    let mut finished = lanes.into_iter().map(|lane| match lane.ended {
        Some(Ok(stop)) => Ok(lane.run.finish(stop)),
        Some(Err(error)) => Err(error),
        None => Err(Error::internal("a generation without an end")),
    });
    let mut refused = refused.into_iter().peekable();
    for row in 0..options.len() {
        match refused.next_if(|(at, _)| *at == row) {
            Some((_, error)) => results.push(Err(error)),
            None => results.extend(finished.next()),
        }
    }
    results
}

/// Brings all lanes to their ends.
async fn together(lanes: &mut [Lane<'_>]) -> Result<()> {
    let mut batch = if lanes.len() > 1 && lanes.iter().all(|lane| lane.run.on_device()) {
        let (sessions, choices) = split(lanes);
        Batch::new(&sessions, &choices).await?
    } else {
        None
    };
    let Some(batch) = &mut batch else {
        join_all(lanes.iter_mut().map(alone)).await;
        return Ok(());
    };
    loop {
        for lane in lanes.iter_mut() {
            lane.up_to_a_round().await;
        }
        let active: Vec<bool> = lanes.iter().map(|lane| lane.ended.is_none()).collect();
        if !active.contains(&true) {
            return Ok(());
        }
        let steps = lanes.iter().zip(&active).filter(|(_, active)| **active);
        let steps = steps.map(|(lane, _)| lane.run.wanted_steps(lane.session)).max().unwrap_or(1);
        let mut sessions = Vec::new();
        let mut rounds = Vec::new();
        for (lane, &active) in lanes.iter_mut().zip(&active) {
            let Lane { session, run, .. } = lane;
            sessions.push(&mut **session);
            rounds.push(active.then(|| run.round(steps)));
        }
        let chosen = batch.round(&mut sessions, &rounds).await?;
        drop(rounds);
        for ((lane, ids), active) in lanes.iter_mut().zip(chosen).zip(active) {
            if active {
                lane.ended = lane.run.accept(lane.session, ids).await.transpose();
            }
        }
    }
}

type Choices<'a> = (&'a crate::sampling::host::Sampler, &'a [Vec<u8>]);

/// The lanes' sessions, and what they choose by.
fn split<'a>(lanes: &'a mut [Lane<'_>]) -> (Vec<&'a mut Session>, Vec<Choices<'a>>) {
    lanes.iter_mut().map(|Lane { session, run, .. }| (&mut **session, run.choices())).unzip()
}

async fn alone(lane: &mut Lane<'_>) {
    while lane.ended.is_none() {
        lane.ended = lane.run.step(lane.session).await.transpose();
    }
}

impl Lane<'_> {
    /// Lets the host choose until the device can, or the generation is over.
    async fn up_to_a_round(&mut self) {
        while self.ended.is_none() {
            self.ended = match self.run.ended() {
                Some(stop) => Some(Ok(stop)),
                None if self.run.has_round(self.session) => return,
                None => self.run.step_on_host(self.session).await.transpose(),
            };
        }
    }
}
