//! The source model's subword vocabulary, as sequences of plain ids.
//!
//! It tells which byte strings have a row in the suffix table. Nothing is tokenized here.

mod read;

#[cfg(not(target_family = "wasm"))]
use std::path::Path;

use crate::error::{Error, Result};
use crate::input::json::Limits;
#[cfg(not(target_family = "wasm"))]
use crate::input::{file::read_file, hub};
use crate::text::byte_alphabet::byte_of;
use crate::text::ids::{BYTE_OFFSET, END_ID, PAD_ID, SPECIAL_NAMES, byte_to_id};
use read::{Names, Tokenizer, shown};

/// Largest subword id.
const MAX_ID: u32 = 1 << 22;
/// Maximum length of a subword in bytes.
const MAX_TOKEN_BYTES: usize = Vocabulary::MAX_TOKEN_BYTES;
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

impl Vocabulary {
    /// Maximum length of a subword in bytes.
    pub const MAX_TOKEN_BYTES: usize = 4096;

    /// Limits of a `tokenizer.json`. Those of large vocabularies have 35 MB and, with their merges, two million values.
    pub const LIMITS: Limits = Limits { bytes: 64 << 20, values: 1 << 22 };

    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    ///
    /// # Errors
    /// `NotFound` if there is no `tokenizer.json`, `Io` if a file cannot be read, and the errors of
    /// [`Vocabulary::from_json`].
    #[cfg(not(target_family = "wasm"))]
    pub fn open(tokenizer_json_path: impl AsRef<Path>) -> Result<Self> {
        let path = tokenizer_json_path.as_ref();
        let origin = path.display().to_string();
        let tokenizer = read_file(path, Self::LIMITS.bytes as u64)?.ok_or_else(|| {
            let advice = hub::advice(path, "tokenizer.json")
                .or_else(|| hub::advice(path.parent()?, "tokenizer.json"))
                .unwrap_or_else(|| "name the tokenizer.json of the source model".to_owned());
            Error::not_found(format!("{origin}: does not exist; {advice}"))
        })?;
        let config = read_file(path.with_file_name("tokenizer_config.json"), read::MAX_CONFIG_BYTES as u64)?;
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
    /// byte, and for files that are too large; `Unsupported` for other kinds of vocabularies. The message names the
    /// token, key or byte.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config_json: Option<&[u8]>, origin: &str) -> Result<Self> {
        let names = match tokenizer_config_json {
            Some(json) => Names::from_json(json)
                .map_err(|error| error.context(format_args!("tokenizer_config.json beside {origin}")))?,
            None => Names::default(),
        };
        Self::new(tokenizer_json, names, origin).map_err(|error| error.context(origin))
    }

    fn new(tokenizer_json: &[u8], names: Names, origin: &str) -> Result<Self> {
        let text = read::bounded(tokenizer_json)?;
        let Tokenizer { tokens, added } = Tokenizer::from_text(&text)?;
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
        let (names, guessed) = names.or_usual(known);
        vocabulary.warning = guessed.then(|| {
            format!(
                "{origin}: no tokenizer_config.json beside it names the source model's end of text; {} is used; if \
                 that is wrong, put the source model's tokenizer_config.json there",
                names.eos.as_deref().unwrap_or("none")
            )
        });
        for (token, &id) in &tokens {
            match added.get(&**token) {
                None => vocabulary.insert(token, id, false, &names)?,
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
        for (token, &id) in &added {
            vocabulary.insert(token, id, true, &names)?;
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

#[cfg(test)]
pub(crate) mod tests;
