//! `include/bolmo.h` equals what the sources generate, and `abi.txt` lists what programs may rely on.
//!
//! `make header` (BOLMO_UPDATE=1) writes both.

use std::path::{Path, PathBuf};

/// The groups of the header, in its order, and their titles in Doxygen. A name is that of a file in `src`.
const GROUPS: [(&str, &str); 16] = [
    ("status", "Status"),
    ("library", "Library"),
    ("text", "Text"),
    ("adapters", "Adapters"),
    ("engine", "Engine"),
    ("checkpoint", "Checkpoint"),
    ("model", "Model"),
    ("session", "Session"),
    ("constraint", "Constraint"),
    ("options", "Options"),
    ("generate", "Generate"),
    ("batch", "Batch"),
    ("sampler", "Sampler"),
    ("score", "Score"),
    ("merge", "Merge"),
    ("training", "Training"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The comment at the top of a source file, in the form that Doxygen reads.
fn group_comment(name: &str, title: &str, source: &str) -> String {
    let mut text = format!("/**\n * @defgroup {name} {title}\n *\n");
    let mut in_code = false;
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        let line = match line {
            "```c" => "@code{.c}",
            "```" => "@endcode",
            other => other,
        };
        in_code = (in_code || line == "@code{.c}") && line != "@endcode";
        text.push_str(format!(" * {line}").trim_end());
        text.push('\n');
    }
    assert!(!in_code, "{name}: a sample has no end");
    text + " *\n * @{\n */\n"
}

/// What cbindgen generates from one file.
fn declarations(name: &str) -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root().join(format!("src/{name}.rs")))
        .generate()
        .unwrap_or_else(|e| panic!("src/{name}.rs: {e}"));
    let mut out = Vec::new();
    bindings.write(&mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    // The whole header is inside one `extern "C"`.
    // In C an enum's type is the integer that crosses the border; in C++ the enum itself is that integer. C23 needs no
    // third form.
    let c23 = "defined(__cplusplus) || __STDC_VERSION__ >= 202311L";
    let mut text = text
        .replace("#ifdef __cplusplus\nextern \"C\" {\n#endif // __cplusplus\n", "")
        .replace("#ifdef __cplusplus\n}  // extern \"C\"\n#endif  // __cplusplus\n", "")
        .replace(
            &format!("#if {c23}\n  : int32_t\n#endif // {c23}\n {{"),
            "#ifdef __cplusplus\n    : int32_t\n#endif\n{",
        );
    while let Some(start) = text.find("#if __STDC_VERSION__ >= 202311L\ntypedef enum") {
        let rest = &text[start..];
        let (typedef, after) =
            rest.split_once("#else\n").expect("the other way").1.split_once("#endif").expect("an end");
        let after = after.split_once("#endif // __cplusplus").expect("an end").1;
        text = format!("{}{typedef}#endif{after}", &text[..start]);
    }
    tidy(&joined(text.trim()))
}

/// Puts BOLMO_API on the line of the function that it stands before, also where that one takes several lines.
fn joined(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match lines.last_mut() {
            Some(last) if last == "BOLMO_API" => {
                inside = !line.ends_with(';');
                *last = format!("{last} {line}");
            }
            _ if inside => {
                inside = !line.ends_with(';');
                lines.push(format!("{}{line}", " ".repeat("BOLMO_API ".len())));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// Puts comments of one sentence on one line, and allows one empty line at a time.
fn tidy(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.as_slice() {
            [.., opening, sentence] if line.trim() == "*/" && opening.trim() == "/**" => {
                let one = format!("{} {} */", opening, sentence.trim().trim_start_matches("* "));
                lines.truncate(lines.len() - 2);
                lines.push(one);
            }
            [.., last] if line.is_empty() && last.is_empty() => {}
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// How the functions are visible: from the shared library, and in a program that contains the static one.
const API: &str = "\
/**
 * Stands before every function. On Windows, define BOLMO_STATIC to link the static library.
 */
#ifndef BOLMO_API
#if defined(_WIN32) && !defined(BOLMO_STATIC)
#define BOLMO_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define BOLMO_API __attribute__((visibility(\"default\")))
#else
#define BOLMO_API
#endif
#endif
";

/// The version of the library, for the preprocessor.
fn version_macros() -> String {
    let [major, minor, patch] =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "/** Version of the library that this header belongs to; bolmo_version() is that of the library in use. */\n\
         #define BOLMO_VERSION \"{version}\"\n\
         /** Major number of the version. */\n#define BOLMO_VERSION_MAJOR {major}\n\
         /** Minor number of the version. */\n#define BOLMO_VERSION_MINOR {minor}\n\
         /** Patch number of the version. */\n#define BOLMO_VERSION_PATCH {patch}\n"
    )
}

fn header() -> String {
    let mut text = read("src/preamble.h");
    text.push_str(
        "\n#ifndef BOLMO_H\n#define BOLMO_H\n\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n",
    );
    text.push_str(&format!("\n{}\n{API}", version_macros()));
    text.push_str("\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    for (name, title) in GROUPS {
        let source = read(&format!("src/{name}.rs"));
        text.push_str(&format!("\n{}\n{}\n\n/** @}} */\n", group_comment(name, title, &source), declarations(name)));
    }
    text.push_str("\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* BOLMO_H */\n");
    text
}

/// The declarations without comments and preprocessor lines, one per line, with single spaces.
fn signatures(header: &str) -> Vec<String> {
    let mut code = String::new();
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        rest = rest[start..].split_once("*/").expect("the end of a comment").1;
    }
    code.push_str(rest);
    let mut cpp = 0;
    let mut lines = Vec::new();
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        // Lines for C++ only repeat those for C.
        if line == "#ifdef __cplusplus" {
            cpp = 1;
        } else if line == "#endif" {
            cpp = 0;
        }
        if cpp == 0 && (!line.starts_with('#') || line.starts_with("#define BOLMO_ABI_VERSION")) && !line.is_empty() {
            let line = line.strip_prefix("BOLMO_API ").unwrap_or(line);
            lines.push(if line.starts_with('#') { format!("{line};") } else { line.to_owned() });
        }
    }
    let joined = lines.join(" ");
    // Semicolons end declarations; an enum has none inside.
    let mut all: Vec<String> = joined
        .split(';')
        .map(|d| d.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|d| !d.is_empty())
        .flat_map(|declaration| match declaration.strip_prefix("enum ").and_then(|d| d.split_once('{')) {
            // One line per value, so that a new value leaves the other lines unchanged.
            Some((name, values)) => values
                .trim_end_matches('}')
                .split(',')
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .map(|value| format!("enum {}: {value}", name.trim()))
                .collect(),
            None => vec![declaration],
        })
        .collect();
    all.sort();
    all
}

fn updating() -> bool {
    std::env::var_os("BOLMO_UPDATE").is_some()
}

#[test]
fn header_equals_what_the_sources_generate() {
    let made = header();
    let path = root().join("include/bolmo.h");
    if updating() {
        std::fs::write(&path, &made).expect("bolmo.h");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(found.lines()).position(|(a, b)| a != b);
    assert!(
        made == found,
        "include/bolmo.h differs from what the sources generate (line {differs:?}): run `make header`"
    );
}

#[test]
fn abi_changes_only_with_its_version() {
    let now = signatures(&header());
    let path = root().join("abi.txt");
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let recorded: Vec<&str> = recorded.lines().filter(|line| !line.starts_with("//")).collect();
    let lacks = |all: &[&str], line: &str| !all.contains(&line);
    let gone: Vec<&&str> = recorded.iter().filter(|line| !now.iter().any(|n| n == **line)).collect();
    let added: Vec<&String> = now.iter().filter(|line| lacks(&recorded, line)).collect();
    if gone.is_empty() && added.is_empty() {
        return;
    }
    let version_line = |line: &str| line.starts_with("#define BOLMO_ABI_VERSION ");
    let version = |mut lines: Box<dyn Iterator<Item = &str> + '_>| -> u32 {
        let line = lines.find(|line| version_line(line));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let (old, new) = (version(Box::new(recorded.iter().copied())), version(Box::new(now.iter().map(String::as_str))));
    assert!(
        new > old,
        "the ABI has changed, and BOLMO_ABI_VERSION is still {new}: increase it (src/library.rs).\n\
         gone: {gone:#?}\nadded: {added:#?}"
    );
    // A larger version may add things. What is there must stay; otherwise the SONAME has to change as well.
    let broken: Vec<_> = gone.iter().filter(|line| !version_line(line)).collect();
    assert!(broken.is_empty(), "programs may use these declarations, which are gone or changed: {broken:#?}");
    assert!(
        updating(),
        "the ABI has grown to version {new}: run `make header` to record it in abi.txt\nadded: {added:#?}"
    );
    let text =
        "// Every name and signature of bolmo.h, recorded by `make header`. A test compares it with the header.\n";
    std::fs::write(&path, format!("{text}{}\n", now.join("\n"))).expect("abi.txt");
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let manifest = read("../Cargo.toml");
    let package = manifest.split("[workspace.package]").nth(1).expect("the workspace's package");
    let line = package.lines().find(|line| line.starts_with("version = ")).expect("a version");
    let version = line.trim_start_matches("version = ").trim_matches('"');
    let found = read("include/bolmo.h");
    let define = |name: &str| {
        let start = format!("#define {name} ");
        let line = found.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{name}"));
        line[start.len()..].to_owned()
    };
    assert_eq!(define("BOLMO_VERSION"), format!("\"{version}\""));
    let numbers = ["MAJOR", "MINOR", "PATCH"].map(|part| define(&format!("BOLMO_VERSION_{part}")));
    assert_eq!(numbers.join("."), version.split(['-', '+']).next().unwrap_or_default());
}

#[test]
fn every_function_is_in_the_header() {
    let header = header();
    for file in std::fs::read_dir(root().join("src")).expect("src") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for name in text.split("extern \"C\" fn ").skip(1).filter(|rest| rest.starts_with("bolmo_")) {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let found = header.lines().any(|line| line.starts_with("BOLMO_API ") && line.contains(&format!("{name}(")));
            assert!(found, "{}: {name} is missing in the header, or BOLMO_API before it", path.display());
        }
    }
}

#[test]
fn every_group_has_a_sample_and_every_function_a_comment() {
    let header = header();
    for (name, _) in GROUPS {
        let group = header.split(&format!("@defgroup {name} ")).nth(1).expect("a group");
        let comment = group.split("*/").next().unwrap_or_default();
        assert!(comment.contains("@code{.c}"), "group {name} has no sample");
    }
    let lines: Vec<&str> = header.lines().collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" bolmo_") && line.contains('(')) {
        if !line.starts_with([' ', '/', '*']) && !line.starts_with("typedef") {
            assert!(lines[i - 1].ends_with("*/"), "no comment in front of: {line}");
        }
    }
}

#[test]
fn signatures_has_one_line_per_declaration_and_enum_value() {
    let text = "/** x; */\n#define BOLMO_ABI_VERSION 3\nenum a\n#ifdef __cplusplus\n : int32_t\n\
                #endif // __cplusplus\n {\n A_X = 0,\n /** y */\n A_Y = 1,\n};\n\
                #ifndef __cplusplus\ntypedef int32_t a;\n#endif\nBOLMO_API int f(int x,\n   int y); // z\n";
    let expected = [
        "#define BOLMO_ABI_VERSION 3",
        "enum a: A_X = 0",
        "enum a: A_Y = 1",
        "int f(int x, int y)",
        "typedef int32_t a",
    ];
    assert_eq!(signatures(text), expected);
}
