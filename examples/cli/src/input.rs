//! The input of `bolmo score`: a text or ids, and where patches end in it.

use std::path::Path;

use bolmo_runtime::files::json::{self, Limits};
use bolmo_runtime::ids;
use bolmo_runtime::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

use crate::args::ScoreInput;
use crate::load;
use crate::output::Outcome;

/// Limits of a list of numbers.
const LIST_LIMITS: Limits = Limits { bytes: 64 << 20, values: 1 << 24 };

/// What to score.
pub enum Input {
    /// Bytes, which are framed by `<bos>` and a newline.
    Text(Vec<u8>),
    /// Ids, which are used as they are.
    Ids(Vec<u32>),
}

impl Input {
    /// Number of bytes or ids.
    pub fn len(&self) -> usize {
        match self {
            Input::Text(text) => text.len(),
            Input::Ids(ids) => ids.len(),
        }
    }

    /// Reads the input that the options name.
    pub fn read(input: &ScoreInput) -> Outcome<Self> {
        let text = match (&input.text, &input.file, &input.ids) {
            (Some(text), ..) => text.as_encoded_bytes().to_vec(),
            (None, Some(path), _) => load::read_input(path)?,
            (None, None, Some(path)) => return Ok(Self::Ids(read_ids(path)?)),
            (None, None, None) => Vec::new(),
        };
        if text.is_empty() {
            let name = input.file.as_ref().map_or("--text".to_owned(), |path| path.display().to_string());
            return Err(invalid(format!("{name}: there is nothing to score; give at least one byte")).into());
        }
        Ok(Self::Text(text))
    }

    /// Reads the file of `--boundaries`: whether a patch ends after each byte or id.
    pub fn read_boundaries(&self, path: &Path) -> Result<Vec<bool>> {
        let name = path.display();
        let numbers: Vec<u8> = read_list(path, "0 and 1")?;
        if let Some((position, number)) = numbers.iter().enumerate().find(|(_, number)| **number > 1) {
            return Err(invalid(format!("{name}: expected 0 or 1 at position {position}, found {number}")));
        }
        let (expected, what) = match self {
            Self::Text(text) => (text.len(), "bytes"),
            Self::Ids(ids) => (ids.len(), "ids"),
        };
        if numbers.len() != expected {
            let found = numbers.len();
            return Err(invalid(format!(
                "{name}: expected one number for each of the {expected} {what}, found {found}"
            )));
        }
        if matches!(self, Self::Ids(_)) && numbers.first() == Some(&0) {
            return Err(invalid(format!("{name}: expected 1 at position 0, where a patch always ends, found 0")));
        }
        Ok(numbers.iter().map(|&number| number == 1).collect())
    }
}

fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let name = path.display();
    let ids: Vec<u32> = read_list(path, "ids, which are 0, 1 and 4 to 259")?;
    ids::validate_input_ids(&ids).map_err(|e| e.context(&name))?;
    if ids.len() < 2 {
        return Err(invalid(format!("{name}: expected at least 2 ids, found {}", ids.len())));
    }
    Ok(ids)
}

/// Reads a file with a JSON array of numbers; `what` describes them.
fn read_list<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>> {
    let name = path.display();
    let text = load::read_at_most(path, LIST_LIMITS.bytes as u64)?;
    let text = json::strict(&text, &LIST_LIMITS).map_err(|refusal| invalid(format!("{name}: {refusal}")))?;
    serde_json::from_slice(text).map_err(|e| invalid(format!("{name}: expected a JSON array of {what}{}", mistake(&e))))
}

/// What is wrong with a JSON text, in words that continue the sentence "expected …".
fn mistake(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return format!(": {text}");
    }
    // As in "invalid type: map, expected a sequence at line 1 column 0".
    let found = text.split_once(": ").map_or(&*text, |(_, found)| found);
    let found = match found.rsplit_once(", expected ").map_or(found, |(found, _)| found) {
        "map" => "an object",
        "sequence" => "an array",
        other => other,
    };
    format!(", found {found} at line {} column {}", error.line(), error.column())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_json_are_told_in_plain_words() {
        for (text, start) in [
            ("{\"ids\": [1]}", ", found an object at line 1"),
            ("[1, [2]]", ", found an array at line 1"),
            ("[1, \"a, expected b\"]", ", found string \"a, expected b\" at line 1"),
            ("[1, 300]", ", found integer `300` at line 1"),
            ("[1", ": EOF"),
        ] {
            let mistake = mistake(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
            assert!(mistake.starts_with(start), "{mistake}");
            assert!(!mistake.contains("u8"), "{mistake}");
        }
    }
}
