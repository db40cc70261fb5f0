//! Checks of a configuration before anything is opened: values, what several keys must have in common, what a kind of
//! training needs, and the files that are named.

use std::path::Path;

use bolmo_runtime::{Error, Result};

use super::config::{BatchConfig, RunConfig};
use super::data::Texts;
use super::keys::check_table;
use super::kind::Kind;

/// Maximum number of subwords, and of bytes, of a batch.
const BATCH: usize = 65535;
/// Maximum number of subwords of a step, which are read at once.
const STEP: usize = 1 << 28;
/// Maximum width of an attention head.
const HEAD: usize = 128;
/// Maximum number of bytes of an example.
const EXAMPLE: usize = 59968;

impl RunConfig {
    /// Checks the configuration for a kind of training, and that the files and folders that it names exist. `texts` are
    /// added to the files.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound` and `Io`. The message names the key, what was expected, and what was found.
    pub fn check(&self, kind: Kind, texts: &Texts<'_>) -> Result<()> {
        let data = &self.data;
        // A seed may have 64 bits, a number in TOML has 63.
        let plain = Self { seed: 0, ..self.clone() };
        let table = toml::Table::try_from(&plain)
            .map_err(|e| Error::invalid(format!("the configuration cannot be written as TOML: {e}")))?;
        check_table(&table)?;
        if data.train.is_empty() && texts.train.is_empty() {
            return Err(Error::invalid("there is nothing to train on; name files with `data.train`"));
        }
        if data.held_out_share == 0.0 && data.held_out.is_empty() && texts.held_out.is_empty() {
            return Err(Error::invalid(
                "no text is held out for evaluation; name files with `data.held_out`, or set `data.held_out_share` \
                 above 0",
            ));
        }
        if data.separator.contains(['\n', '\r']) {
            return Err(Error::invalid(format!("`data.separator` must be a single line, found {:?}", data.separator)));
        }
        self.check_model(kind)?;
        self.check_batch(kind)?;
        if self.compression.is_some() && kind != Kind::Stage2 {
            return Err(Error::invalid(
                "`compression` applies only to stage 2; remove it, since other runs use the tokenizer's own subwords",
            ));
        }
        if let Some(compression) = &self.compression
            && compression.kind.needs_entropies()
            && compression.entropies.is_none()
        {
            return Err(Error::invalid(
                "`compression.kind` needs a small subword model that provides entropies; name its folder with \
                 `compression.entropies`",
            ));
        }
        self.check_paths(kind)
    }

    /// Checks that the model is given, and once.
    fn check_model(&self, kind: Kind) -> Result<()> {
        let (model, data) = (&self.model, &self.data);
        match kind {
            Kind::Subword if model.new.is_some() == model.source.is_some() => {
                let found = if model.new.is_some() { "both" } else { "neither" };
                return Err(Error::invalid(format!(
                    "a subword run needs exactly one model, found {found}; give either `model.new`, the sizes of a \
                     new model, or `model.source`, the folder of a model to continue from"
                )));
            }
            Kind::Subword if model.new.is_some() && data.tokenizer.is_none() => {
                return Err(Error::invalid(
                    "a new model has no tokenizer of its own; name the folder of one with `data.tokenizer`",
                ));
            }
            Kind::Stage1 if model.source.is_none() => {
                return Err(Error::invalid(
                    "stage 1 has no teacher; name the folder of a subword model with `model.source`",
                ));
            }
            Kind::Stage2 if model.student.is_none() => {
                return Err(Error::invalid(
                    "stage 2 has no student; name the folder of a byte-level model with `model.student`",
                ));
            }
            _ => {}
        }
        if let Some(new) = model.new.filter(|_| kind == Kind::Subword)
            && (!new.hidden_size.is_multiple_of(4 * new.heads) || new.hidden_size / new.heads > HEAD)
        {
            return Err(Error::invalid(format!(
                "`model.new.hidden_size` divided by `model.new.heads` must be a multiple of 4 and at most {HEAD}, \
                 found {} and {}; change one of them",
                new.hidden_size, new.heads
            )));
        }
        for (key, size) in [
            ("model.new", model.new.map(|new| new.intermediate_size)),
            ("model.local", model.local.map(|local| local.intermediate_size)),
        ] {
            if let Some(size) = size.filter(|size| !size.is_multiple_of(4)) {
                return Err(Error::invalid(format!("`{key}.intermediate_size` must be a multiple of 4, found {size}")));
            }
        }
        if let Some(local) = model.local.filter(|_| kind == Kind::Stage1)
            && !local.heads.is_multiple_of(2)
        {
            return Err(Error::invalid(format!("`model.local.heads` must be an even number, found {}", local.heads)));
        }
        Ok(())
    }

    /// Checks the products of the sizes of a batch.
    fn check_batch(&self, kind: Kind) -> Result<()> {
        let BatchConfig { rows, subwords, bytes_per_subword, accumulate, .. } = self.batch;
        let refuse = |what: String| Err(Error::invalid(what));
        let patches = rows.saturating_mul(subwords);
        if !patches.is_multiple_of(4) || patches > BATCH {
            return refuse(format!(
                "`batch.rows` times `batch.subwords` must be a multiple of 4 and at most {BATCH}, found {rows} times \
                 {subwords}; for larger steps raise `batch.accumulate`"
            ));
        }
        if patches.saturating_mul(accumulate) > STEP {
            return refuse(format!(
                "a step must have at most {STEP} subwords, found `batch.rows` = {rows}, `batch.subwords` = \
                 {subwords} and `batch.accumulate` = {accumulate}; lower one of them"
            ));
        }
        if kind == Kind::Subword {
            return Ok(());
        }
        let bytes = subwords.saturating_mul(bytes_per_subword).div_ceil(64).saturating_mul(64);
        if bytes > EXAMPLE || rows.saturating_mul(bytes) > BATCH {
            return refuse(format!(
                "an example must have at most {EXAMPLE} bytes and a batch at most {BATCH}, found {bytes} bytes, \
                 `batch.subwords` times `batch.bytes_per_subword`, in each of {rows} examples; lower `batch.rows` and \
                 raise `batch.accumulate`, or lower `batch.subwords`"
            ));
        }
        Ok(())
    }

    /// Checks that the files and folders exist.
    fn check_paths(&self, kind: Kind) -> Result<()> {
        let model = &self.model;
        if self.out.exists() && !self.out.is_dir() {
            return Err(Error::io(format!("`out`: {}: is a file; name a folder", self.out.display())));
        }
        let source = model.source.as_ref().filter(|_| kind != Kind::Stage2);
        let student = model.student.as_ref().filter(|_| kind != Kind::Subword);
        let entropies = self.compression.as_ref().and_then(|compression| compression.entropies.as_ref());
        for (key, path, holds) in [
            ("model.source", source, "a subword model"),
            ("model.student", student, "a byte-level model"),
            ("compression.entropies", entropies, "a subword model"),
        ] {
            if let Some(path) = path {
                check_folder(key, path, holds)?;
            }
        }
        if let Some(path) = &self.data.tokenizer
            && !path.exists()
        {
            return Err(Error::not_found(format!(
                "`data.tokenizer`: {}: does not exist; name a tokenizer.json or the folder of one",
                path.display()
            )));
        }
        for (key, paths) in [("data.train", &self.data.train), ("data.held_out", &self.data.held_out)] {
            paths.iter().try_for_each(|path| check_file(key, path))?;
        }
        Ok(())
    }
}

fn check_folder(key: &str, path: &Path, holds: &str) -> Result<()> {
    let problem = |what: &str| format!("`{key}`: {}: {what}; name the folder of {holds}", path.display());
    match path.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found(problem("there is no such folder"))),
        Err(e) => Err(Error::io(problem(&format!("cannot be examined: {e}")))),
        Ok(metadata) if !metadata.is_dir() => Err(Error::invalid(problem("is not a folder"))),
        Ok(_) if !path.join("config.json").exists() => Err(Error::not_found(problem("has no config.json"))),
        Ok(_) => Ok(()),
    }
}

fn check_file(key: &str, path: &Path) -> Result<()> {
    let problem =
        |what: &str| format!("`{key}`: {}: {what}; name a text file or an .npy file of subword ids", path.display());
    match path.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found(problem("there is no such file"))),
        Err(e) => Err(Error::io(problem(&format!("cannot be examined: {e}")))),
        // Reading a pipe would wait for a writer, and a run reads its files again when it resumes.
        Ok(metadata) if !metadata.is_file() => Err(Error::invalid(problem("is not a regular file"))),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bolmo_runtime::ErrorKind;

    use super::super::config::{CompressionConfig, LocalConfig, NewModel};
    use super::*;
    use crate::data::CompressionKind;

    /// A folder with all that a configuration names.
    fn place() -> (tempfile::TempDir, RunConfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("model")).unwrap();
        std::fs::write(dir.path().join("model/config.json"), "{}").unwrap();
        std::fs::create_dir(dir.path().join("bare")).unwrap();
        std::fs::write(dir.path().join("text.txt"), "text").unwrap();
        let mut config = RunConfig::new(dir.path().join("out"), 1, 0.1);
        config.data.train = vec![dir.path().join("text.txt")];
        config.data.tokenizer = Some(dir.path().join("model"));
        config.model.new = Some(NewModel { hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64 });
        (dir, config)
    }

    #[test]
    fn each_kind_names_the_model_that_it_needs() {
        let (dir, new) = place();
        let model = Some(dir.path().join("model"));
        new.check(Kind::Subword, &Texts::default()).unwrap();
        let refused = |kind, config: &RunConfig| config.check(kind, &Texts::default()).unwrap_err().to_string();
        assert!(refused(Kind::Stage1, &new).contains("`model.source`"));
        assert!(refused(Kind::Stage2, &new).contains("`model.student`"));
        let mut both = new.clone();
        both.model.source = model.clone();
        assert!(refused(Kind::Subword, &both).contains("found both"));
        both.check(Kind::Stage1, &Texts::default()).unwrap();
        let mut neither = new.clone();
        neither.model.new = None;
        assert!(refused(Kind::Subword, &neither).contains("found neither"));
        let mut without_tokenizer = new.clone();
        without_tokenizer.data.tokenizer = None;
        assert!(refused(Kind::Subword, &without_tokenizer).contains("`data.tokenizer`"));
        let mut stage2 = new.clone();
        stage2.model.student = model;
        stage2.check(Kind::Stage2, &Texts::default()).unwrap();
        stage2.compression =
            Some(CompressionConfig { kind: CompressionKind::Entropy, target: 4.0, steps: None, entropies: None });
        assert!(refused(Kind::Stage2, &stage2).contains("`compression.entropies`"));
        stage2.model.source = stage2.model.student.clone();
        assert!(refused(Kind::Stage1, &stage2).contains("stage 2"));
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_named() {
        let (dir, config) = place();
        let refused = |kind, change: &dyn Fn(&mut RunConfig)| {
            let mut config = config.clone();
            config.model.source = (kind == Kind::Stage1).then(|| dir.path().join("model"));
            change(&mut config);
            let error = config.check(kind, &Texts::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            error.to_string()
        };
        type Case = (Kind, fn(&mut RunConfig), &'static str);
        let cases: [Case; 14] = [
            (Kind::Subword, |c| c.batch.subwords = 1, "`batch.subwords` must be a whole number from 2 to 65535"),
            (
                Kind::Subword,
                |c| (c.batch.rows, c.batch.subwords) = (1, 30),
                "multiple of 4 and at most 65535, found 1 times 30",
            ),
            (Kind::Subword, |c| (c.batch.rows, c.batch.subwords) = (65535, 65535), "found 65535 times 65535"),
            (Kind::Subword, |c| (c.batch.rows, c.batch.accumulate) = (500, 1 << 20), "`batch.accumulate` = 1048576"),
            (Kind::Stage1, |c| c.batch.rows = 100, "in each of 100 examples"),
            (Kind::Stage1, |c| c.batch.bytes_per_subword = 65535, "`batch.subwords` times `batch.bytes_per_subword`"),
            (
                Kind::Subword,
                |c| c.model.new.as_mut().unwrap().heads = 5,
                "`model.new.hidden_size` divided by `model.new.heads`",
            ),
            (
                Kind::Stage1,
                |c| {
                    let (encoder_layers, decoder_layers, heads, intermediate_size) = (1, 1, 3, 32);
                    c.model.local = Some(LocalConfig { encoder_layers, decoder_layers, heads, intermediate_size });
                },
                "`model.local.heads` must be an even number, found 3",
            ),
            (Kind::Subword, |c| c.model.new.as_mut().unwrap().heads = 16, "found 32 and 16"),
            (Kind::Subword, |c| c.model.new.as_mut().unwrap().hidden_size = 1024, "at most 128, found 1024 and 2"),
            (
                Kind::Subword,
                |c| c.model.new.as_mut().unwrap().intermediate_size = 33,
                "`model.new.intermediate_size` must be a multiple of 4, found 33",
            ),
            (Kind::Subword, |c| c.data.separator = "a\nb".to_owned(), "`data.separator`"),
            (Kind::Subword, |c| c.data.held_out_share = 0.0, "`data.held_out`"),
            (
                Kind::Subword,
                |c| c.optimizer.rate = f64::NAN,
                "`optimiser.rate` must be a finite number of at least 0, found NaN",
            ),
        ];
        for (kind, change, says) in cases {
            let message = refused(kind, &change);
            assert!(message.contains(says) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn paths_are_named_with_their_key() {
        let (dir, config) = place();
        let path = |name: &str| dir.path().join(name);
        type Set = fn(&mut RunConfig, std::path::PathBuf);
        let folders: [(&str, Kind, Set); 3] = [
            ("model.source", Kind::Stage1, |c, path| c.model.source = Some(path)),
            ("model.student", Kind::Stage2, |c, path| c.model.student = Some(path)),
            ("compression.entropies", Kind::Stage2, |c, path| {
                let compression = CompressionConfig {
                    kind: CompressionKind::Entropy,
                    target: 4.0,
                    steps: None,
                    entropies: Some(path),
                };
                c.compression = Some(compression);
            }),
        ];
        let files: [(&str, Set); 2] = [
            ("data.train", |c, path| c.data.train = vec![path]),
            ("data.held_out", |c, path| c.data.held_out = vec![path]),
        ];
        let refused = |key: &str, kind: Kind, name: &str, set: Set, expected: ErrorKind, says: &str| {
            let mut config = config.clone();
            if kind != Kind::Subword {
                (config.model.source, config.model.student) = (Some(path("model")), Some(path("model")));
            }
            set(&mut config, path(name));
            let error = config.check(kind, &Texts::default()).unwrap_err();
            let start = format!("`{key}`: {}: ", path(name).display());
            assert!(error.message().starts_with(&start) && error.message().contains(says), "{error}");
            assert_eq!(error.kind(), expected, "{error}");
        };
        for (key, kind, set) in folders {
            refused(key, kind, "nowhere", set, ErrorKind::NotFound, "there is no such folder");
            refused(key, kind, "text.txt", set, ErrorKind::InvalidArgument, "is not a folder");
            refused(key, kind, "bare", set, ErrorKind::NotFound, "has no config.json");
        }
        for (key, set) in files {
            refused(key, Kind::Subword, "nowhere", set, ErrorKind::NotFound, "there is no such file");
            refused(key, Kind::Subword, "bare", set, ErrorKind::InvalidArgument, "is not a regular file");
        }
        let tokenizer: Set = |c, path| c.data.tokenizer = Some(path);
        refused("data.tokenizer", Kind::Subword, "nowhere", tokenizer, ErrorKind::NotFound, "does not exist");
        refused("out", Kind::Subword, "text.txt", |c, path| c.out = path, ErrorKind::Io, "is a file");
    }
}
