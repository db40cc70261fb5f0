//! A corpus of documents as subword ids, and its division into training and held-out rows.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bolmo_runtime::files::open_file;
use bolmo_runtime::unstable::map_chunks;
use bolmo_runtime::{Error, ErrorKind, Result};

use super::dataset::{Dataset, Segment};
use super::documents::is_separator;
use super::npy::TokenFile;
use super::random::{Purpose, generator, shuffled};
use super::sources::{Source, Span};
use super::tokenizer::SubwordTokenizer;

/// Bytes of documents that all threads tokenize at a time.
const BATCH_BYTES: usize = 1 << 24;
/// Division of a text into documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Documents {
    /// The whole text is one document.
    OnePerFile,
    /// Documents are separated by lines with this text and nothing else, as [`split_documents`] describes.
    ///
    /// [`split_documents`]: crate::data::split_documents
    Delimited(String),
}

/// Subword ids of documents, each followed by the end of text.
pub struct Corpus {
    sources: Vec<Source>,
    eos: u32,
}

/// Options of the division into rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RowOptions {
    /// Subwords of a row.
    pub patches: usize,
    /// Seed of the order of the rows and of the choice of held-out documents.
    pub seed: u64,
    /// Share of the ids to hold out, from 0 to less than 1.
    pub held_out: f64,
}

/// Rows of a corpus. No document is in both parts.
pub struct Split {
    /// Rows to train on.
    pub train: Dataset,
    /// Rows to evaluate on, if a share was held out.
    pub held_out: Option<Dataset>,
}

impl Corpus {
    /// Creates an empty corpus for ids of this tokenizer.
    pub fn new(tokenizer: &SubwordTokenizer) -> Self {
        Self::with_eos(tokenizer.eos())
    }

    pub(in crate::data) fn with_eos(eos: u32) -> Self {
        Self { sources: Vec::new(), eos }
    }

    /// Tokenizes a text file.
    ///
    /// # Errors
    /// Those of [`Corpus::add_text`], and a file that cannot be read.
    pub fn add_text_file(&mut self, tokenizer: &SubwordTokenizer, path: &Path, documents: &Documents) -> Result<()> {
        let origin = path.display().to_string();
        let file = open_file(path)?
            .ok_or_else(|| Error::not_found(format!("{origin}: the text file does not exist; check the path")))?;
        self.add_text(tokenizer, &origin, std::io::BufReader::new(file), documents)
    }

    /// Tokenizes a text, document by document, and skips empty documents. `origin` names the text in messages.
    ///
    /// # Errors
    /// Text that is not UTF-8, cannot be read, or is refused by the tokenizer. Nothing is added in that case.
    pub fn add_text(
        &mut self,
        tokenizer: &SubwordTokenizer,
        origin: &str,
        mut text: impl BufRead,
        documents: &Documents,
    ) -> Result<()> {
        let delimiter = match documents {
            Documents::OnePerFile => None,
            Documents::Delimited(line) if line.contains(['\n', '\r']) => {
                return Err(Error::invalid(format!(
                    "the separator of documents must be a single line, found {line:?}"
                )));
            }
            Documents::Delimited(line) => Some(line.as_bytes()),
        };
        let mut ids = Vec::new();
        let mut document = Vec::new();
        let mut pending: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        // Position of the document in the text.
        let mut start = 0;
        loop {
            let line_at = document.len();
            let read = text
                .read_until(b'\n', &mut document)
                .map_err(|error| Error::new(ErrorKind::Io, format!("{origin}: the text cannot be read: {error}")))?;
            let is_first = start == 0 && line_at == 0;
            let line = &document[line_at..];
            let is_delimiter = read > 0 && delimiter.is_some_and(|text| is_separator(line, text, is_first));
            if read > 0 && !is_delimiter {
                continue;
            }
            let whole = document.len();
            document.truncate(line_at);
            bytes += document.len();
            pending.push((start, std::mem::take(&mut document)));
            if read == 0 || bytes >= BATCH_BYTES {
                self.tokenize_all(tokenizer, origin, &pending, &mut ids)?;
                pending.clear();
                bytes = 0;
            }
            if read == 0 {
                break;
            }
            start += whole;
        }
        self.add_ids(ids);
        Ok(())
    }

    /// Tokenizes documents on all cores and appends their ids to `ids`, in order.
    fn tokenize_all(
        &self,
        tokenizer: &SubwordTokenizer,
        origin: &str,
        documents: &[(usize, Vec<u8>)],
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let tokenize = |range: Range<usize>| -> Result<Vec<u32>> {
            let mut ids = Vec::new();
            for (start, document) in &documents[range] {
                self.tokenize(tokenizer, document, &mut ids).map_err(|error| {
                    error.context(format_args!("{origin}: the document that begins at byte {start}"))
                })?;
            }
            Ok(ids)
        };
        for (_, tokenized) in map_chunks(documents.len(), 1, 1, tokenize) {
            ids.extend(tokenized?);
        }
        Ok(())
    }

    fn tokenize(&self, tokenizer: &SubwordTokenizer, document: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        let text = std::str::from_utf8(document).map_err(|error| {
            Error::invalid(format!(
                "expected text in UTF-8, found an invalid byte {} bytes on; convert the text to UTF-8",
                error.valid_up_to()
            ))
        })?;
        if !text.is_empty() {
            ids.extend(tokenizer.encode(text)?);
            ids.push(self.eos);
        }
        Ok(())
    }

    /// Adds ids, which include the end of text after each document.
    pub fn add_ids(&mut self, ids: Vec<u32>) {
        self.sources.push(Source::Memory(ids));
    }

    /// Adds the ids of a file, which include the end of text after each document. The file is read on demand.
    pub fn add_file(&mut self, file: TokenFile) {
        self.sources.push(Source::File(file));
    }

    /// Number of ids.
    pub fn len(&self) -> u64 {
        self.sources.iter().map(Source::len).sum()
    }

    /// Whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Divides the corpus into rows of equal length. Ids at the end that fill no row are not used.
    ///
    /// # Errors
    /// Options out of range, fewer ids than a row has, and a share to hold out of a single document.
    pub fn rows(self, options: &RowOptions) -> Result<Split> {
        let RowOptions { patches, seed, held_out } = *options;
        if !(0.0..1.0).contains(&held_out) {
            return Err(Error::invalid(format!(
                "the share to hold out must be at least 0 and below 1, found {held_out}"
            )));
        }
        let (train, held) = if held_out == 0.0 {
            let whole = |(source, ids): (usize, &Source)| Span { source, range: 0..ids.len() };
            (self.sources.iter().enumerate().map(whole).collect(), None)
        } else {
            let (train, held) = self.hold_out(held_out, seed)?;
            (train, Some(held))
        };
        let sources: Arc<[Source]> = self.sources.into();
        let or_files = |e: Error| Error::new(e.kind(), format!("{}, or name files with `data.held_out`", e.message()));
        let rows = |part: &str, spans: Vec<Span>| {
            let segments = Segment::line_up(spans);
            Dataset::new(Arc::clone(&sources), segments, patches, seed).map_err(|error| error.context(part))
        };
        Ok(Split {
            train: rows("the documents to train on", train)?,
            held_out: held.map(|held| rows("the documents held out", held).map_err(or_files)).transpose()?,
        })
    }

    /// Divides the corpus into spans to train on and spans to hold out, both in the order of the corpus.
    fn hold_out(&self, share: f64, seed: u64) -> Result<(Vec<Span>, Vec<Span>)> {
        let mut spans = Vec::new();
        for (source, ids) in self.sources.iter().enumerate() {
            ids.document_ranges(self.eos, |range| spans.push(Span { source, range }))?;
        }
        if spans.len() < 2 {
            return Err(Error::invalid(format!(
                "only a corpus of two documents or more can have a share held out, found {}: add documents with \
                 `data.train` (in text they end at the line `data.separator`, in files of ids at id {}), or name files \
                 with `data.held_out`",
                spans.len(),
                self.eos
            )));
        }
        let len = |i: u32| spans[i as usize].len();
        let wanted = (self.len() as f64 * share).round() as u64;
        // The number of spans fits a u32: a source has at most 1024.
        let order = shuffled(&mut generator(seed, Purpose::HeldOut, 0), spans.len() as u32);
        let mut held = vec![false; spans.len()];
        let mut total = 0;
        for &i in &order {
            if total + len(i) <= wanted {
                held[i as usize] = true;
                total += len(i);
            }
        }
        if total == 0
            && let Some(&smallest) = order.iter().min_by_key(|&&i| len(i))
        {
            held[smallest as usize] = true;
        }
        let mut parts = (Vec::new(), Vec::new());
        for (span, held) in spans.into_iter().zip(held) {
            if held { &mut parts.1 } else { &mut parts.0 }.push(span);
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;
