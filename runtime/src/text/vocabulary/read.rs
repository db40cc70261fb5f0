//! Reading of a `tokenizer.json` and a `tokenizer_config.json`, token by token. What is not needed, such as merges, is
//! skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::input::json::{self, Limits, Refusal, Stopped, Text, each_element, each_member, members, small};
use crate::input::shorten::quoted;
use crate::text::vocabulary::{MAX_ID, Vocabulary};

/// Maximum length of a `tokenizer_config.json`. Those with thousands of added tokens have about a MB.
pub(super) const MAX_CONFIG_BYTES: usize = 16 << 20;
/// Usual names of the end of text in the supported model families, for tokenizers whose config names none.
const USUAL_EOS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];
/// Usual names of the padding token.
const USUAL_PAD: [&str; 1] = ["<|pad|>"];
/// The end of messages about files that are no vocabulary.
const ADVICE: &str = "name the tokenizer.json of the source model";

/// The names of the source model's special tokens, from `tokenizer_config.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) eos: Option<String>,
    pub(super) bos: Option<String>,
    pub(super) pad: Option<String>,
    /// Whether the file is that of a published byte-level model, which has no names of the source model.
    pub(super) byte_level: bool,
}

impl Names {
    pub(super) fn from_json(config: &[u8]) -> Result<Self> {
        let limits = Limits { bytes: MAX_CONFIG_BYTES, ..Vocabulary::LIMITS };
        let text = json::lenient(config, &limits).map_err(bad)?;
        let whole = parse(&text)?;
        let keys = ["eos_token", "bos_token", "pad_token", "tokenizer_class"];
        let Some([eos, bos, pad, class]) = members(whole, keys).map_err(|e| syntax(&text, e))? else {
            return Err(Error::bad_checkpoint(format!("expected an object, found {}", json::shown(Some(whole)))));
        };
        if class.and_then(small).is_some_and(|class| class == "BolmoTokenizer") {
            // The byte-level model's own config, in place of the source model's: its names are not subwords.
            return Ok(Self { byte_level: true, ..Self::default() });
        }
        let name = |key: &str, value: Option<&RawValue>| match value.map(small) {
            None | Some(Some(Value::Null)) => Ok(None),
            Some(Some(Value::String(name))) => Ok(Some(name)),
            Some(Some(Value::Object(token))) if token.get("content").is_some_and(Value::is_string) => {
                Ok(token["content"].as_str().map(str::to_owned))
            }
            _ => Err(Error::bad_checkpoint(format!(
                "{key}: expected a string or an object with a string \"content\", found {}",
                json::shown(value)
            ))),
        };
        Ok(Self { eos: name(keys[0], eos)?, bos: name(keys[1], bos)?, pad: name(keys[2], pad)?, byte_level: false })
    }

    /// Replaces an end of text that is not named, or not in the vocabulary, by the usual names. Also returns whether
    /// that is a guess. In a published folder with the tokenizer.json of its source it is none.
    pub(super) fn or_usual(mut self, known: impl Fn(&str) -> bool) -> (Self, bool) {
        if self.eos.as_deref().is_some_and(&known) {
            return (self, false);
        }
        let usual = |names: &[&str]| names.iter().find(|name| known(name)).map(|&name| name.to_owned());
        self.eos = usual(&USUAL_EOS);
        let is_guess = !self.byte_level || self.eos.is_none();
        if !self.pad.as_deref().is_some_and(&known) {
            self.pad = usual(&USUAL_PAD);
        }
        (self, is_guess)
    }
}

/// The tokens of a `tokenizer.json` and their ids.
pub(super) struct Tokenizer<'a> {
    /// Of `model.vocab`.
    pub(super) tokens: Tokens<'a>,
    /// Of `added_tokens`, which older files lack.
    pub(super) added: Tokens<'a>,
}

type Tokens<'a> = BTreeMap<Cow<'a, str>, u32>;

/// Checks a `tokenizer.json` against the limits.
pub(super) fn bounded(text: &[u8]) -> Result<Cow<'_, [u8]>> {
    json::lenient(text, &Vocabulary::LIMITS).map_err(bad)
}

impl<'a> Tokenizer<'a> {
    /// Reads a text that [`bounded`] returned.
    pub(super) fn from_text(text: &'a [u8]) -> Result<Self> {
        let whole = parse(text)?;
        let failed = |e| syntax(text, e);
        let top = members(whole, ["model", "added_tokens"]).map_err(failed)?;
        let [model, added] = top.unwrap_or_default();
        let model = model.map(|model| members(model, ["type", "vocab"])).transpose().map_err(failed)?;
        let [kind, vocab] = model.flatten().unwrap_or_default();
        match kind.map(small) {
            None | Some(Some(Value::Null)) => {}
            Some(Some(Value::String(kind))) if kind == "BPE" => {}
            _ => {
                let found = json::shown(kind);
                return Err(Error::unsupported(format!("model.type: expected \"BPE\", found {found}; {ADVICE}")));
            }
        }
        let Some(vocab) = vocab.filter(|vocab| vocab.get().starts_with('{')) else {
            return Err(Error::bad_checkpoint(match vocab {
                None if top.is_some() => format!("is not a tokenizer.json (`model.vocab` is missing); {ADVICE}"),
                other => {
                    let found = json::shown(other);
                    format!("model.vocab: expected an object of tokens and ids, found {found}; {ADVICE}")
                }
            }));
        };
        Ok(Self { tokens: tokens(vocab, text)?, added: added_tokens(added, text)? })
    }
}

/// Reads `model.vocab`.
fn tokens<'a>(vocab: &'a RawValue, text: &'a [u8]) -> Result<Tokens<'a>> {
    let mut tokens = Tokens::new();
    let read = each_member(vocab, |token, id| {
        let id = id_of(Some(id), || format!("model.vocab, token {}", shown(&token)))?;
        match tokens.insert(token.clone(), id) {
            Some(before) if before != id => {
                Err(Error::bad_checkpoint(format!("token {}: has two ids in model.vocab", shown(&token))))
            }
            _ => bound(&tokens, "model.vocab"),
        }
    });
    finished(read, text).map(|_| tokens)
}

/// Reads `added_tokens`.
fn added_tokens<'a>(list: Option<&'a RawValue>, text: &'a [u8]) -> Result<Tokens<'a>> {
    let mut added = Tokens::new();
    let Some(list) = list.filter(|list| list.get() != "null") else { return Ok(added) };
    let mut index = 0;
    let read = each_element(list, |entry| {
        let place = format!("added_tokens[{index}]");
        index += 1;
        let [content, id] = members(entry, ["content", "id"]).map_err(|e| syntax(text, e))?.unwrap_or_default();
        let Some(Text(token)) = content.and_then(|content| serde_json::from_str(content.get()).ok()) else {
            let found = json::shown(content);
            return Err(Error::bad_checkpoint(format!("{place}.content: expected a string, found {found}")));
        };
        let id = id_of(id, || format!("{place}.id"))?;
        match added.insert(token.clone(), id) {
            Some(before) if before != id => {
                Err(Error::bad_checkpoint(format!("{place}: token {} has two ids", shown(&token))))
            }
            _ => bound(&added, "added_tokens"),
        }
    });
    if !finished(read, text)? {
        let found = json::shown(Some(list));
        return Err(Error::bad_checkpoint(format!("added_tokens: expected a list, found {found}")));
    }
    Ok(added)
}

/// Checks the number of tokens, which have different ids.
fn bound(tokens: &Tokens<'_>, place: &str) -> Result<()> {
    let most = MAX_ID as usize + 1;
    if tokens.len() > most {
        return Err(Error::unsupported(format!("{place}: expected at most {most} tokens, found more")));
    }
    Ok(())
}

fn id_of(value: Option<&RawValue>, place: impl FnOnce() -> String) -> Result<u32> {
    let id = value.and_then(|value| value.get().parse().ok()).filter(|&id| id <= MAX_ID);
    id.ok_or_else(|| {
        let found = json::shown(value);
        Error::bad_checkpoint(format!("{}: expected an id from 0 to {MAX_ID}, found {found}", place()))
    })
}

fn parse(text: &[u8]) -> Result<&RawValue> {
    serde_json::from_slice(text).map_err(|e| syntax(text, e))
}

fn finished(read: Result<bool, Stopped<Error>>, text: &[u8]) -> Result<bool> {
    read.map_err(|stopped| match stopped {
        Stopped::Syntax(e) => syntax(text, e),
        Stopped::Visit(error) => error,
    })
}

fn syntax(text: &[u8], error: serde_json::Error) -> Error {
    bad(json::refused(text, error))
}

fn bad(refusal: Refusal) -> Error {
    let advice = if matches!(refusal, Refusal::Syntax(_)) { "; fetch the file again" } else { "" };
    Error::bad_checkpoint(format!("{refusal}{advice}"))
}

/// A token for a message: quoted, and shortened if it is long.
pub(super) fn shown(token: &str) -> String {
    quoted(token, 64)
}
