//! Which command uses which of the common options. The others are accepted, hidden in the command's help, and warned
//! about.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

const JSON: &[&str] = &["json"];
const CHECKPOINT: &[&str] = &["model", "rope_theta", "rope_scaling"];
const SUBWORDS: &[&str] = &["subwords"];
const ADAPTER: &[&str] = &["adapter"];
const THREADS: &[&str] = &["threads"];
const FORMAT: &[&str] = &["quantize"];

/// The common options that one command uses.
struct Uses {
    /// The command's name below `bolmo`, and an option if there are other rules with that option.
    command: &'static str,
    /// Ids of the options. Every command uses `quiet`.
    options: &'static [&'static [&'static str]],
    /// What to do instead of giving another option, by the option's id.
    instead: &'static [(&'static str, &'static str)],
}

const fn uses(command: &'static str, options: &'static [&'static [&'static str]]) -> Uses {
    Uses { command, options, instead: &[] }
}

const PRODUCTS: &[&str] = &["products"];
const RUNS_A_MODEL: &[&[&str]] = &[JSON, CHECKPOINT, SUBWORDS, ADAPTER, THREADS, FORMAT, PRODUCTS];
const NOT_STORED: &str = "it is not stored; pass it when you load the new folder";
const TRAINS: &[&[&str]] = &[JSON, ADAPTER, THREADS];
const TRAINS_INSTEAD: &[(&str, &str)] = &[
    ("model", "the file of --config names the models"),
    ("subwords", "the file of --config names the tokenizer"),
    ("quantize", "training uses f32; quantize the model afterwards"),
    ("rope_theta", "the source model's base is used"),
    ("rope_scaling", "the source model's scaling is used"),
];

const ALL: &[Uses] = &[
    uses("generate", RUNS_A_MODEL),
    uses("score", RUNS_A_MODEL),
    uses("eval", RUNS_A_MODEL),
    uses("bench", RUNS_A_MODEL),
    Uses {
        command: "bench --train",
        options: &[JSON, CHECKPOINT, ADAPTER, THREADS],
        instead: &[("quantize", "training uses f32")],
    },
    uses("bench --table", &[]),
    uses("info", &[JSON, CHECKPOINT, SUBWORDS]),
    uses("devices", &[JSON, ADAPTER]),
    uses("init", &[JSON]),
    Uses {
        command: "quantize",
        options: &[JSON, &["model"], SUBWORDS, FORMAT],
        instead: &[("rope_theta", NOT_STORED), ("rope_scaling", NOT_STORED)],
    },
    Uses {
        command: "merge",
        options: &[JSON],
        instead: &[
            ("model", "give the Bolmo model with --bolmo"),
            ("subwords", "the new folder gets the tokenizer of --bolmo"),
            ("quantize", "quantize the new folder afterwards"),
            ("rope_theta", NOT_STORED),
            ("rope_scaling", NOT_STORED),
        ],
    },
    Uses { command: "train subword", options: TRAINS, instead: TRAINS_INSTEAD },
    Uses { command: "train stage1", options: TRAINS, instead: TRAINS_INSTEAD },
    Uses { command: "train stage2", options: TRAINS, instead: TRAINS_INSTEAD },
    uses("train init", &[JSON]),
    uses("train plot", &[JSON]),
    uses("train tokenizer", &[JSON]),
    uses("train corpus", &[JSON]),
    uses("completions", &[]),
    uses("man", &[]),
];

impl Uses {
    fn uses(&self, id: &str) -> bool {
        id == "quiet" || self.options.iter().any(|options| options.contains(&id))
    }

    /// Whether these are the rules of `command` or of a part of it.
    fn is_below(&self, command: &str) -> bool {
        self.command.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

/// Hides in each command the common options that it does not use.
pub fn hide_unused(root: Command) -> Command {
    let common: Vec<Arg> = root.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    hide_below(root, &common, "")
}

fn hide_below(mut parent: Command, common: &[Arg], path: &str) -> Command {
    let names: Vec<String> = parent.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let path = format!("{path} {name}");
        let path = path.trim_start();
        let unused = |option: &&Arg| !ALL.iter().any(|one| one.is_below(path) && one.uses(option.get_id().as_str()));
        // A command keeps an option that it has already when those of its parents are added.
        let hidden: Vec<Arg> = common.iter().filter(unused).map(|option| option.clone().hide(true)).collect();
        parent = parent.mut_subcommand(name, |command| hide_below(command.args(hidden), common, path));
    }
    parent
}

/// A sentence about each common option that was given and does nothing.
pub fn ignored(root: &Command, matches: &ArgMatches) -> Vec<String> {
    let (mut path, mut inner) = (String::new(), matches);
    while let Some((name, matches)) = inner.subcommand() {
        path = format!("{path} {name}").trim_start().to_owned();
        inner = matches;
    }
    let given = |matches: &ArgMatches, id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let with_option = ALL.iter().find(|one| {
        let option = one.command.strip_prefix(&*path).and_then(|rest| rest.strip_prefix(" --"));
        option.is_some_and(|option| given(inner, option))
    });
    let Some(rules) = with_option.or_else(|| ALL.iter().find(|one| one.command == path)) else { return Vec::new() };
    let common = root.get_arguments().filter(|option| option.is_global_set());
    let unused =
        common.filter(|option| given(matches, option.get_id().as_str()) && !rules.uses(option.get_id().as_str()));
    let sentence = |option: &Arg| {
        let instead = rules.instead.iter().find(|(id, _)| *id == option.get_id().as_str());
        let instead = instead.map_or(String::new(), |(_, instead)| format!(": {instead}"));
        format!("--{} has no effect on `bolmo {}`{instead}", option.get_long().unwrap_or_default(), rules.command)
    };
    unused.map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::command;

    /// All commands that do something, by their paths.
    fn leaves(parent: &Command, path: &str, all: &mut Vec<String>) {
        for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
            let path = format!("{path} {}", command.get_name()).trim_start().to_owned();
            if command.has_subcommands() { leaves(command, &path, all) } else { all.push(path) }
        }
    }

    #[test]
    fn every_command_has_a_row() {
        let root = command();
        let mut commands = Vec::new();
        leaves(&root, "", &mut commands);
        assert!(commands.contains(&"train stage1".to_owned()));
        for name in &commands {
            assert!(ALL.iter().any(|one| one.command == name), "{name} is missing");
        }
        // Every common option is used by a command, so that a new one is not forgotten.
        for option in root.get_arguments().filter(|option| option.is_global_set()) {
            assert!(ALL.iter().any(|one| one.uses(option.get_id().as_str())), "{} is missing", option.get_id());
        }
    }

    #[test]
    fn ignored_options_are_reported_with_an_alternative() {
        let reported = |args: &[&str]| {
            let root = command();
            let matches = root.clone().try_get_matches_from([&["bolmo"], args].concat()).unwrap();
            ignored(&root, &matches).join("\n")
        };
        assert_eq!(reported(&["generate", "a", "--model", "x", "--threads", "1", "--json", "--quiet"]), "");
        // Before the command or after it.
        let devices = "--threads has no effect on `bolmo devices`";
        assert_eq!(reported(&["devices", "--threads", "1"]), devices);
        assert_eq!(reported(&["--threads", "1", "devices", "--adapter", "cpu"]), devices);
        assert_eq!(
            reported(&["train", "--model", "x", "stage1", "--config", "y", "--rope-theta", "5"]),
            "--model has no effect on `bolmo train stage1`: the file of --config names the models\n\
             --rope-theta has no effect on `bolmo train stage1`: the source model's base is used"
        );
        assert_eq!(reported(&["bench", "--quantize", "q8"]), "");
        assert_eq!(
            reported(&["bench", "--train", "--quantize", "q8"]),
            "--quantize has no effect on `bolmo bench --train`: training uses f32"
        );
        assert_eq!(reported(&["bench", "--table", "x", "--json"]), "--json has no effect on `bolmo bench --table`");
    }
}
