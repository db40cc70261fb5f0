//! The source model's subword vocabulary, as sequences of plain ids.
//!
//! It tells which byte strings have a row in the suffix table. Nothing is tokenized here.

use std::collections::BTreeMap;
#[cfg(not(target_family = "wasm"))]
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::byte_alphabet::byte_of;
use crate::text::ids::{BYTE_OFFSET, END_ID, PAD_ID, SPECIAL_NAMES, byte_to_id};

/// Maximum length of a `tokenizer.json`.
const MAX_FILE_BYTES: usize = 256 << 20;
/// Maximum number of JSON values in a file. A value takes 32 bytes in memory and as little as two in the file.
const MAX_VALUES: usize = 1 << 24;
/// Largest subword id.
const MAX_ID: u32 = 1 << 22;
/// Maximum length of a subword in bytes.
const MAX_TOKEN_BYTES: usize = 4096;
/// Maximum total length of all subwords in bytes, which limits the size of their trie. Real vocabularies have about a
/// million.
const MAX_TOTAL_BYTES: usize = 1 << 25;

/// Position of a subword's ids in [`Vocabulary::data`]; length 0 means that the subword id is unused.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// The subwords of a byte-level BPE vocabulary, each as the plain ids of its bytes or as one special token.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Name of the source, for messages.
    origin: String,
    /// Ids of all subwords, concatenated.
    data: Vec<u16>,
    /// By subword id.
    spans: Vec<Span>,
    /// Number of subwords.
    len: usize,
    eos: Option<u32>,
    bos: Option<u32>,
    pad: Option<u32>,
    /// An assumption about the end of text.
    warning: Option<String>,
}

/// Usual names of the end of text in the supported model families, for tokenizers whose config names none.
const USUAL_EOS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];
/// Usual names of the padding token.
const USUAL_PAD: [&str; 1] = ["<|pad|>"];

/// The names of the source model's special tokens, from `tokenizer_config.json`.
#[derive(Debug, Clone, Default)]
struct Names {
    eos: Option<String>,
    bos: Option<String>,
    pad: Option<String>,
}

impl Vocabulary {
    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    ///
    /// # Errors
    /// `NotFound` if there is no `tokenizer.json`, `Io` if a file cannot be read, and the errors of
    /// [`Vocabulary::from_json`].
    #[cfg(not(target_family = "wasm"))]
    pub fn open(tokenizer_json_path: impl AsRef<Path>) -> Result<Self> {
        let tokenizer_json_path = tokenizer_json_path.as_ref();
        let origin = tokenizer_json_path.display().to_string();
        let tokenizer = read_bounded(tokenizer_json_path)?.ok_or_else(|| {
            Error::not_found(format!("{origin}: does not exist; name the tokenizer.json of the source model"))
        })?;
        let config = read_bounded(&tokenizer_json_path.with_file_name("tokenizer_config.json"))?;
        Self::from_json(&tokenizer, config.as_deref(), &origin)
    }

    /// Parses the contents of a `tokenizer.json` and of its `tokenizer_config.json`. `origin` names them in messages.
    ///
    /// A subword with the name of a special token of the byte vocabulary (`<pad>`, `<bos>`, `<eos>`, `<bpe_token_end>`)
    /// becomes that token's id. The eos and bos tokens of the config become id 1 and its pad token id 0; a token that
    /// is both eos and pad becomes id 1. Other added tokens stand for their literal text. Names in the config that are
    /// not in the vocabulary are ignored. If the config names no end of text, the usual names are tried, and
    /// [`Vocabulary::warning`] reports it.
    ///
    /// # Errors
    /// `BadCheckpoint` for damaged or contradictory files, empty tokens, and a vocabulary that lacks a subword for some
    /// byte; `Unsupported` for other kinds of vocabularies and for files that are too large. The message names the
    /// token, key or byte.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config_json: Option<&[u8]>, origin: &str) -> Result<Self> {
        let names = match tokenizer_config_json {
            Some(json) => parse(json)
                .and_then(|config| Names::from_config(&config))
                .map_err(|error| error.context(format_args!("tokenizer_config.json beside {origin}")))?,
            None => Names::default(),
        };
        parse(tokenizer_json)
            .and_then(|tokenizer| Self::from_value(&tokenizer, &names, origin))
            .map_err(|error| error.context(origin))
    }

    fn from_value(tokenizer: &Value, names: &Names, origin: &str) -> Result<Self> {
        let model = &tokenizer["model"];
        match &model["type"] {
            Value::Null => {}
            Value::String(kind) if kind == "BPE" => {}
            other => {
                let found = shown_value(other);
                return Err(Error::unsupported(format!(
                    "model.type: expected \"BPE\", found {found}; name the tokenizer.json of the source model"
                )));
            }
        }
        let tokens = model["vocab"].as_object().ok_or_else(|| {
            let what = match &model["vocab"] {
                Value::Null if tokenizer.is_object() => "is not a tokenizer.json (`model.vocab` is missing)".to_owned(),
                other => format!("model.vocab: expected an object of tokens and ids, found {}", shown_value(other)),
            };
            Error::bad_checkpoint(format!("{what}; name the tokenizer.json of the source model"))
        })?;
        let added = added_tokens(&tokenizer["added_tokens"])?;

        let mut vocabulary = Self {
            origin: origin.to_owned(),
            data: Vec::new(),
            spans: Vec::new(),
            len: 0,
            eos: None,
            bos: None,
            pad: None,
            warning: None,
        };
        let known = |name: &str| tokens.contains_key(name) || added.contains_key(name);
        let (names, guessed) = names.clone().or_usual(known);
        vocabulary.warning = guessed.then(|| {
            format!(
                "{origin}: no tokenizer_config.json beside it names the source model's end of text; {} is used",
                names.eos.as_deref().unwrap_or("none")
            )
        });
        let names = &names;
        for (token, id) in tokens {
            let id = id_of(id, || format!("model.vocab, token {}", shown(token)))?;
            match added.get(token.as_str()) {
                None => vocabulary.insert(token, id, false, names)?,
                // Inserted with the added tokens.
                Some(&again) if again == id => {}
                Some(again) => {
                    let token = shown(token);
                    return Err(Error::bad_checkpoint(format!(
                        "token {token}: has id {id} in model.vocab but id {again} in added_tokens"
                    )));
                }
            }
        }
        for (token, id) in added {
            vocabulary.insert(token, id, true, names)?;
        }
        vocabulary.check_bytes()?;
        Ok(vocabulary)
    }

    fn insert(&mut self, token: &str, id: u32, added: bool, names: &Names) -> Result<()> {
        let is = |name: &Option<String>| name.as_deref() == Some(token);
        let start = self.data.len();
        if let Some(special) = SPECIAL_NAMES.iter().position(|name| *name == token) {
            self.data.push(special as u16);
        } else if is(&names.eos) || is(&names.bos) {
            self.data.push(END_ID);
        } else if is(&names.pad) {
            self.data.push(PAD_ID);
        } else if added {
            self.data.extend(token.bytes().map(|byte| byte_to_id(byte, BYTE_OFFSET)));
        } else {
            for character in token.chars() {
                let byte = byte_of(character).ok_or_else(|| {
                    Error::unsupported(format!(
                        "token {} with id {id}: expected the printable characters of a byte-level BPE vocabulary, \
                         found {character:?}",
                        shown(token)
                    ))
                })?;
                self.data.push(byte_to_id(byte, BYTE_OFFSET));
            }
        }
        let len = self.data.len() - start;
        if len == 0 || len > MAX_TOKEN_BYTES {
            let token = shown(token);
            return Err(Error::bad_checkpoint(format!(
                "token {token} with id {id}: expected 1 to {MAX_TOKEN_BYTES} bytes, found {len}"
            )));
        }
        if self.data.len() > MAX_TOTAL_BYTES {
            return Err(Error::unsupported(format!(
                "model.vocab: expected at most {MAX_TOTAL_BYTES} bytes in all tokens, found more"
            )));
        }
        let index = id as usize;
        if self.spans.len() <= index {
            self.spans.resize(index + 1, Span::default());
        }
        if self.spans[index].len != 0 {
            let token = shown(token);
            return Err(Error::bad_checkpoint(format!("token {token}: its id {id} is also another token's")));
        }
        // Both fit: they are at most `MAX_TOTAL_BYTES`.
        self.spans[index] = Span { start: start as u32, len: len as u32 };
        self.len += 1;
        for (name, slot) in [(&names.eos, &mut self.eos), (&names.bos, &mut self.bos), (&names.pad, &mut self.pad)] {
            if is(name) {
                *slot = Some(id);
            }
        }
        Ok(())
    }

    /// Checks that each byte is a subword; otherwise some positions would have no row in the suffix table.
    fn check_bytes(&self) -> Result<()> {
        let mut found = [false; 256];
        for (_, sequence) in self.iter() {
            if let [id] = sequence
                && let Some(byte) = id.checked_sub(u16::from(BYTE_OFFSET))
                && let Some(found) = found.get_mut(usize::from(byte))
            {
                *found = true;
            }
        }
        match (0..=255u8).zip(found).find(|(_, found)| !found) {
            None => Ok(()),
            Some((byte, _)) => {
                let character =
                    if byte.is_ascii_graphic() { format!(" ('{}')", char::from(byte)) } else { String::new() };
                Err(Error::bad_checkpoint(format!(
                    "model.vocab: expected a token for every single byte, found none for 0x{byte:02x}{character}"
                )))
            }
        }
    }

    /// The warning that no config names the end of text, with the name that was assumed.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Number of subwords.
    #[allow(clippy::len_without_is_empty)] // Never empty: each byte is a subword.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Largest subword id.
    pub fn max_id(&self) -> u32 {
        // The list grows only to hold an id, so it has at most `MAX_ID + 1` entries.
        self.spans.len().saturating_sub(1) as u32
    }

    /// Returns the plain ids of a subword; `None` if there is no such subword.
    pub fn sequence(&self, id: u32) -> Option<&[u16]> {
        let span = self.spans.get(usize::try_from(id).ok()?)?;
        (span.len != 0).then(|| &self.data[span.start as usize..(span.start + span.len) as usize])
    }

    /// Iterates over the subwords and their plain ids, in ascending order of subword ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u16])> {
        (0..=self.max_id()).filter_map(|id| Some((id, self.sequence(id)?)))
    }

    /// The source model's end-of-text subword, if the config names one or a usual name exists.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The source model's begin-of-text subword, if the config names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The source model's padding subword, if the config names one or a usual name exists.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Checks that a suffix table of this many rows can belong to the vocabulary.
    ///
    /// Each id must have a row. Rows without an id are accepted only as padding of the table to a multiple of 64, with
    /// a warning as the result.
    ///
    /// # Errors
    /// `BadCheckpoint` if the sizes don't match; the message has both.
    pub fn check_rows(&self, subword_vocab_size: usize) -> Result<Option<String>> {
        let (rows, count, max_id, origin) = (subword_vocab_size, self.len, self.max_id(), &self.origin);
        // Ids are distinct: if all are below `rows`, there are at most `rows` of them.
        let spare = if (max_id as usize) < rows { rows.checked_sub(count) } else { None };
        match spare {
            Some(0) => Ok(None),
            Some(spare) if rows.is_multiple_of(64) && spare < (rows / 100).max(128) => Ok(Some(format!(
                "{origin}: {count} subwords for a suffix table of {rows} rows: the other {spare} are taken as padding"
            ))),
            _ => Err(Error::bad_checkpoint(format!(
                "{origin}: the tokenizer is of another model: expected a vocabulary for a suffix table of {rows} rows, \
                 found {count} subwords with ids up to {max_id}; use the tokenizer.json of the source model"
            ))),
        }
    }
}

impl Names {
    fn from_config(config: &Value) -> Result<Self> {
        let name = |key: &str| match &config[key] {
            Value::Null => Ok(None),
            Value::String(name) => Ok(Some(name.clone())),
            Value::Object(token) if token.get("content").is_some_and(Value::is_string) => {
                Ok(token["content"].as_str().map(str::to_owned))
            }
            other => Err(Error::bad_checkpoint(format!(
                "{key}: expected a string or an object with a string \"content\", found {}",
                shown_value(other)
            ))),
        };
        if !config.is_object() {
            return Err(Error::bad_checkpoint(format!("expected an object, found {}", shown_value(config))));
        }
        if config["tokenizer_class"] == "BolmoTokenizer" {
            // The byte-level model's own config, in place of the source model's: its names are not subwords.
            return Ok(Self::default());
        }
        Ok(Self { eos: name("eos_token")?, bos: name("bos_token")?, pad: name("pad_token")? })
    }

    /// Replaces an end of text that is not named, or not in the vocabulary, by the usual names. Also returns whether
    /// that was necessary.
    fn or_usual(mut self, known: impl Fn(&str) -> bool) -> (Self, bool) {
        if self.eos.as_deref().is_some_and(&known) {
            return (self, false);
        }
        let usual = |names: &[&str]| names.iter().find(|name| known(name)).map(|&name| name.to_owned());
        self.eos = usual(&USUAL_EOS);
        if !self.pad.as_deref().is_some_and(&known) {
            self.pad = usual(&USUAL_PAD);
        }
        (self, true)
    }
}

/// Reads the tokens and ids of the list `added_tokens`, which older files lack.
fn added_tokens(list: &Value) -> Result<BTreeMap<&str, u32>> {
    let list = match list {
        Value::Null => &[][..],
        Value::Array(list) => list,
        other => {
            let found = shown_value(other);
            return Err(Error::bad_checkpoint(format!("added_tokens: expected a list, found {found}")));
        }
    };
    let mut added = BTreeMap::new();
    for (index, entry) in list.iter().enumerate() {
        let token = entry["content"].as_str().ok_or_else(|| {
            let found = shown_value(&entry["content"]);
            Error::bad_checkpoint(format!("added_tokens[{index}].content: expected a string, found {found}"))
        })?;
        let id = id_of(&entry["id"], || format!("added_tokens[{index}].id"))?;
        if added.insert(token, id).is_some_and(|before| before != id) {
            let token = shown(token);
            return Err(Error::bad_checkpoint(format!("added_tokens[{index}]: token {token} has two ids")));
        }
    }
    Ok(added)
}

fn id_of(value: &Value, place: impl FnOnce() -> String) -> Result<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id <= MAX_ID).ok_or_else(|| {
        let found = shown_value(value);
        Error::bad_checkpoint(format!("{}: expected an id from 0 to {MAX_ID}, found {found}", place()))
    })
}

/// Parses a JSON file after bounding the memory that this takes.
fn parse(json: &[u8]) -> Result<Value> {
    if json.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    // Each value except the outermost follows one of these bytes.
    let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(Error::unsupported(format!("expected at most {MAX_VALUES} JSON values, found up to {values}")));
    }
    serde_json::from_slice(json)
        .map_err(|error| Error::bad_checkpoint(format!("not valid JSON: {error}; fetch the file again")))
}

fn too_large() -> Error {
    Error::unsupported(format!("expected a file of at most {MAX_FILE_BYTES} bytes, found a larger one"))
}

/// Reads a file; `None` if it does not exist.
#[cfg(not(target_family = "wasm"))]
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::{ErrorKind as IoKind, Read};

    let failed = |error: std::io::Error| Error::io(format!("{}: cannot be read: {error}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut contents = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() > MAX_FILE_BYTES {
        return Err(too_large().context(path.display()));
    }
    Ok(Some(contents))
}

/// A token for a message: quoted, and shortened if it is long.
fn shown(token: &str) -> String {
    const MOST: usize = 64;
    match token.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &token[..end]),
        None => format!("{token:?}"),
    }
}

/// A JSON value for a message: the value if it is a scalar, otherwise its type.
fn shown_value(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => shown(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
