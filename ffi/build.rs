//! How the shared library is linked: its name for the dynamic loader, and the page size that Android asks for.

/// The number in the library's SONAME; it grows when programs that were linked against an older one can't use this one.
const SO_VERSION: &str = "0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arguments: &[String] = &match system.as_str() {
        // Android's loader knows no versions in names.
        "android" => vec!["-Wl,-soname,libbolmo.so".to_owned(), "-Wl,-z,max-page-size=16384".to_owned()],
        "linux" | "freebsd" | "netbsd" | "openbsd" => {
            vec![format!("-Wl,-soname,libbolmo.so.{SO_VERSION}"), "-Wl,-z,max-page-size=16384".to_owned()]
        }
        // Executables reject this option.
        "macos" | "ios" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libbolmo.{SO_VERSION}.dylib");
            Vec::new()
        }
        _ => Vec::new(),
    };
    for argument in arguments {
        // For targets of this package alone. `rustc-cdylib-link-arg` would name the libraries of packages that use
        // it, such as the Kotlin package's, libbolmo too.
        println!("cargo:rustc-link-arg={argument}");
    }
}
