//! `bolmo eval`: bits per byte of a text, and answers to questions about characters, beside the source model's results.

use std::ops::ControlFlow;
use std::path::Path;

use bolmo_corpus::Split;
use bolmo_corpus::suite::{Example, Task, examples};
use bolmo_metrics::plot::{Table, TableOptions, TableRows, bars_or_lines, write_svg};
use bolmo_runtime::files::check_file;
use bolmo_runtime::ids::{BYTE_OFFSET, FUSED_OFFSET};
use bolmo_runtime::{
    CancelToken, Engine, Error, ErrorKind, GenerateOptions, Model, Result, ScoreOptions, Session, block_on,
};
use bolmo_training::data::{END_OF_TEXT, SubwordTokenizer, split_documents};
use bolmo_training::loss::NO_LABEL;
use bolmo_training::{AdamOptions, LocalSizes, Schedule, SourceModel, SubwordModel, SubwordOptions};
use serde_json::{Value, json};

use crate::args::{Common, EvalArgs};
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Outcome, count, note, write, write_json};
use crate::progress::Progress;

/// Number of examples that the source model answers together.
const AT_ONCE: usize = 8;
/// Bytes that an answer may be longer than the right one.
const SLACK: usize = 8;

/// Runs the command.
pub fn run(common: &Common, args: &EvalArgs) -> Outcome {
    let documents = match &args.text_file {
        Some(path) => read_documents(path)?,
        None => Vec::new(),
    };
    if let Some(path) = &args.plot {
        check_file(path, 0)?;
    }
    let interrupt = Interrupt::listen();
    let engine = args.teacher.as_ref().map(|_| load::open_engine(common)).transpose()?;
    let model = load::model_on(engine.as_ref(), common, &|| interrupt.asked())?;
    let teacher = args.teacher.as_deref().map(|dir| Teacher::open(model.engine(), dir, common.quiet)).transpose()?;
    let text = match documents.is_empty() {
        true => None,
        false => Some(text((common, args), &model, teacher.as_ref(), &documents, &interrupt)?),
    };
    let suite = match args.suite {
        true => Some(suite(common, args, &model, teacher.as_ref(), &interrupt)?),
        false => None,
    };
    if let (Some(path), Some(suite)) = (&args.plot, &suite) {
        draw(path, suite, teacher.is_some())?;
    }
    if common.json {
        let suite = suite.as_deref().map(|lines| lines.iter().map(Line::to_json).collect::<Vec<_>>());
        return write_json(&json!({
            "text": text,
            "suite": suite,
            "complete": !interrupt.asked(),
            "adapter": model.engine().adapter().name,
        }));
    }
    if interrupt.asked() {
        note("interrupted", "the results cover the part that was measured");
    }
    if let Some(text) = &text {
        let number = |key: &str| text[key].as_f64().unwrap_or(f64::NAN);
        write(&format!(
            "bits per byte, joint      {:.4}\n\
             bits per byte, folded     {:.4}\n\
             bytes                     {}\n\
             bytes per patch           {:.3}\n",
            number("bits_per_byte_joint"),
            number("bits_per_byte_folded"),
            count(text["bytes"].as_u64().unwrap_or(0)),
            number("bytes_per_patch"),
        ))?;
        if let Some(teacher) = text["teacher_bits_per_byte"].as_f64() {
            write(&format!(
                "source model, bits/byte   {teacher:.4}\n\
                 as its tokenizer cuts     {:.2} % of the bytes\n",
                100.0 * number("boundary_accuracy"),
            ))?;
        }
    }
    suite.map_or(Ok(()), |suite| write(&table(&suite, teacher.is_some())))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn read_documents(path: &Path) -> Result<Vec<String>> {
    let name = path.display();
    let text = String::from_utf8(load::read_input(path)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        invalid(format!("{name}: expected UTF-8 text, found an invalid byte at offset {at}"))
    })?;
    let documents: Vec<String> = split_documents(&text, END_OF_TEXT).map(str::to_owned).collect();
    if documents.is_empty() {
        return Err(invalid(format!(
            "{name}: there is nothing to measure; give at least one byte of text besides separators"
        )));
    }
    Ok(documents)
}

/// The source model, and what is needed to run it.
struct Teacher {
    engine: Engine,
    source: SourceModel,
    tokenizer: SubwordTokenizer,
}

impl Teacher {
    fn open(engine: &Engine, dir: &Path, quiet: bool) -> Result<Self> {
        let source = SourceModel::open(dir, LocalSizes::BLOCKS_ONLY, None)?;
        source.warnings().iter().filter(|_| !quiet).for_each(|warning| note("warning", warning));
        let tokenizer = SubwordTokenizer::open(&dir.join("tokenizer.json"))?;
        let (subwords, rows) = (tokenizer.vocabulary().len(), source.vocabulary());
        if subwords > rows {
            return Err(invalid(format!(
                "{}: the tokenizer has {subwords} subwords but the model has {rows}; use the model's own tokenizer",
                dir.display()
            )));
        }
        Ok(Self { engine: engine.clone(), source, tokenizer })
    }

    /// The model for batches of `rows` texts of `tokens` subwords.
    fn model(&self, rows: usize, tokens: usize) -> Result<SubwordModel> {
        let options = SubwordOptions {
            rows,
            // Rows start where a binding may start.
            tokens: tokens.next_multiple_of(32),
            adam: AdamOptions::default(),
            schedule: Schedule { steps: 1, warmup: 0.0 },
            half_products: false,
            recompute: false,
            rate: 0.0,
        };
        let size = (self.source.vocabulary(), self.source.tied());
        block_on(SubwordModel::new(&self.engine, self.source.config(), size, options, &self.source, false))
    }

    /// Sum of -log p of a document's subwords after the first `given`, in nats.
    fn nats(&self, model: &mut SubwordModel, tokens: usize, ids: &[u32], given: usize) -> Result<f64> {
        let mut input = vec![self.tokenizer.eos()];
        input.extend(&ids[..ids.len() - 1]);
        input.resize(tokens, self.tokenizer.pad());
        let mut labels = ids.to_vec();
        labels[..given].fill(NO_LABEL);
        labels.resize(tokens, NO_LABEL);
        block_on(model.evaluate(&input, &labels)).map(|(nats, _)| nats)
    }

    /// Whether a subword ends at each byte of a text.
    fn cuts(&self, ids: &[u32]) -> Vec<bool> {
        let length = |&id: &u32| bytes_of(&self.tokenizer, id).map_or(0, |bytes| bytes.len());
        ids.iter().map(length).flat_map(|length| (1..=length).map(move |i| i == length)).collect()
    }

    /// Cost of each example's right answer, in nats.
    fn answer_nats(&self, examples: &[Example], asked: &dyn Fn() -> bool) -> Result<Vec<f64>> {
        let texts = examples.iter().map(|example| {
            let prompt = self.tokenizer.encode(&example.prompt)?;
            let answer = self.tokenizer.encode(&example.answer)?;
            Ok((prompt, answer))
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let tokens = texts.iter().map(|(prompt, answer)| prompt.len() + answer.len()).max().unwrap_or(1);
        let tokens = tokens.next_multiple_of(32);
        let mut model = self.model(1, tokens)?;
        let mut all = Vec::new();
        for (prompt, answer) in &texts {
            if asked() {
                break;
            }
            let ids: Vec<u32> = prompt.iter().chain(answer).copied().collect();
            all.push(self.nats(&mut model, tokens, &ids, prompt.len())?);
        }
        Ok(all)
    }

    /// Whether each example is answered correctly, with greedy decoding.
    fn answers(&self, examples: &[Example], asked: &dyn Fn() -> bool) -> Result<Vec<bool>> {
        let prompt = |example: &Example| {
            let mut ids = vec![self.tokenizer.eos()];
            ids.extend(self.tokenizer.encode(&example.prompt)?);
            Ok(ids)
        };
        let prompts = examples.iter().map(prompt).collect::<Result<Vec<_>>>()?;
        let longest = examples.iter().map(|example| example.answer.len()).max().unwrap_or(0) + SLACK;
        let tokens = prompts.iter().map(Vec::len).max().unwrap_or(0) + longest;
        let tokens = tokens.next_multiple_of(32);
        let mut model = self.model(AT_ONCE, tokens)?;
        let mut right = Vec::new();
        for (prompts, examples) in prompts.chunks(AT_ONCE).zip(examples.chunks(AT_ONCE)) {
            let mut texts: Vec<Vec<u32>> = prompts.to_vec();
            texts.resize(AT_ONCE, vec![self.tokenizer.eos()]);
            let mut answers: Vec<Vec<u8>> = vec![Vec::new(); examples.len()];
            for _ in 0..longest {
                let open = |answer: &[u8], example: &Example| {
                    !answer.contains(&b'\n') && answer.len() < example.answer.len() + SLACK
                };
                if asked() || !answers.iter().zip(examples).any(|(answer, example)| open(answer, example)) {
                    break;
                }
                let mut ids = Vec::with_capacity(AT_ONCE * tokens);
                for text in &texts {
                    ids.extend(text);
                    ids.resize(ids.len().next_multiple_of(tokens), self.tokenizer.pad());
                }
                let places: Vec<usize> = texts.iter().map(|text| text.len() - 1).collect();
                let logits = block_on(model.logits_at(&ids, &places))?;
                for (i, (answer, example)) in answers.iter_mut().zip(examples).enumerate() {
                    if !open(answer, example) || texts[i].len() + 1 >= tokens {
                        continue;
                    }
                    let subwords = &logits[i][..self.tokenizer.vocabulary().len()];
                    let best = (0..subwords.len()).max_by(|&a, &b| subwords[a].total_cmp(&subwords[b])).unwrap_or(0);
                    texts[i].push(best as u32);
                    match bytes_of(&self.tokenizer, best as u32) {
                        Some(bytes) => answer.extend(bytes),
                        // A special token ends the answer.
                        None => answer.push(b'\n'),
                    }
                }
            }
            right.extend(answers.iter().zip(examples).map(|(answer, example)| is_right(answer, example)));
        }
        Ok(right)
    }
}

/// The bytes of a subword; none for a special token.
fn bytes_of(tokenizer: &SubwordTokenizer, id: u32) -> Option<Vec<u8>> {
    let sequence = tokenizer.vocabulary().sequence(id)?;
    sequence.iter().map(|&id| id.checked_sub(BYTE_OFFSET.into()).and_then(|byte| u8::try_from(byte).ok())).collect()
}

/// Whether the first line is the right answer.
fn is_right(answer: &[u8], example: &Example) -> bool {
    let line = answer.split(|&byte| byte == b'\n').next().unwrap_or(answer);
    line == example.answer.trim_end_matches('\n').as_bytes()
}

/// Bits per byte over all documents.
fn text(
    (common, args): (&Common, &EvalArgs),
    model: &Model,
    teacher: Option<&Teacher>,
    documents: &[String],
    interrupt: &Interrupt,
) -> Result<Value> {
    let total: u64 = documents.iter().map(|text| text.len() as u64).sum();
    let mut progress = Progress::of_text("measuring", common);
    let (mut joint, mut folded, mut bytes, mut patches, mut nats) = (0.0, 0.0, 0u64, 0u64, 0.0);
    let (mut longest, mut measured, mut agreed) = (0, 0, 0u64);
    let ids = match teacher {
        Some(teacher) => documents.iter().map(|text| teacher.tokenizer.encode(text)).collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    let tokens = ids.iter().map(Vec::len).max().unwrap_or(1).next_multiple_of(32);
    let mut subword = teacher.map(|teacher| teacher.model(1, tokens)).transpose()?;
    let cancel = CancelToken::default();
    interrupt.stops(cancel.clone());
    let options = ScoreOptions::default().cancel(cancel);
    for (i, text) in documents.iter().enumerate() {
        if interrupt.asked() {
            break;
        }
        let score = match args.boundary_bias {
            Some(bias) => decided_by_head(model, text.as_bytes(), bias, interrupt).and_then(|ends| {
                block_on(model.score_text(text.as_bytes(), &options.clone().boundaries(ends), &mut |_, _| {}))
            }),
            None => block_on(model.score_text(text.as_bytes(), &options, &mut |_, _| {})),
        };
        let score = match score {
            Err(error) if error.kind() == ErrorKind::Cancelled => break,
            score => score?,
        };
        joint += score.log_likelihood_joint;
        folded += score.log_likelihood_marginal;
        bytes += score.bytes as u64;
        patches += score.patches as u64;
        longest = longest.max(score.patches);
        measured += 1;
        if let (Some(teacher), Some(model)) = (teacher, &mut subword) {
            nats += teacher.nats(model, tokens, &ids[i], 0)?;
            let cuts = teacher.cuts(&ids[i]);
            agreed += score.boundaries.iter().zip(cuts).filter(|&(&end, cut)| end == cut).count() as u64;
        }
        progress.update(bytes, total);
    }
    drop(progress);
    load::note_length(common, model, longest);
    let per_byte = |nats: f64| nats / std::f64::consts::LN_2 / bytes.max(1) as f64;
    Ok(json!({
        "bits_per_byte_joint": per_byte(-joint),
        "bits_per_byte_folded": per_byte(-folded),
        "teacher_bits_per_byte": teacher.map(|_| per_byte(nats)),
        "boundary_accuracy": teacher.map(|_| agreed as f64 / bytes.max(1) as f64),
        "bytes": bytes,
        "patches": patches,
        "bytes_per_patch": bytes as f64 / patches.max(1) as f64,
        "documents": measured,
    }))
}

/// Where patches end in a text if the head decides, as in generation: an id and its fused id compete, the fused one
/// with `bias` added.
fn decided_by_head(model: &Model, text: &[u8], bias: f32, interrupt: &Interrupt) -> Result<Vec<bool>> {
    let mut session = block_on(Session::new(model))?;
    block_on(session.append_bos())?;
    let mut ends = Vec::with_capacity(text.len());
    for &byte in text {
        if interrupt.asked() {
            return Err(Error::new(ErrorKind::Cancelled, "the evaluation was cancelled"));
        }
        let logits = block_on(session.logits(bias))?;
        let id = u16::from(byte) + u16::from(BYTE_OFFSET);
        let end = logits[usize::from(id + FUSED_OFFSET)] + bias > logits[usize::from(id)];
        block_on(session.push(if end { id + FUSED_OFFSET } else { id }))?;
        ends.push(end);
    }
    Ok(ends)
}

/// Results of one kind of question.
struct Line {
    task: &'static str,
    level: &'static str,
    asked: usize,
    /// Bytes of the right answers.
    bytes: usize,
    model: Answers,
    teacher: Option<Answers>,
}

/// Results of one model on questions of one kind.
#[derive(Clone, Copy, Default)]
struct Answers {
    right: usize,
    /// Cost of the right answers.
    nats: f64,
}

impl Answers {
    fn of(one: &[(bool, f64)], chosen: impl Fn(usize) -> bool) -> Self {
        let mut all = Self::default();
        for (_, &(right, nats)) in one.iter().enumerate().filter(|(i, _)| chosen(*i)) {
            all.right += usize::from(right);
            all.nats += nats;
        }
        all
    }
}

impl Line {
    fn share(&self, answers: Answers) -> f64 {
        answers.right as f64 / self.asked.max(1) as f64
    }

    /// Bits per byte of the right answers. They show what a model has learned before it gets a whole answer right.
    fn bits(&self, answers: Answers) -> f64 {
        answers.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({
            "task": self.task,
            "level": self.level,
            "examples": self.asked,
            "accuracy": self.share(self.model),
            "teacher_accuracy": self.teacher.map(|answers| self.share(answers)),
            "answer_bits_per_byte": self.bits(self.model),
            "teacher_answer_bits_per_byte": self.teacher.map(|answers| self.bits(answers)),
        })
    }
}

fn suite(
    common: &Common,
    args: &EvalArgs,
    model: &Model,
    teacher: Option<&Teacher>,
    interrupt: &Interrupt,
) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    let total: usize = Task::ALL.iter().map(|task| args.examples * task.levels().len()).sum();
    let mut progress = Progress::of_text("asking", common);
    let mut done = 0;
    for task in Task::ALL {
        let all = examples(task, Split::Test, args.examples * task.levels().len(), args.shots, args.seed);
        let mut own = Vec::new();
        for example in &all {
            if interrupt.asked() {
                break;
            }
            own.push((answer(model, example, args.boundary_bias)?, answer_nats(model, example)?));
            done += 1;
            progress.update(done, total as u64);
        }
        let asked = || interrupt.asked();
        let teachers = match teacher {
            Some(teacher) => {
                let right = teacher.answers(&all, &asked)?;
                let nats = teacher.answer_nats(&all, &asked)?;
                Some(right.into_iter().zip(nats).collect::<Vec<_>>())
            }
            None => None,
        };
        // A task that was interrupted is left out.
        if interrupt.asked() {
            break;
        }
        for &level in task.levels() {
            let chosen = |i: usize| all[i].level == level;
            let of_level = all.iter().filter(|example| example.level == level);
            lines.push(Line {
                task: task.name(),
                level: level.name(),
                asked: of_level.clone().count(),
                bytes: of_level.map(|example| example.answer.len()).sum(),
                model: Answers::of(&own, chosen),
                teacher: teachers.as_deref().map(|one| Answers::of(one, chosen)),
            });
        }
    }
    let sum = |of: &dyn Fn(&Line) -> Answers| {
        let add = |all: Answers, one: Answers| Answers { right: all.right + one.right, nats: all.nats + one.nats };
        lines.iter().map(of).fold(Answers::default(), add)
    };
    let (asked, bytes) = lines.iter().fold((0, 0), |(asked, bytes), line| (asked + line.asked, bytes + line.bytes));
    let all = sum(&|line| line.model);
    let teachers = teacher.map(|_| sum(&|line| line.teacher.unwrap_or_default()));
    lines.push(Line { task: "all", level: "", asked, bytes, model: all, teacher: teachers });
    Ok(lines)
}

/// Cost of the right answer, in nats.
fn answer_nats(model: &Model, example: &Example) -> Result<f64> {
    let text = [example.prompt.as_bytes(), example.answer.as_bytes()].concat();
    let score = block_on(model.score_text(&text, &ScoreOptions::default(), &mut |_, _| {}))?;
    Ok(-score.log_likelihoods[example.prompt.len()..].iter().sum::<f64>())
}

/// Whether the model answers an example correctly, with greedy decoding.
fn answer(model: &Model, example: &Example, boundary_bias: Option<f32>) -> Result<bool> {
    let mut options = GenerateOptions::default();
    options.sampling.boundary_bias = boundary_bias.unwrap_or_default();
    options.max_bytes = example.answer.len() + SLACK;
    options.stops = vec![b"\n".to_vec()];
    let mut session = block_on(Session::new(model))?;
    block_on(session.append_bos())?;
    block_on(session.append(example.prompt.as_bytes()))?;
    let mut text = Vec::new();
    block_on(session.generate(&options, &mut |piece| {
        text.extend_from_slice(piece.bytes);
        ControlFlow::Continue(())
    }))?;
    Ok(is_right(&text, example))
}

fn table(lines: &[Line], teacher: bool) -> String {
    let row = |cells: [String; 7]| {
        let [task, level, examples, right, teachers, bits, teachers_bits] = cells;
        let mut text = format!("{task:16}{level:12}{examples:>9}{right:>9}");
        if teacher {
            text += &format!("{teachers:>14}");
        }
        text += &format!("{bits:>20}");
        if teacher {
            text += &format!("{teachers_bits:>14}");
        }
        text + "\n"
    };
    let heads = ["task", "level", "examples", "right", "source model", "answer, bits/byte", "source model"];
    let mut text = row(heads.map(str::to_owned));
    for line in lines {
        let share = |answers: Answers| format!("{:.1}%", 100.0 * line.share(answers));
        let bits = |answers: Answers| format!("{:.3}", line.bits(answers));
        text += &row([
            line.task.to_owned(),
            line.level.to_owned(),
            line.asked.to_string(),
            share(line.model),
            line.teacher.map(share).unwrap_or_default(),
            bits(line.model),
            line.teacher.map(bits).unwrap_or_default(),
        ]);
    }
    text
}

fn draw(path: &Path, lines: &[Line], teacher: bool) -> Result<()> {
    let mut names = vec!["byte-level model".to_owned()];
    if teacher {
        names.push("source model".to_owned());
    }
    let of = |line: &Line| {
        let name = if line.level.is_empty() { line.task.to_owned() } else { format!("{}, {}", line.task, line.level) };
        let mut values = vec![line.share(line.model)];
        values.extend(line.teacher.map(|answers| line.share(answers)));
        (name, values)
    };
    let table = Table {
        row_name: "task".to_owned(),
        value_name: "share of right answers".to_owned(),
        names,
        rows: TableRows::Bars(lines.iter().map(of).collect()),
    };
    let options = TableOptions { title: "Questions about characters".to_owned(), ..TableOptions::default() };
    let failed = |e: bolmo_metrics::Error| Error::new(ErrorKind::Io, e.to_string());
    write_svg(path, &bars_or_lines(&table, &options).map_err(failed)?).map_err(failed)
}
