//! `bolmo completions` and `bolmo man`: what `make install` installs beside the command.

use std::path::Path;
use std::{fs, io};

use bolmo_runtime::{Error, ErrorKind};
use clap::Command;
use clap_complete::generate;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

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

/// The command and its subcommands without hidden ones and hidden options, which the generators would offer too.
fn without_hidden(built: &Command) -> Command {
    // A built command has the common options. clap adds those for help and the version again.
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

/// Writes the manual pages: bolmo.1, and one for each command.
pub fn man(args: &ManArgs) -> Outcome {
    let name = args.out.display();
    let failed = |e| Error::new(ErrorKind::Io, format!("{name}: the manual pages cannot be written: {e}"));
    fs::create_dir_all(&args.out).map_err(failed)?;
    let mut root = args::command().disable_help_subcommand(true);
    root.build();
    Ok(pages(&root, &args.out).map_err(failed)?)
}

/// Writes the page of `command` and those of the commands below it.
fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, folder)?;
    }
    let page = Man::new(command.clone()).source(concat!("bolmo ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(after) = command.get_after_help() {
        examples(&after.to_string()).to_writer(&mut text)?;
    }
    fs::write(folder.join(page.get_filename()), text)
}

/// The end of a command's help: examples, whose lines stay as they are, and paragraphs of text.
fn examples(after_help: &str) -> Roff {
    let mut page = Roff::default();
    let (examples, notes) = match after_help.strip_prefix("Examples:\n") {
        Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
        None => ("", after_help),
    };
    if !examples.is_empty() {
        page.control("SH", ["EXAMPLES"]).control("nf", []);
        examples.lines().for_each(|line| {
            page.text([roman(line.trim_start())]);
        });
        page.control("fi", []);
    }
    if !notes.is_empty() {
        page.control("SH", ["NOTES"]);
        notes.lines().for_each(|line| {
            page.text([roman(line)]);
        });
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_examples_stay_apart() {
        let page = examples("Examples:\n  a --x\n  .b\n\nSome text\nthat goes on.").to_roff();
        assert_eq!(page, ".SH EXAMPLES\n.nf\na \\-\\-x\n\\&.b\n.fi\n.SH NOTES\nSome text\nthat goes on.\n");
    }
}
