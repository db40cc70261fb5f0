//! Generation on several sessions at once.

use std::ops::ControlFlow;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::generate::generator::Generator;
use crate::generate::options::{GenerateOptions, Generation, Piece, StopReason};
use crate::sampling::host::Sampler;
use crate::session::{Batch, Session};

/// A session of a batch and the state of its generation.
struct Slot<'a> {
    session: &'a mut Session,
    generator: Generator<'a>,
    /// Set once the generation is over.
    outcome: Option<Result<StopReason>>,
}

/// Generates on all sessions, in groups that may be decoded together.
pub(super) async fn generate(sessions: &mut [Session], options: &[GenerateOptions]) -> Result<Vec<Result<Generation>>> {
    let slots = sessions.first().map_or(1, Batch::max_slots);
    let groups =
        sessions.chunks_mut(slots).zip(options.chunks(slots)).map(|(sessions, options)| group(sessions, options));
    Ok(join_all(groups).await.into_iter().flatten().collect())
}

/// Generates on the sessions of one group. Results are in the order of the sessions.
async fn group(sessions: &mut [Session], options: &[GenerateOptions]) -> Vec<Result<Generation>> {
    let mut sinks: Vec<_> = sessions.iter().map(|_| |_: Piece<'_>| ControlFlow::Continue(())).collect();
    let mut slots = Vec::new();
    let mut refused = Vec::new();
    for (((row, session), options), sink) in sessions.iter_mut().enumerate().zip(options).zip(&mut sinks) {
        let generator = match options.validate() {
            Ok(()) => Generator::new(session, options, sink).await,
            Err(error) => Err(error),
        };
        match generator {
            Ok(generator) => slots.push(Slot { session, generator, outcome: None }),
            Err(error) => refused.push((row, error)),
        }
    }
    if let Err(error) = run(&mut slots).await {
        // An error of the whole batch is the outcome of every slot that was still running.
        slots.iter_mut().for_each(|slot| {
            slot.outcome.get_or_insert(Err(error.clone()));
        });
    }
    let mut results: Vec<Result<Generation>> = Vec::new();
    let mut finished = slots.into_iter().map(|slot| match slot.outcome {
        Some(Ok(stop)) => Ok(slot.generator.finish(stop)),
        Some(Err(error)) => Err(error),
        None => Err(Error::internal("a generation of a batch has no outcome")),
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

/// Runs all slots until each has an outcome: in one batch where the device allows it, else each on its own.
async fn run(slots: &mut [Slot<'_>]) -> Result<()> {
    let mut batch = if slots.len() > 1 && slots.iter().all(|slot| slot.generator.is_on_device()) {
        let (sessions, samplers) = split(slots);
        match Batch::new(&sessions, &samplers).await {
            // A session was cancelled while the device was suspended. The others go on alone.
            Err(error) if error.kind() == ErrorKind::Cancelled => None,
            batch => batch?,
        }
    } else {
        None
    };
    let Some(batch) = &mut batch else {
        join_all(slots.iter_mut().map(run_alone)).await;
        return Ok(());
    };
    loop {
        for slot in slots.iter_mut() {
            slot.run_until_device_step().await;
        }
        let active: Vec<bool> = slots.iter().map(|slot| slot.outcome.is_none()).collect();
        if !active.contains(&true) {
            return Ok(());
        }
        let bytes = slots.iter().zip(&active).filter(|(_, active)| **active);
        let bytes = bytes.map(|(slot, _)| slot.generator.bytes_per_device_step(slot.session)).max().unwrap_or(1);
        let mut sessions = Vec::new();
        let mut requests = Vec::new();
        for (slot, &active) in slots.iter_mut().zip(&active) {
            let Slot { session, generator, .. } = slot;
            sessions.push(&mut **session);
            requests.push(active.then(|| generator.device_step(bytes)));
        }
        let chosen = batch.decode_step(&mut sessions, &requests).await;
        drop(requests);
        let chosen = match chosen {
            // The sessions that were cancelled end next. The step is done again for the others.
            Err(error) if error.kind() == ErrorKind::Cancelled => continue,
            chosen => chosen?,
        };
        for ((slot, ids), active) in slots.iter_mut().zip(chosen).zip(active) {
            if active {
                slot.outcome = slot.generator.accept(slot.session, ids).await.transpose();
            }
        }
    }
}

/// What the device chooses by: a sampler and the stop strings.
type DeviceSampling<'a> = (&'a Sampler, &'a [Vec<u8>]);

/// The sessions of the slots and their samplers, borrowed apart.
fn split<'a>(slots: &'a mut [Slot<'_>]) -> (Vec<&'a mut Session>, Vec<DeviceSampling<'a>>) {
    slots.iter_mut().map(|Slot { session, generator, .. }| (&mut **session, generator.device_sampling())).unzip()
}

async fn run_alone(slot: &mut Slot<'_>) {
    while slot.outcome.is_none() {
        slot.outcome = slot.generator.step(slot.session).await.transpose();
    }
}

impl Slot<'_> {
    /// Chooses on the host until the device can continue or the generation is over.
    async fn run_until_device_step(&mut self) {
        while self.outcome.is_none() {
            self.outcome = match self.generator.stop_reason() {
                Some(stop) => Some(Ok(stop)),
                None if self.generator.has_device_step(self.session) => return,
                None => self.generator.step_on_host(self.session).await.transpose(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::{AdapterChoice, Checkpoint, Engine, EngineOptions, LoadOptions, Model, block_on, generate_batch};

    const BYTES: usize = 200;

    /// A small model on the CPU device, whose decode steps may all be stopped part-way.
    fn model() -> Model {
        let mut engine =
            block_on(Engine::open(&EngineOptions::default().adapter(AdapterChoice::Cpu))).expect("the CPU");
        Arc::get_mut(&mut engine.device).expect("a device of its own").capabilities.long_step_weights = 0;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/infer/models/nano_trained");
        let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        block_on(Model::load(&engine, &checkpoint, LoadOptions::default())).expect("a model")
    }

    fn sessions(model: &Model) -> Vec<Session> {
        ["This is ", "Once upon", "In the"]
            .into_iter()
            .map(|text| {
                let mut session = block_on(Session::new(model)).expect("a session");
                block_on(session.append(text.as_bytes())).expect("a prompt");
                session
            })
            .collect()
    }

    fn generate(sessions: &mut [Session], bytes: usize) -> Vec<Generation> {
        let mut options = GenerateOptions { max_bytes: bytes, ..GenerateOptions::default() };
        options.sampling.end_bias = -1e30;
        let all = vec![options; sessions.len()];
        block_on(generate_batch(sessions, &all)).expect("a batch").into_iter().map(|one| one.expect("text")).collect()
    }

    /// Whenever one session of a batch is cancelled, the others go on as if it had not been, and it can be continued.
    #[test]
    fn cancelling_one_session_of_a_batch_changes_no_text() {
        let model = model();
        let expected: Vec<Vec<u8>> = generate(&mut sessions(&model), BYTES).into_iter().map(|one| one.bytes).collect();
        let mut stopped = 0;
        for delay in 0..12 {
            let mut sessions = sessions(&model);
            let token = sessions[1].cancel_token();
            let canceller = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(1500 * delay));
                token.cancel();
            });
            let mut found = generate(&mut sessions, BYTES);
            canceller.join().expect("the canceller");
            sessions[1].cancel_token().reset();
            assert_eq!(found[0].bytes, expected[0], "cancelled after {delay}");
            assert_eq!(found[2].bytes, expected[2], "cancelled after {delay}");
            if found[1].stop == StopReason::Cancelled {
                stopped += 1;
                let rest = BYTES - found[1].bytes.len();
                let more = generate(&mut sessions[1..2], rest).remove(0);
                found[1].bytes.extend(more.bytes);
            }
            assert_eq!(found[1].bytes, expected[1], "cancelled after {delay}");
        }
        assert!(stopped > 0, "nothing was cancelled in time");
    }
}
