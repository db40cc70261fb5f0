//! Options of `completions` and `man`, which `make install` uses.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Examples of `completions`.
pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  bolmo completions bash > ~/.local/share/bash-completion/completions/bolmo
  bolmo completions zsh > ~/.zfunc/_bolmo                 a folder of fpath
  bolmo completions fish > ~/.config/fish/completions/bolmo.fish

`make install` writes those of bash, zsh and fish to where these shells look for them.";

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, ignore_case = true)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write to; it is created if it does not exist
    #[arg(value_name = "DIR")]
    pub out: PathBuf,
}
