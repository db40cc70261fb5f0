//! Writes every variant of every kernel to a WGSL file, for use with other compilers.
//!
//! `cargo run -p bolmo-shaders --example write_wgsl -- FOLDER`

use std::path::PathBuf;
use std::process::ExitCode;

use bolmo_shaders::table::KERNELS;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: write_wgsl FOLDER");
        return ExitCode::from(2);
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        for kernel in KERNELS {
            for variant in kernel.variants() {
                let name = format!("{}.{variant}.wgsl", kernel.stem);
                std::fs::write(folder.join(name), kernel.source(variant))?;
            }
        }
        Ok(())
    };
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
