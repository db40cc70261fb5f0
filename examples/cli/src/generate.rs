//! `bolmo generate`: continues a prompt, and prints bytes as they are generated.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anstream::AutoStream;
use anstyle::Style;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bolmo_runtime::StopMatcher;
use bolmo_runtime::ids;
use bolmo_runtime::{
    Constraint, Error, ErrorKind, GenerateOptions, Model, Piece, Result, SamplingOptions, Session, StopReason, block_on,
};
use serde_json::json;

use crate::args::{Color, Common, GenerateArgs};
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Failure, Outcome, note, write_json};
use crate::patches::PatchPrinter;
use crate::progress::Progress;
use crate::prompt::Source;

/// Runs the command.
pub fn run(common: &Common, args: &GenerateArgs) -> Outcome {
    let options = options(args)?;
    let prompt = Source::of(&args.input).read()?;
    if prompt.is_empty() && args.no_bos {
        return Err(usage("the prompt is empty; give some text, or remove --no-bos"));
    }
    let interrupt = Interrupt::listen();
    let model = load::model(common, &|| interrupt.asked())?;

    let mut session = block_on(Session::new(&model))?;
    interrupt.stops(session.cancel_token());
    let begun = Instant::now();
    read_prompt(common, &mut session, &prompt, !args.no_bos)?;
    let prefill = begun.elapsed();
    let prompt_ids = session.ids().len();

    let mut printer = Printer::new(common, args);
    if args.echo {
        printer.echo(&prompt);
    }
    let begun = Instant::now();
    let made = block_on(session.generate(&options, &mut |piece| printer.print(piece)))?;
    let made = Made { bytes: made.bytes, ids: made.ids, stop: made.stop, matched: made.matched };
    let decode = begun.elapsed();
    printer.finish()?;
    let too_long = load::length_warning(common, &model, session.patches());
    let run = Run { model: &model, session: &session, prompt_ids, made, prefill, decode };
    if common.json {
        write_json(&run.to_json())?;
    }
    let unfinished = run.unfinished();
    let statistics = !common.json && !common.quiet && io::stderr().is_terminal();
    let has_notes = statistics || unfinished.is_some() || too_long.is_some();
    if has_notes && !common.json && io::stdout().is_terminal() {
        // On a terminal, these lines would otherwise continue the last line of the text.
        let _ = writeln!(io::stderr());
    }
    if let Some(warning) = too_long {
        note("warning", &warning);
    }
    if statistics {
        let _ = writeln!(io::stderr(), "{}", run.statistics());
    }
    unfinished.map_or(Ok(()), |why| Err(Failure::Unfinished(why)))
}

/// Generation options, or a usage error.
fn options(args: &GenerateArgs) -> Outcome<GenerateOptions> {
    let sampling = SamplingOptions {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        repetition_window: args.repetition_window,
        byte_bias: args.logit_bias.clone(),
        boundary_bias: args.boundary_bias,
        seed: args.seed,
        ..SamplingOptions::default()
    };
    let stops: Vec<Vec<u8>> = args.stop.iter().map(|stop| stop.as_encoded_bytes().to_vec()).collect();
    // The runtime checks both again. Checked here, a mistake is a usage error, and is found before anything is loaded.
    sampling.validate().map_err(|e| usage(e.message()))?;
    StopMatcher::new(stops.clone()).map_err(|e| usage(e.message()))?;
    let mut options = GenerateOptions::default();
    options.max_bytes = args.max_bytes;
    options.sampling = sampling;
    options.stops = stops;
    options.constraint = constraint(args)?;
    Ok(options)
}

/// The constraint on the text, if any. A mistake in it is wrong usage; an unreadable file is not.
fn constraint(args: &GenerateArgs) -> Outcome<Option<Constraint>> {
    if let Some(pattern) = &args.regex {
        return Constraint::regex(pattern).map(Some).map_err(|e| usage(&format!("--regex: {}", e.message())));
    }
    let Some(path) = &args.json_schema else { return Ok(None) };
    if load::is_stdin(path) && Source::of(&args.input).is_stdin() {
        return Err(usage(
            "the prompt and --json-schema cannot both be standard input; give PROMPT or --prompt-file FILE",
        ));
    }
    let schema = load::read_at_most(path, Constraint::MAX_SCHEMA_BYTES as u64).map_err(|e| match e.kind() {
        ErrorKind::InvalidArgument => usage(&format!("--json-schema {}", e.message())),
        _ => Failure::from(e),
    })?;
    let named = |e: Error| usage(&format!("--json-schema {}: {}", path.display(), e.message()));
    Constraint::json_schema(&schema).map(Some).map_err(named)
}

fn usage(message: &str) -> Failure {
    Failure::Usage("generate", message.to_owned())
}

/// Appends the prompt. An interrupt is an error here: there is no text to keep yet.
fn read_prompt(common: &Common, session: &mut Session, prompt: &[u8], bos: bool) -> Result<()> {
    let mut progress = Progress::of_text("reading the prompt", common);
    let read = block_on(async {
        if bos {
            session.append_bos().await?;
        }
        session.append_with_progress(prompt, &mut |done, total| progress.update(done as u64, total as u64)).await
    });
    drop(progress);
    match read {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            let done = session.ids().len().saturating_sub(usize::from(bos));
            let message = format!("stopped while reading the prompt, after {done} of {} bytes", prompt.len());
            Err(Error::new(ErrorKind::Cancelled, message))
        }
        read => read,
    }
}

/// The generated text, which may be empty.
struct Made {
    bytes: Vec<u8>,
    ids: Vec<u16>,
    stop: StopReason,
    matched: Option<bool>,
}

/// Prints generated bytes.
struct Printer {
    out: Option<Box<dyn Write + Send>>,
    colored: bool,
    patches: Option<PatchPrinter>,
    failed: Option<io::Error>,
}

impl Printer {
    fn new(common: &Common, args: &GenerateArgs) -> Self {
        if common.json {
            return Self { out: None, colored: false, patches: None, failed: None };
        }
        let colored = args.show_patches
            && match args.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
            };
        // Bytes are written as they are, unless colors need the terminal's support.
        let out: Box<dyn Write + Send> =
            if colored { Box::new(AutoStream::always(io::stdout())) } else { Box::new(io::stdout()) };
        let patches = args.show_patches.then(|| PatchPrinter::new(colored));
        Self { out: Some(out), colored, patches, failed: None }
    }

    /// Prints the prompt, dimmed beside colored patches.
    fn echo(&mut self, prompt: &[u8]) {
        let style = if self.colored { Style::new().dimmed() } else { Style::new() };
        let (begin, end) = (style.render().to_string(), style.render_reset().to_string());
        self.write(&[begin.as_bytes(), prompt, end.as_bytes()].concat());
    }

    fn print(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        match &mut self.patches {
            Some(patches) => {
                let shown = patches.push(piece);
                self.write(shown.as_bytes());
            }
            None => self.write(piece.bytes),
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let (Some(out), None) = (&mut self.out, &self.failed) {
            self.failed = out.write_all(bytes).and_then(|()| out.flush()).err();
        }
    }

    fn finish(&mut self) -> Outcome {
        if let Some(rest) = self.patches.as_mut().map(PatchPrinter::finish) {
            self.write(rest.as_bytes());
        }
        self.failed.as_ref().map_or(Ok(()), |error| Err(Failure::of_output(error)))
    }
}

/// A finished generation.
struct Run<'a> {
    model: &'a Model,
    session: &'a Session,
    /// Number of ids of the prompt, including `<bos>`.
    prompt_ids: usize,
    made: Made,
    prefill: Duration,
    decode: Duration,
}

impl Run<'_> {
    fn patches(&self) -> usize {
        self.made.ids.iter().filter(|&&id| ids::is_fused(id)).count()
    }

    /// Generation speed; none if nothing was generated.
    fn bytes_per_second(&self) -> Option<f64> {
        let speed = self.made.bytes.len() as f64 / self.decode.as_secs_f64();
        (speed.is_finite() && speed > 0.0).then_some(speed)
    }

    fn to_json(&self) -> serde_json::Value {
        let prompt = &self.session.ids()[..self.prompt_ids];
        let prompt_ids: Vec<u16> = prompt.iter().map(|&id| ids::plain(id)).collect();
        let prompt_patches = prompt.iter().filter(|&&id| ids::is_fused(id)).count();
        json!({
            "text": String::from_utf8_lossy(&self.made.bytes),
            "bytes_base64": STANDARD.encode(&self.made.bytes),
            "ids": self.made.ids,
            "prompt_ids": prompt_ids,
            "prompt_patches": prompt_patches,
            "bytes": self.made.bytes.len(),
            "patches": self.patches(),
            "stop": self.made.stop.name(),
            "matched": self.made.matched,
            "prefill_seconds": self.prefill.as_secs_f64(),
            "decode_seconds": self.decode.as_secs_f64(),
            "bytes_per_second": self.bytes_per_second(),
            "adapter": self.model.engine().adapter().name,
        })
    }

    /// Why the text does not match its constraint, if it does not and nobody interrupted it.
    fn unfinished(&self) -> Option<String> {
        let why = match (self.made.matched, self.made.stop) {
            (Some(true) | None, _) | (_, StopReason::Cancelled) => return None,
            (_, StopReason::Budget) => "--max-bytes ended it first; give a larger number",
            (_, StopReason::StopString) => "a stop string ended it first; give another --stop, or none",
            _ => "the model ended it first; give another prompt or --seed",
        };
        let bytes = self.made.bytes.len();
        Some(format!("the text of {bytes} bytes does not match its constraint: {why}"))
    }

    fn statistics(&self) -> String {
        let (bytes, patches) = (self.made.bytes.len(), self.patches());
        let mut parts = vec![format!("{bytes} bytes"), format!("{patches} patches")];
        if patches > 0 {
            parts.push(format!("{:.2} bytes/patch", bytes as f64 / patches as f64));
        }
        if let Some(speed) = self.bytes_per_second() {
            parts.push(format!("{speed:.1} bytes/s"));
        }
        parts.push(format!("stop: {}", self.made.stop.name()));
        parts.push(self.model.engine().adapter().name.clone());
        parts.join(", ")
    }
}
