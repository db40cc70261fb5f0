//! Generation on several sessions at once.

use std::borrow::BorrowMut;
use std::ops::ControlFlow;

use crate::error::{Error, ErrorKind, Result};
use crate::generate::generator::Generator;
use crate::generate::options::{GenerateOptions, Generation, Piece, StopReason};
use crate::session::{Batch, Session};

/// Generation on several sessions, which may join and leave between rounds.
///
/// In a round each session takes at least one byte. Sessions of one model are decoded together, as many at a time as
/// the device's matrix-vector kernels take rows, except those with a constraint or with log-probabilities, which take
/// turns. The sessions may be of different models and devices. Each generates the same text as it would alone,
/// whichever others join or leave.
///
/// `S` is what the batch holds of a session until its generation has ended: [`Session`], `&mut Session` or an owner.
///
/// ```no_run
/// # use bolmo_runtime::{GenerateOptions, GenerationBatch, Session};
/// # async fn demo(sessions: Vec<Session>) {
/// let mut batch = GenerationBatch::new();
/// for session in sessions {
///     batch.add(session, GenerateOptions::default());
/// }
/// let mut on_piece = |index: usize, piece: bolmo_runtime::Piece<'_>| {
///     println!("{index}: {}", String::from_utf8_lossy(piece.bytes));
///     std::ops::ControlFlow::Continue(())
/// };
/// while !batch.is_empty() {
///     for ended in batch.round(&mut on_piece).await {
///         println!("{}: {:?}", ended.index, ended.generation.map(|generation| generation.stop));
///         // `ended.session` may go on, and further sessions may be added.
///     }
/// }
/// # }
/// ```
pub struct GenerationBatch<S> {
    members: Vec<Member<S>>,
    /// For decoding several sessions of a model together. Between rounds none of them is in use.
    batches: Vec<Batch>,
    /// Number of sessions that were added.
    added: usize,
}

/// A generation of a batch that has ended, and its session.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended<S> {
    /// Number of the session in the batch.
    pub index: usize,
    /// The session.
    pub session: S,
    /// The result. After an error the session holds the bytes that the callback received, and may have to be rewound.
    pub generation: Result<Generation>,
}

/// A session of a batch and its generation.
struct Member<S> {
    index: usize,
    session: S,
    stage: Stage,
}

enum Stage {
    /// Before the first round.
    Added(GenerateOptions),
    Running(Box<Generator>),
    /// Ends in this round.
    Stopped(Box<Generator>, StopReason),
    Failed(Error),
}

/// Receives the number of a session and its text as it is produced, and may break off.
type OnPiece<'a> = dyn FnMut(usize, Piece<'_>) -> ControlFlow<()> + Send + 'a;

impl<S> Default for GenerationBatch<S> {
    fn default() -> Self {
        Self { members: Vec::new(), batches: Vec::new(), added: 0 }
    }
}

impl<S> std::fmt::Debug for GenerationBatch<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let running: Vec<usize> = self.members.iter().map(|member| member.index).collect();
        f.debug_struct("GenerationBatch").field("running", &running).field("added", &self.added).finish()
    }
}

impl<S: BorrowMut<Session>> GenerationBatch<S> {
    /// A batch without sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a session, whose generation begins with the next round. Returns its number: 0 for the first one of the
    /// batch, and one more for each further one.
    pub fn add(&mut self, session: S, options: GenerateOptions) -> usize {
        let index = self.added;
        self.added += 1;
        self.members.push(Member { index, session, stage: Stage::Added(options) });
        index
    }

    /// Whether every generation has ended.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Number of generations that have not ended.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Continues every generation, and hands back the sessions of those that end.
    ///
    /// `on_piece` receives the number of a session and its text as it is produced; breaking off ends that generation
    /// alone. So does the session's [cancel token](Session::cancel_token). Errors of a session are in its result: those
    /// that [`Session::generate`] names.
    pub async fn round(
        &mut self,
        on_piece: &mut (dyn FnMut(usize, Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Vec<Ended<S>> {
        // One after another, here and in a step: `on_piece` may suspend the engine, which waits for work in progress.
        let mut in_progress = false;
        for member in &mut self.members {
            in_progress |= matches!(member.stage, Stage::Running(_));
            member.prepare(in_progress, on_piece).await;
        }
        self.step(on_piece).await;
        if !self.members.iter().any(Member::has_ended) {
            return Vec::new();
        }
        let (ended, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.members).into_iter().partition(Member::has_ended);
        self.members = running;
        // Nobody is left to use the others.
        let members = &self.members;
        self.batches.retain(|batch| members.iter().any(|member| batch.takes(member.session.borrow())));
        ended.into_iter().filter_map(|member| member.end(on_piece)).collect()
    }

    /// Takes the steps of a round: in groups of sessions that the device decodes together, and of others each alone.
    async fn step(&mut self, on_piece: &mut OnPiece<'_>) {
        let mut groups: Vec<Vec<&mut Member<S>>> = Vec::new();
        let mut alone = Vec::new();
        for member in &mut self.members {
            match &member.stage {
                Stage::Running(generator) if generator.has_device_step(member.session.borrow()) => {
                    let room = |group: &&mut Vec<&mut Member<S>>| {
                        let (first, session) = (group[0].session.borrow(), member.session.borrow());
                        first.shares_model(session) && group.len() < Batch::max_slots(session)
                    };
                    match groups.iter_mut().find(room) {
                        Some(group) => group.push(member),
                        None => groups.push(vec![member]),
                    }
                }
                Stage::Running(_) => alone.push(member),
                _ => {}
            }
        }
        for group in groups {
            let fits = |batch: &Batch| batch.takes(group[0].session.borrow());
            let batch = self.batches.iter().position(fits).map(|at| self.batches.swap_remove(at));
            self.batches.extend(step_together(group, batch, on_piece).await);
        }
        for member in alone {
            member.step(on_piece).await;
        }
    }
}

/// Takes a decode step with the sessions of a group, which are of one model. Returns the batch for the next round.
async fn step_together<S: BorrowMut<Session>>(
    mut group: Vec<&mut Member<S>>,
    batch: Option<Batch>,
    on_piece: &mut OnPiece<'_>,
) -> Option<Batch> {
    let batch = match (batch, group.as_slice()) {
        // The step of one session is recorded ahead.
        (batch, [_]) => {
            step_each(group, on_piece).await;
            return batch;
        }
        (Some(batch), members) if batch.slots() >= members.len() => Some(batch),
        (_, members) => {
            let first = members[0].session.borrow();
            let slots = members.len().next_power_of_two().min(Batch::max_slots(first));
            // Sessions that find no memory for a batch may still go on alone.
            Batch::new(first, slots).await.unwrap_or_default()
        }
    };
    let Some(mut batch) = batch else {
        step_each(group, on_piece).await;
        return None;
    };
    let count = |member: &&mut Member<S>| match &member.stage {
        Stage::Running(generator) => generator.bytes_per_device_step(member.session.borrow()),
        _ => 1,
    };
    let bytes = group.iter().map(count).max().unwrap_or(1);
    let mut steps = Vec::new();
    for member in &mut group {
        let Member { session, stage, .. } = &mut **member;
        if let Stage::Running(generator) = stage {
            steps.push((session.borrow_mut(), generator.device_step(bytes)));
        }
    }
    let chosen = batch.decode_step(&mut steps).await;
    drop(steps);
    match chosen {
        // The sessions that were cancelled end with the next round, in which the others take this step.
        Err(error) if error.kind() == ErrorKind::Cancelled => {}
        Err(error) => {
            group.into_iter().for_each(|member| member.stage = Stage::Failed(error.clone()));
            return None;
        }
        Ok(chosen) => {
            for (member, ids) in group.into_iter().zip(chosen) {
                member.accept(ids, on_piece).await;
            }
        }
    }
    Some(batch)
}

/// Takes a step with each session of a group alone.
async fn step_each<S: BorrowMut<Session>>(group: Vec<&mut Member<S>>, on_piece: &mut OnPiece<'_>) {
    for member in group {
        member.step(on_piece).await;
    }
}

impl<S: BorrowMut<Session>> Member<S> {
    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Stopped(..) | Stage::Failed(_))
    }

    /// Begins the generation, if it has just been added. If the device will choose, lets the host choose until then.
    /// While others are `in_progress`, it waits for the next round if the device is suspended.
    async fn prepare(&mut self, in_progress: bool, on_piece: &mut OnPiece<'_>) {
        if let Stage::Added(options) = &self.stage {
            let options = options.clone();
            self.stage = match Generator::new(self.session.borrow_mut(), options).await {
                Ok(generator) => Stage::Running(Box::new(generator)),
                Err(error) if in_progress && error.kind() == ErrorKind::Suspended => return,
                Err(error) => Stage::Failed(error),
            };
        }
        while let Stage::Running(generator) = &mut self.stage {
            let session = self.session.borrow_mut();
            if !generator.is_on_device() {
                return;
            }
            let index = self.index;
            let stop = match generator.stop_reason() {
                Some(stop) => Ok(Some(stop)),
                None if generator.has_device_step(session) => return,
                None => generator.step_on_host(session, &mut |piece| on_piece(index, piece)).await,
            };
            self.go_on(stop);
        }
    }

    /// Takes a step alone.
    async fn step(&mut self, on_piece: &mut OnPiece<'_>) {
        if let Stage::Running(generator) = &mut self.stage {
            let index = self.index;
            let session = self.session.borrow_mut();
            let stop = generator.step(session, &mut |piece| on_piece(index, piece)).await;
            self.go_on(stop);
        }
    }

    /// Adds the ids that the device has chosen in a step together.
    async fn accept(&mut self, ids: Result<Vec<u16>>, on_piece: &mut OnPiece<'_>) {
        if let Stage::Running(generator) = &mut self.stage {
            let index = self.index;
            let session = self.session.borrow_mut();
            let stop = match ids {
                Ok(ids) => generator.accept(session, ids, &mut |piece| on_piece(index, piece)).await,
                Err(error) => Err(error),
            };
            self.go_on(stop);
        }
    }

    /// Ends the generation if a step says so.
    fn go_on(&mut self, stop: Result<Option<StopReason>>) {
        match stop {
            Ok(None) => {}
            Err(error) => self.stage = Stage::Failed(error),
            Ok(Some(stop)) => {
                let failed = Stage::Failed(Error::internal("a generation stopped twice"));
                self.stage = match std::mem::replace(&mut self.stage, failed) {
                    Stage::Running(generator) => Stage::Stopped(generator, stop),
                    other => other,
                };
            }
        }
    }

    /// The result, if the generation has ended.
    fn end(self, on_piece: &mut OnPiece<'_>) -> Option<Ended<S>> {
        let Self { index, session, stage } = self;
        let generation = match stage {
            Stage::Stopped(generator, stop) => Ok(generator.finish(stop, &mut |piece| on_piece(index, piece))),
            Stage::Failed(error) => Err(error),
            Stage::Added(_) | Stage::Running(_) => return None,
        };
        Some(Ended { index, session, generation })
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

    /// Sessions of two models that join and leave at any time, some of which choose on the host, write as alone.
    #[test]
    fn sessions_that_come_and_go_write_as_alone() {
        let models = [model(), model()];
        let options = |i: usize| {
            let mut options = GenerateOptions::default().max_bytes(5 + 7 * i).logprobs(i % 5 == 4);
            options.sampling.temperature = [0.0, 0.9][i % 2];
            options.sampling.seed = i as u64;
            if i == 3 {
                options.constraint = Some(crate::Constraint::regex("[a-z]{3}(forced)*[.]").expect("a regex"));
            }
            options
        };
        let session = |i: usize| {
            let mut session = block_on(Session::new(&models[usize::from(i % 4 == 2)])).expect("a session");
            let text = &b"def read(self): return"[..1 + 2 * i];
            block_on(session.append(text)).expect("a prompt");
            session
        };
        const COUNT: usize = 10;
        let alone: Vec<Generation> = (0..COUNT)
            .map(|i| {
                let mut ignore = |_: Piece<'_>| ControlFlow::Continue(());
                block_on(session(i).generate(&options(i), &mut ignore)).expect("text")
            })
            .collect();
        // How many sessions take part from the beginning, and after how many rounds another one joins.
        for (first, every) in [(1, 1), (2, 3), (5, 2), (COUNT, 1)] {
            let mut batch = GenerationBatch::new();
            (0..first).for_each(|i| assert_eq!(batch.add(session(i), options(i)), i));
            let mut pieces = vec![Vec::new(); COUNT];
            let (mut ended, mut rounds) = (0, 0);
            while !batch.is_empty() || ended < COUNT {
                let mut on_piece = |index: usize, piece: Piece<'_>| {
                    pieces[index].extend_from_slice(piece.bytes);
                    ControlFlow::Continue(())
                };
                for one in block_on(batch.round(&mut on_piece)) {
                    let (i, found) = (one.index, one.generation.expect("text"));
                    assert_eq!(found, alone[i], "session {i} of {first}, {every}");
                    assert_eq!(found.bytes, pieces[i], "session {i} of {first}, {every}");
                    assert_eq!(one.session.ids().len(), 1 + 2 * i + found.bytes.len());
                    ended += 1;
                }
                rounds += 1;
                let joins = first + rounds / every;
                if rounds % every == 0 && joins <= COUNT {
                    batch.add(session(joins - 1), options(joins - 1));
                }
            }
            assert_eq!(ended, COUNT);
        }
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
