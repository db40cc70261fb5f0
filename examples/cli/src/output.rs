//! Standard output and standard error: results, failures, and readable sizes.

use std::io::{self, ErrorKind as IoKind, Write};
use std::process::ExitCode;

use bolmo_runtime::{Error, ErrorKind, Hint};
use serde_json::Value;

use crate::args::usage_error;
use crate::interrupt;

/// Reason why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The work failed.
    Work(Error),
    /// The command (named here) was used wrongly.
    Usage(&'static str, String),
    /// The text was written, but it does not match its constraint.
    Unfinished(String),
    /// The reader of the output has gone, as in `bolmo … | head`. This is not a mistake.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Work(error)
    }
}

impl Failure {
    /// A failure to write to standard output.
    pub fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            IoKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Work(Error::new(ErrorKind::Io, format!("standard output: cannot be written: {error}"))),
        }
    }

    /// Prints the failure to standard error, and returns the exit status.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::Work(error) => {
                note("error", &with_hint(&error));
                match interrupt::exit_status() {
                    Some(status) if error.kind() == ErrorKind::Cancelled => status,
                    _ => ExitCode::from(1),
                }
            }
            Failure::Usage(command, message) => {
                // Standard error may be closed; the exit status tells the failure then.
                let _ = usage_error(command, &one_line(&message)).print();
                ExitCode::from(2)
            }
            Failure::Unfinished(message) => {
                note("error", &message);
                ExitCode::from(3)
            }
            Failure::OutputClosed => success(),
        }
    }
}

/// Exit status of a command that did not fail: 0, or that of the signal that ended it early.
pub fn success() -> ExitCode {
    interrupt::exit_status().unwrap_or(ExitCode::SUCCESS)
}

/// The sentence of an error, with the option or command that its hint means.
fn with_hint(error: &Error) -> String {
    let option = match error.hint() {
        Some(Hint::SmallerFormat { format: Some(format) }) => format!("--quantize {}", format.name()),
        Some(Hint::SmallerFormat { format: None }) => "--quantize f16, q8 or q4".to_owned(),
        Some(Hint::QuantizeOriginal { format: Some(format) }) => format!("bolmo quantize --quantize {}", format.name()),
        Some(Hint::QuantizeOriginal { format: None }) => "bolmo quantize".to_owned(),
        Some(Hint::VocabularyMissing { .. }) => "--subwords FILE".to_owned(),
        _ => return error.message().to_owned(),
    };
    format!("{} ({option})", error.message())
}

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Writes to standard output at once. Unlike `print!`, it does not panic when the reader has gone.
pub fn write(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::of_output(&e))
}

/// Writes the JSON object of a command.
pub fn write_json(value: &Value) -> Outcome {
    write(&format!("{value}\n"))
}

/// Writes a line `kind: message` to standard error. A closed standard error is ignored.
pub fn note(kind: &str, message: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {}", one_line(message));
}

/// The text on one line and without control characters: messages quote file names and file contents.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str("; ");
        }
        line.extend(part.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }));
    }
    line
}

/// A readable number of bytes: `17 bytes`, `1.24 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = None;
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(name);
    }
    match unit {
        None => format!("{bytes} bytes"),
        Some(name) if value < 10.0 => format!("{value:.2} {name}"),
        Some(name) => format!("{value:.1} {name}"),
    }
}

/// A readable count: `325 120`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use bolmo_runtime::WeightFormat;

    #[test]
    fn hints_are_worded_as_options() {
        let hint = |hint| with_hint(&Error::new(ErrorKind::OutOfMemory, "too large").with_hint(hint));
        let worded = [
            hint(Hint::SmallerFormat { format: Some(WeightFormat::Q8) }),
            hint(Hint::SmallerFormat { format: None }),
            hint(Hint::QuantizeOriginal { format: None }),
            hint(Hint::VocabularyMissing { source: None }),
            hint(Hint::ReopenDevice),
        ];
        let expected = [
            "too large (--quantize q8)",
            "too large (--quantize f16, q8 or q4)",
            "too large (bolmo quantize)",
            "too large (--subwords FILE)",
            "too large",
        ];
        assert_eq!(worded, expected);
    }

    #[test]
    fn sizes_have_units_and_counts_have_groups_of_digits() {
        assert_eq!(
            [size(0), size(1023), size(1024), size(1_302_440)].join(", "),
            "0 bytes, 1023 bytes, 1.00 KiB, 1.24 MiB"
        );
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(
            [count(0), count(999), count(1000), count(7_630_000_000)].join(", "),
            "0, 999, 1 000, 7 630 000 000"
        );
    }

    #[test]
    fn one_line_removes_line_breaks_and_control_characters() {
        assert_eq!(one_line("a\n\n  Caused by:\r\n b\n"), "a; Caused by:; b");
        assert_eq!(one_line("no \u{1b}[31mfile"), "no \u{fffd}[31mfile");
    }
}
