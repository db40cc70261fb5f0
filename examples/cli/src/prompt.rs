//! The prompt of `bolmo generate`: from the command line, a file, or standard input.

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::args::PromptInput;
use crate::load;
use crate::output::{Failure, Outcome};

/// Where the prompt comes from.
pub enum Source<'a> {
    /// The prompt itself.
    Text(&'a [u8]),
    /// A file, or standard input where the command line says so.
    File(&'a Path),
    /// Standard input, because nothing else was given.
    Implied,
}

impl<'a> Source<'a> {
    /// The source that the options name.
    pub fn of(input: &'a PromptInput) -> Self {
        match (&input.prompt, &input.prompt_file) {
            (Some(text), _) if text == "-" => Self::File(Path::new("-")),
            (Some(text), _) => Self::Text(text.as_encoded_bytes()),
            (None, Some(path)) => Self::File(path),
            (None, None) => Self::Implied,
        }
    }

    /// Whether the prompt is read from standard input.
    pub fn is_stdin(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::File(path) => load::is_stdin(path),
            Self::Implied => true,
        }
    }

    /// The prompt.
    pub fn read(self) -> Outcome<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.to_vec()),
            Self::File(path) => Ok(load::read_input(path)?),
            Self::Implied if !stdin_has_data() => Err(missing("standard input is neither a pipe nor a file")),
            Self::Implied => match load::read_input(Path::new("-"))? {
                // A prompt that is meant to be empty is given as "" or -.
                bytes if bytes.is_empty() => Err(missing("standard input is empty")),
                bytes => Ok(bytes),
            },
        }
    }
}

fn missing(why: &str) -> Failure {
    Failure::Usage("generate", format!("the prompt is missing, and {why}; give PROMPT or --prompt-file FILE"))
}

/// Whether standard input is a pipe, a socket or a file: not a terminal, another device, or closed.
#[cfg(unix)]
fn stdin_has_data() -> bool {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    let stdin = io::stdin();
    // The standard library opens /dev/null in place of a closed standard input.
    let kind = stdin.as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata());
    !stdin.is_terminal()
        && kind.is_ok_and(|stdin| {
            let kind = stdin.file_type();
            kind.is_file() || kind.is_fifo() || kind.is_socket()
        })
}

/// Whether standard input is not a terminal.
#[cfg(not(unix))]
fn stdin_has_data() -> bool {
    !io::stdin().is_terminal()
}
