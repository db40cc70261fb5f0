//! The `bolmo` command: byte-level language models on the terminal.

mod args;
mod bench;
mod compare;
mod devices;
mod environment;
mod eval;
mod generate;
mod info;
mod init;
mod input;
mod interrupt;
mod load;
mod merge;
mod numbers;
mod output;
mod patches;
mod progress;
mod prompt;
mod quantize;
mod score;
mod setup;
mod tensors;
mod train;

use std::process::ExitCode;

use args::{Cli, Command, Common};
use output::{Outcome, note, success};

fn main() -> ExitCode {
    interrupt::report_large_files();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let (Cli { common, command }, ignored) = args::parse();
    if !common.quiet {
        ignored.iter().for_each(|sentence| note("warning", sentence));
    }
    match run(&common, command) {
        Ok(()) => success(),
        Err(failure) => failure.report(),
    }
}

fn run(common: &Common, command: Command) -> Outcome {
    match command {
        Command::Generate(args) => generate::run(common, &args),
        Command::Score(args) => score::run(common, &args),
        Command::Info => info::run(common),
        Command::Devices => devices::run(common),
        Command::Init(args) => init::run(common, &args),
        Command::Quantize(args) => quantize::run(common, &args),
        Command::Merge(args) => merge::run(common, &args),
        Command::Eval(args) => eval::run(common, &args),
        Command::Train(command) => train::run(common, &command),
        Command::Bench(args) => bench::run(common, &args),
        Command::Completions(args) => setup::completions(&args),
        Command::Man(args) => setup::man(&args),
    }
}
