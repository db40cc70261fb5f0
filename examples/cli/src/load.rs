//! Opens the checkpoint, the vocabulary and the model that the common options name; reads files that users name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bolmo_runtime::files::{MemoryFile, exists_or_is_link, read_file};
use bolmo_runtime::{
    AdapterChoice, Checkpoint, Engine, EngineOptions, Error, ErrorKind, LoadOptions, Model, Result, Vocabulary,
    block_on,
};

use crate::args::Common;
use crate::environment::{kernel_cache, tiles};
use crate::output::note;
use crate::progress::Progress;

/// The demo model, which is built into the command.
mod demo {
    pub const NAME: &str = "the built-in demo model";
    pub const CONFIG: &[u8] = include_bytes!("../../demo-model/config.json");
    pub const WEIGHTS: &[u8] = include_bytes!("../../demo-model/model.safetensors");
    pub const TOKENIZER: &[u8] = include_bytes!("../../demo-model/tokenizer.json");
    pub const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../demo-model/tokenizer_config.json");
}

/// Published folders describe here how their model generates. Nothing in this command reads it.
const GENERATION_CONFIG: &str = "generation_config.json";
/// Larger prompts, texts and lists are rejected: they are mistakes, such as a device file.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// Opens the checkpoint of the options. Weights are not read yet.
pub fn checkpoint(common: &Common) -> Result<Checkpoint> {
    let mut checkpoint = match &common.model {
        Some(dir) => Checkpoint::open(dir)?,
        None => {
            let weights = MemoryFile::new(format!("{}/model.safetensors", demo::NAME), demo::WEIGHTS);
            Checkpoint::from_parts(demo::NAME, demo::CONFIG, vec![Box::new(weights)])?
        }
    };
    if let Some(theta) = common.rope_theta {
        checkpoint.override_rope_theta(theta)?;
    }
    if let Some(scaling) = common.rope_scaling {
        checkpoint.override_rope_scaling(scaling)?;
    }
    Ok(checkpoint)
}

/// The model's vocabulary: the file of --subwords, else the checkpoint's own, else none.
pub fn vocabulary(common: &Common) -> Result<Option<Vocabulary>> {
    if let Some(path) = &common.subwords {
        return if path.is_dir() {
            Vocabulary::open(path.join("tokenizer.json")).map(Some)
        } else {
            Vocabulary::open(path).map(Some)
        };
    }
    match &common.model {
        None => Vocabulary::from_json(demo::TOKENIZER, Some(demo::TOKENIZER_CONFIG), demo::NAME).map(Some),
        Some(dir) => {
            let path = dir.join("tokenizer.json");
            if exists_or_is_link(&path) { Vocabulary::open(&path).map(Some) } else { Ok(None) }
        }
    }
}

/// Files besides configuration and weights that complete a folder, by name: the tokenizer's, and the generation
/// settings.
pub fn companions(common: &Common) -> Result<Vec<(String, Vec<u8>)>> {
    const TOKENIZER: &str = "tokenizer.json";
    const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut take = |name: &'static str, path: &Path| -> Result<()> {
        files.extend(read_file(path, Vocabulary::LIMITS.bytes as u64)?.map(|contents| (name, contents)));
        Ok(())
    };
    match (&common.subwords, &common.model) {
        (Some(path), model) => {
            let file = if path.is_dir() { path.join(TOKENIZER) } else { path.clone() };
            // A file named on the command line must exist and be a vocabulary.
            Vocabulary::open(&file)?;
            take(TOKENIZER, &file)?;
            take(TOKENIZER_CONFIG, &file.with_file_name(TOKENIZER_CONFIG))?;
            if let Some(dir) = model {
                take(GENERATION_CONFIG, &dir.join(GENERATION_CONFIG))?;
            }
        }
        (None, Some(dir)) => {
            for name in [TOKENIZER, TOKENIZER_CONFIG, GENERATION_CONFIG] {
                take(name, &dir.join(name))?;
            }
        }
        (None, None) => {
            files = vec![(TOKENIZER, demo::TOKENIZER.to_vec()), (TOKENIZER_CONFIG, demo::TOKENIZER_CONFIG.to_vec())];
        }
    }
    Ok(files.into_iter().map(|(name, contents)| (name.to_owned(), contents)).collect())
}

/// Opens the adapter and loads the model. `stop` is asked regularly whether to give up.
pub fn model(common: &Common, stop: &(dyn Fn() -> bool + Sync)) -> Result<Model> {
    model_on(None, common, stop)
}

/// Opens the adapter of the options.
pub fn open_engine(common: &Common) -> Result<Engine> {
    let mut options = EngineOptions::default();
    options.adapter = AdapterChoice::parse(&common.adapter);
    options.threads = common.threads;
    options.products = common.products;
    options.kernel_cache = kernel_cache();
    options.tiles = tiles()?;
    block_on(Engine::open(&options))
}

/// Loads the model on an open adapter, or opens one.
pub fn model_on(engine: Option<&Engine>, common: &Common, stop: &(dyn Fn() -> bool + Sync)) -> Result<Model> {
    let mut options = LoadOptions::default();
    options.formats = common.quantize;
    let checkpoint = checkpoint(common)?;
    if checkpoint.config().add_expanded_embeddings {
        options.vocabulary = vocabulary(common)?;
    } else if common.subwords.is_some() && !common.quiet {
        note("warning", &format!("{}: the model has no suffix table, so --subwords is ignored", checkpoint.origin()));
    }
    let engine = match engine {
        Some(engine) => engine.clone(),
        None => open_engine(common)?,
    };
    let mut progress = Progress::of_weights("loading", common);
    let model = block_on(Model::load_with_progress(&engine, &checkpoint, options, &mut |done, total| {
        progress.update(done, total);
        !stop()
    }))?;
    drop(progress);
    if !common.quiet {
        for warning in model.warnings() {
            note("warning", warning);
        }
    }
    Ok(model)
}

/// Warns if a text is longer than those that the model was trained with.
pub fn note_length(common: &Common, model: &Model, patches: usize) {
    if let Some(warning) = length_warning(common, model, patches) {
        note("warning", &warning);
    }
}

/// The warning that a text is longer than the trained context, unless warnings are off.
pub fn length_warning(common: &Common, model: &Model, patches: usize) -> Option<String> {
    model.config().beyond_context(patches).filter(|_| !common.quiet)
}

/// The contents of a file that the user named; `-` is standard input.
pub fn read_input(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_INPUT_BYTES)
}

/// The contents of a file that the user named, of at most `max_bytes`.
pub fn read_at_most(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let name = if is_stdin(path) { "standard input".into() } else { path.display().to_string() };
    let failed = |what: &str, error: std::io::Error| {
        use std::io::ErrorKind as Io;
        let (kind, message) = match error.kind() {
            Io::NotFound => (ErrorKind::NotFound, "the file does not exist; check the path".to_owned()),
            Io::IsADirectory => (ErrorKind::Io, "is a folder; give the name of a file".to_owned()),
            _ => (ErrorKind::Io, format!("cannot be {what}: {error}")),
        };
        Error::new(kind, format!("{name}: {message}"))
    };
    let mut bytes = Vec::new();
    if is_stdin(path) {
        std::io::stdin().lock().take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| failed("read", e))?;
    } else {
        let file = File::open(path).map_err(|e| failed("opened", e))?;
        file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| failed("read", e))?;
    }
    if bytes.len() as u64 > max_bytes {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{name}: longer than the maximum of {max_bytes} bytes; give a part of it"),
        ));
    }
    Ok(bytes)
}

/// Whether a name stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
