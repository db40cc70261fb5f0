//! `bolmo-web-glue IN.wasm OUT_DIR`: does what the wasm-bindgen command does with `--target web`, pinned by this
//! crate's lock file.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: bolmo-web-glue IN.wasm OUT_DIR");
        return ExitCode::from(2);
    };
    match run(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {input}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(input: &str, output: &str) -> Result<(), impl std::fmt::Display> {
    let mut bindgen = Bindgen::new();
    bindgen.web(true)?;
    // The caller always passes the address of the wasm file.
    bindgen.input_path(input).out_name("bolmo").typescript(true).omit_default_module_path(false);
    bindgen.generate(output)
}
