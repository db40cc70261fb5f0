//! The source model's subword vocabulary as sequences of byte-vocabulary ids.
//!
//! Nothing is tokenised here: the vocabulary only says which byte strings have a row in the suffix table.

use std::collections::BTreeMap;
#[cfg(not(target_family = "wasm"))]
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::ids::{BYTE_OFFSET, END_ID, PAD_ID, SPECIAL_NAMES, byte_to_id};

/// The largest `tokenizer.json` that is read.
const MAX_FILE_BYTES: usize = 256 << 20;
/// The most JSON values that a file may hold. A value in memory takes 32 bytes and as little as two in the file.
const MAX_VALUES: usize = 1 << 24;
/// The largest subword id.
const MAX_ID: u32 = 1 << 22;
/// The longest subword in bytes.
const MAX_TOKEN_BYTES: usize = 4096;
/// The length of all subwords together; it bounds the size of the trie over them. Real vocabularies have about 1 << 20.
const MAX_TOTAL_BYTES: usize = 1 << 25;

/// Where a subword's ids lie in [`Vocabulary::data`]; no length means that the id is not in use.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// The subwords of a byte-level BPE vocabulary, each as the plain ids of its bytes or as one special id.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Where the vocabulary came from, for messages.
    origin: String,
    data: Vec<u16>,
    /// By subword id.
    spans: Vec<Span>,
    len: usize,
    eos: Option<u32>,
    bos: Option<u32>,
    pad: Option<u32>,
    /// What had to be guessed.
    warning: Option<String>,
}

/// Names of the end of text in the families' own tokenizers, and of their padding, for want of a config that tells.
const USUAL_EOS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];
const USUAL_PAD: [&str; 1] = ["<|pad|>"];

/// The names that `tokenizer_config.json` gives to the specials of the source model.
#[derive(Debug, Clone, Default)]
struct Names {
    eos: Option<String>,
    bos: Option<String>,
    pad: Option<String>,
}

impl Vocabulary {
    /// Reads a `tokenizer.json` and, if there is one, the `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// As [`Vocabulary::from_json`], and if a file cannot be read.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(tokenizer_json_path: &Path) -> Result<Self> {
        let origin = tokenizer_json_path.display().to_string();
        let tokenizer = read_bounded(tokenizer_json_path)?.ok_or_else(|| {
            Error::not_found(format!("{origin}: expected the source model's tokenizer.json, found no file"))
        })?;
        let config = read_bounded(&tokenizer_json_path.with_file_name("tokenizer_config.json"))?;
        Self::from_json(&tokenizer, config.as_deref(), &origin)
    }

    /// Takes the contents of a `tokenizer.json` and of the `tokenizer_config.json` that belongs to it.
    ///
    /// Subwords that are named like a special of the byte vocabulary (`<pad>`, `<bos>`, `<eos>`, `<bpe_token_end>`)
    /// become that id. The tokens that the config names as eos and bos become id 1 and the one it names as pad id 0;
    /// a token that is both eos and pad becomes 1. Other added tokens are their literal text. A name in the config
    /// that the vocabulary lacks counts as absent. Where none names the end of text, the families' usual names are tried, and
    /// [`Vocabulary::warning`] says so. `origin` says in messages where the contents came from.
    ///
    /// # Errors
    /// Damaged or contradictory files, vocabularies of another kind, empty tokens, and vocabularies without a subword
    /// for each single byte. The message names the token, key or byte.
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
                return Err(Error::unsupported(format!("model.type: expected \"BPE\", found {found}")));
            }
        }
        let tokens = model["vocab"].as_object().ok_or_else(|| {
            let found = shown_value(&model["vocab"]);
            Error::bad_checkpoint(format!("model.vocab: expected an object of tokens and ids, found {found}"))
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
                "{origin}: no tokenizer_config.json beside it names the source model's end of text: took {}",
                names.eos.as_deref().unwrap_or("none")
            )
        });
        let names = &names;
        for (token, id) in tokens {
            let id = id_of(id, || format!("model.vocab, token {}", shown(token)))?;
            match added.get(token.as_str()) {
                None => vocabulary.insert(token, id, false, names)?,
                // It is inserted with the added tokens.
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
                        "token {} with id {id}: expected the printable characters of a byte-level BPE vocabulary, found {character:?}",
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
                "model.vocab: expected at most {MAX_TOTAL_BYTES} bytes in all tokens together, found more"
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
        // Both fit: they are at most MAX_TOTAL_BYTES.
        self.spans[index] = Span { start: start as u32, len: len as u32 };
        self.len += 1;
        for (name, slot) in [(&names.eos, &mut self.eos), (&names.bos, &mut self.bos), (&names.pad, &mut self.pad)] {
            if is(name) {
                *slot = Some(id);
            }
        }
        Ok(())
    }

    /// Without a subword for every single byte some positions would have no row in the suffix table.
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

    /// What had to be guessed, for want of a config that tells.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The number of subwords.
    #[allow(clippy::len_without_is_empty)] // It is never empty: every single byte is in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The largest subword id.
    pub fn max_id(&self) -> u32 {
        // Spans grow only to hold an id, and there are at most MAX_ID + 1.
        self.spans.len().saturating_sub(1) as u32
    }

    /// The byte-vocabulary ids of a subword, or `None` if it has no such subword.
    pub fn sequence(&self, id: u32) -> Option<&[u16]> {
        let span = self.spans.get(usize::try_from(id).ok()?)?;
        (span.len != 0).then(|| &self.data[span.start as usize..(span.start + span.len) as usize])
    }

    /// All subwords with their sequences, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u16])> {
        (0..=self.max_id()).filter_map(|id| Some((id, self.sequence(id)?)))
    }

    /// The source model's end-of-text subword, if the tokenizer's config names one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The source model's begin-of-text subword, if the tokenizer's config names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The source model's padding subword, if the tokenizer's config names one.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Checks that a suffix table with this many rows can belong to the vocabulary.
    ///
    /// Every id must have a row. Rows without an id are fine only as the padding that makes a table's size a multiple
    /// of 64; they are returned as a warning.
    ///
    /// # Errors
    /// The sizes do not fit; the message has both.
    pub fn check_rows(&self, subword_vocab_size: usize) -> Result<Option<String>> {
        let (rows, count, max_id, origin) = (subword_vocab_size, self.len, self.max_id(), &self.origin);
        // Ids are distinct, so there are at most as many as rows if all are below.
        let spare = if (max_id as usize) < rows { rows.checked_sub(count) } else { None };
        match spare {
            Some(0) => Ok(None),
            Some(spare) if rows.is_multiple_of(64) && spare < (rows / 100).max(128) => Ok(Some(format!(
                "{origin}: {count} subwords for a suffix table of {rows} rows: the other {spare} are taken for padding"
            ))),
            _ => Err(Error::bad_checkpoint(format!(
                "{origin}: the tokenizer is of another model: expected a vocabulary for a suffix table of {rows} rows, \
                 found {count} subwords with ids up to {max_id}"
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
            // The byte-level model's own config, which lies where the source model's would: its names are not subwords.
            return Ok(Self::default());
        }
        Ok(Self { eos: name("eos_token")?, bos: name("bos_token")?, pad: name("pad_token")? })
    }

    /// The same names, with the usual ones instead of an end of text that is not named or not in the vocabulary. Also tells
    /// whether that was needed.
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

/// The list `added_tokens` as token and id; older files have none.
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

/// Parses a JSON file whose size in memory is bounded before anything is allocated.
fn parse(json: &[u8]) -> Result<Value> {
    if json.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    // Every value but the outermost follows one of these.
    let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(Error::unsupported(format!("expected at most {MAX_VALUES} JSON values, found up to {values}")));
    }
    serde_json::from_slice(json).map_err(|error| Error::bad_checkpoint(format!("not valid JSON: {error}")))
}

fn too_large() -> Error {
    Error::unsupported(format!("expected a file of at most {MAX_FILE_BYTES} bytes, found a larger one"))
}

/// The contents of a file, or `None` if there is none.
#[cfg(not(target_family = "wasm"))]
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::{ErrorKind as IoKind, Read};

    let failed = |error: std::io::Error| Error::io(format!("{}: expected a readable file: {error}", path.display()));
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

/// Undoes GPT-2's table, which stands a printable character in for each byte: printable bytes for themselves, the
/// other ones, in order, for the characters from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        // The range of the byte narrows each of these, so no arm truncates.
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// A token for a message: quoted, and not all of it if it is long.
fn shown(token: &str) -> String {
    const MOST: usize = 64;
    match token.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &token[..end]),
        None => format!("{token:?}"),
    }
}

/// A JSON value for a message: in full if it is short and flat, otherwise its type.
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
