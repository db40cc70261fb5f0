//! `bolmo bench`: the speed of a model's prefill and decoding, and the limits of the adapter.
//!
//! The model is measured first, so that the first prefill is cold: no kernel is compiled before it. Then prefill and
//! decoding are repeated `--runs` times each, and the limits are measured last. Patches end by a fixed schedule.

mod comparisons;
mod context;
mod date;
mod measured;
mod report;
mod table;
mod train;

use std::time::Instant;

use bolmo_runtime::bench::{Limits, Spread, Traffic, decode, ends_patch};
use bolmo_runtime::files::{check_file, write_file};
use bolmo_runtime::{
    Counters, Engine, Model, Result, Session, WeightFormat, block_on, device_bytes, session_bytes, work_bytes,
};
use serde_json::Value;

use crate::args::{BenchArgs, Common};
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Failure, Outcome, write, write_json};
use context::{Steps, host_own, host_peak, load_average, model_name};
use measured::{Decode, Load, Measured, Memory, Prefill, Setup};

/// Prompts repeat this text.
const TEXT: &[u8] =
    b"A byte-level model reads text as it is stored. It groups bytes into patches, and thinks once a patch.\n";

/// Runs the command.
pub fn run(common: &Common, args: &BenchArgs) -> Outcome {
    if !args.table.is_empty() {
        return write(&table::table(&args.table)?);
    }
    let interrupt = Interrupt::listen();
    let steps = Steps::new(common);
    args.save.as_deref().map_or(Ok(()), |path| check_file(path, 0))?;
    let (result, text): (_, fn(&Value) -> String) = if args.train {
        (train::measure(common, args, &interrupt, &steps)?, train::text)
    } else {
        (measure(common, args, &interrupt, &steps)?, report::text)
    };
    // A long measurement is printed even if it cannot be saved.
    if common.json {
        write_json(&result)?
    } else {
        write(&text(&result))?
    }
    let Some(path) = &args.save else { return Ok(()) };
    Ok(write_file(path, 0, |file| writeln!(file, "{result:#}"))?)
}

fn measure(common: &Common, args: &BenchArgs, interrupt: &Interrupt, steps: &Steps) -> Outcome<Value> {
    let before = load_average();
    steps.next("loading the model");
    let begun = Instant::now();
    let model = load::model(common, &|| interrupt.asked())?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let bench = Bench { args, model: &model, interrupt, steps };

    let traffic = Traffic::of(model.config(), model.formats());
    let prefill = block_on(bench.prefill())?;
    let decode = block_on(bench.decode(&traffic))?;
    // The limits below take memory of their own.
    let memory = bench.memory();
    let formats = formats(&model);
    let limits = block_on(Limits::measure(model.engine(), &formats, args.runs, &mut |what| {
        steps.next(&format!("limits: {what}"));
        !interrupt.asked()
    }));
    let limits = limits.map_err(Failure::from)?;
    let setup = Setup { name: model_name(common), products: common.products, load_seconds, traffic };
    let load = Load { before, after: load_average() };
    Ok(Measured { model: &model, args, setup, prefill, decode, memory, limits, load }.to_json())
}

/// The formats of the model's matrices.
fn formats(model: &Model) -> Vec<WeightFormat> {
    let formats = model.formats();
    let mut all = vec![formats.global];
    all.extend((formats.local != formats.global).then_some(formats.local));
    all
}

struct Bench<'a> {
    args: &'a BenchArgs,
    model: &'a Model,
    interrupt: &'a Interrupt,
    steps: &'a Steps,
}

impl Bench<'_> {
    fn engine(&self) -> &Engine {
        self.model.engine()
    }

    /// Ids of the prompt with `<bos>` before it, and where its patches end.
    fn prompt(&self) -> Result<(Vec<u32>, Vec<bool>)> {
        let count = self.args.prompt_bytes;
        let text: Vec<u8> = TEXT.iter().copied().cycle().take(count).collect();
        let offset = self.model.config().byte_offset;
        let mut ids = vec![self.model.config().special.bos.into()];
        ids.extend(text.iter().map(|&byte| u32::from(byte) + u32::from(offset)));
        let mut ends = vec![true];
        ends.extend((0..count).map(|i| ends_patch(i, self.args.bytes_per_patch)));
        Ok((ids, ends))
    }

    async fn session(&self) -> Result<Session> {
        let session = Session::new(self.model).await?;
        self.interrupt.stops(session.cancel_token());
        Ok(session)
    }

    /// Processes a prompt until the logits of the first byte are there. Returns the session, for decoding.
    async fn prompt_once(&self) -> Result<(Session, f64)> {
        let (ids, ends) = self.prompt()?;
        let begun = Instant::now();
        let mut session = self.session().await?;
        session.append_ids_with_ends(&ids, &ends).await?;
        session.logits(0.0).await?;
        Ok((session, begun.elapsed().as_secs_f64()))
    }

    async fn prefill(&self) -> Result<Prefill> {
        self.steps.next("prefill, cold");
        let (_, cold_seconds) = self.prompt_once().await?;
        let mut samples = Vec::new();
        let mut counters = Counters::default();
        let mut patches = 0;
        for run in 1..=self.args.runs {
            self.steps.next(&format!("prefill, {run} of {}", self.args.runs));
            let before = self.engine().counters();
            let (session, seconds) = self.prompt_once().await?;
            counters = self.engine().counters() - before;
            patches = session.patches();
            samples.push(seconds);
        }
        Ok(Prefill { cold_seconds, seconds: Spread::of(&samples), counters, patches })
    }

    async fn decode(&self, traffic: &Traffic) -> Result<Decode> {
        let args = self.args;
        let mut sessions = Vec::new();
        for number in 1..=args.parallel {
            self.steps.next(&format!("prompt of session {number} of {}", args.parallel));
            sessions.push(self.prompt_once().await?.0);
        }
        let mut begin = Vec::new();
        for session in &mut sessions {
            begin.push(session.checkpoint().await?);
        }
        let mut samples = Vec::new();
        let mut counters = Counters::default();
        let mut patches = [0, 0];
        // The first run compiles what only decoding needs, and is discarded.
        for run in 0..=args.runs {
            self.steps.next(&match run {
                0 => "decoding, once to warm up".to_owned(),
                _ => format!("decoding, {run} of {}", args.runs),
            });
            for (session, begin) in sessions.iter_mut().zip(&begin) {
                session.rewind(begin).await?;
            }
            let at = |sessions: &[Session]| sessions.iter().map(Session::patches).sum::<usize>();
            patches[0] = at(&sessions);
            let before = self.engine().counters();
            let begun = Instant::now();
            decode(&mut sessions, args.decode_bytes, args.bytes_per_patch).await?;
            samples.push(begun.elapsed().as_secs_f64());
            counters = self.engine().counters() - before;
            patches[1] = at(&sessions);
        }
        let context = (patches[0] + patches[1]) as f64 / (2 * args.parallel) as f64;
        Ok(Decode {
            seconds: Spread::of(&samples[1..]),
            counters,
            patches: patches[1] - patches[0],
            patches_each: patches[1] as u64 / args.parallel as u64,
            bytes_moved: traffic.decode_bytes(args.bytes_per_patch, context, args.parallel),
        })
    }

    fn memory(&self) -> Memory {
        let config = self.model.config();
        let patches = (self.args.prompt_bytes + self.args.decode_bytes) as f64 / self.args.bytes_per_patch;
        Memory {
            weights: device_bytes(config, self.model.formats()),
            mapped: self.model.mapped_bytes(),
            prompts: work_bytes(config, self.engine().capabilities().prefill_bytes),
            sessions: session_bytes(config, 1 + patches as usize) * self.args.parallel as u64,
            device_peak: self.engine().memory().peak_bytes,
            host_peak: host_peak(),
            host_own: host_own(),
        }
    }
}
