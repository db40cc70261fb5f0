//! Reading a configuration from TOML.

use std::path::Path;

use bolmo_runtime::files::read_file;
use bolmo_runtime::{Error, Result};

use super::config::RunConfig;
use super::keys::check_table;

/// Maximum length of the file.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl RunConfig {
    /// Reads a TOML file. `overrides` are `key=value` pairs with dotted keys, as in `optimiser.steps=100`. Paths are
    /// relative to the current folder.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` that names the wrong key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = read_file(path, MAX_FILE_BYTES)?
            .ok_or_else(|| Error::not_found(format!("{}: does not exist; check the path", path.display())))?;
        let text = String::from_utf8(text).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::io(format!("{}: expected text in UTF-8, found an invalid byte at offset {at}", path.display()))
        })?;
        Self::parse(&text, overrides).map_err(|e| e.context(path.display()))
    }

    /// Parses a configuration from a text. [`Self::check`] checks the rest: what depends on several keys, on the kind
    /// of training and on files.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        // Some editors on Windows write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut table = text.parse::<toml::Table>().map_err(|e| syntax_error(text, &e))?;
        for pair in overrides {
            set(&mut table, pair)?;
        }
        check_table(&table)?;
        table.try_into().map_err(|e: toml::de::Error| Error::invalid(e.to_string().trim_end().replace('\n', " ")))
    }
}

/// Sets a key of a table to the value in `key=value`.
fn set(table: &mut toml::Table, pair: &str) -> Result<()> {
    let refuse = |why: &str| Error::invalid(format!("{pair:?}: {why}"));
    let (key, value) = pair.split_once('=').ok_or_else(|| refuse("an override must have the form key=value"))?;
    if key.split('.').any(|part| part.trim().is_empty()) {
        return Err(refuse("the key is empty; an override must have the form key=value"));
    }
    // A value that is not valid TOML is a string, so that paths need no quotes.
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = table;
    for part in sections.split('.').filter(|part| !part.is_empty()) {
        let entry = place.entry(part.trim()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = entry.as_table_mut().ok_or_else(|| refuse("the key before the last dot is not a table"))?;
    }
    place.insert(name.trim().to_owned(), value);
    Ok(())
}

/// The error of a text that is not TOML, with its place.
fn syntax_error(text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = error.message().trim_end().replace('\n', "; ");
    Error::invalid(format!("line {line}, column {column} is not valid TOML: {message}"))
}

#[cfg(test)]
mod tests {
    use super::super::config::{BatchConfig, CompressionConfig};
    use super::*;
    use crate::data::CompressionKind;

    const TEXT: &str = "out = \"o\"\n[model]\n[data]\ntrain = [\"a.txt\"]\n[optimiser]\nsteps = 10\nrate = 1e-3\n";

    #[test]
    fn overrides_replace_and_add_keys() {
        let overrides = ["optimiser.steps=20", "batch.rows = 3", "model.source=some/dir"].map(str::to_owned);
        let config = RunConfig::parse(TEXT, &overrides).unwrap();
        assert_eq!((config.optimizer.steps, config.batch.rows), (20, 3));
        assert_eq!(config.model.source, Some("some/dir".into()));
        assert_eq!(config.batch.subwords, BatchConfig::default().subwords);
        let config = RunConfig::parse(TEXT, &["compression.target=4.5".to_owned()]).unwrap();
        let wanted = CompressionConfig { kind: CompressionKind::Bpe, target: 4.5, steps: None, entropies: None };
        assert_eq!(config.compression, Some(wanted));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, overrides, named) in [
            ("out = 1", vec![], "out"),
            (TEXT, vec!["optimiser.stpes=3"], "stpes"),
            (TEXT, vec!["optimiser.steps=0"], "steps"),
            (TEXT, vec!["out.x=0"], "out.x"),
            (TEXT, vec!["nothing"], "key=value"),
            (TEXT, vec!["optimiser.beta1=1.5"], "beta1"),
        ] {
            let overrides: Vec<String> = overrides.into_iter().map(str::to_owned).collect();
            let error = RunConfig::parse(text, &overrides).unwrap_err();
            assert!(error.message().contains(named) && !error.message().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_key() {
        let marked = RunConfig::parse(&format!("\u{feff}{TEXT}"), &[]).unwrap();
        assert_eq!(marked, RunConfig::parse(TEXT, &[]).unwrap());
    }
}
