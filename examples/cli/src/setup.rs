//! `bolmo completions` and `bolmo man`: what `make install` installs beside the command.

use std::fs;

use bolmo_runtime::{Error, ErrorKind};
use clap::Command;
use clap_complete::generate;

use crate::args::{self, CompletionsArgs, ManArgs};
use crate::output::{Outcome, write};

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut root = args::command();
    root.build();
    let mut script = Vec::new();
    generate(args.shell, &mut without_hidden(&root), "bolmo", &mut script);
    write(&String::from_utf8_lossy(&script))
}

/// The command and those below it, without what the help hides: the generators offer that too.
fn without_hidden(built: &Command) -> Command {
    // Each command has all of its options already. Those for help and the version are added again.
    let generated = |id: &str| matches!(id, "help" | "version");
    let options = built.get_arguments().filter(|option| !option.is_hide_set() && !generated(option.get_id().as_str()));
    let commands = built.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let mut visible = Command::new(built.get_name().to_owned())
        .args(options.map(|option| option.clone().global(false)))
        .subcommands(commands.map(without_hidden));
    if let Some(about) = built.get_about() {
        visible = visible.about(about.clone());
    }
    if let Some(version) = built.get_version() {
        visible = visible.version(version.to_owned());
    }
    visible
}

/// Writes the manual pages.
pub fn man(args: &ManArgs) -> Outcome {
    let name = args.out.display();
    let failed = |e| Error::new(ErrorKind::Io, format!("{name}: the manual pages cannot be written: {e}"));
    fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(args::command(), &args.out).map_err(failed)?;
    Ok(())
}
