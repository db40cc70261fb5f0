//! How the library is linked: its name for the dynamic loader, the page size that Android asks for, and which symbols
//! it exports.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arguments: &[&str] = match system.as_str() {
        // The functions of the C ABI stay inside: only JNI_OnLoad is looked up by name. Apps may contain libbolmo too.
        "android" | "linux" | "freebsd" | "netbsd" | "openbsd" => {
            &["-Wl,-soname,libbolmo_jni.so", "-Wl,-z,max-page-size=16384", "-Wl,--exclude-libs,ALL"]
        }
        "macos" => &["-Wl,-install_name,@rpath/libbolmo_jni.dylib"],
        _ => &[],
    };
    for argument in arguments {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
}
