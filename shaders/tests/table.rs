//! The table matches the files: each kernel has a shader, a CPU reference and a test, and there are no other files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bolmo_shaders::table::KERNELS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The stems of a folder's files with this extension.
fn stems(path: &Path, extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = files.map(|file| file.expect("a readable folder").path());
    let of_kind = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    of_kind.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

fn rows() -> BTreeSet<String> {
    KERNELS.iter().map(|kernel| kernel.stem.to_owned()).collect()
}

#[test]
fn every_shader_has_a_row() {
    assert_eq!(rows().len(), KERNELS.len(), "two rows share a stem");
    assert_eq!(stems(&folder("wgsl"), "wgsl"), rows());
    let tiled = KERNELS.iter().filter(|kernel| kernel.subgroup_text.is_some()).map(|kernel| kernel.stem.to_owned());
    assert_eq!(stems(&folder("wgsl/subgroup"), "wgsl"), tiled.collect());
    let single_lane =
        KERNELS.iter().filter(|kernel| kernel.single_lane_text.is_some()).map(|kernel| kernel.stem.to_owned());
    assert_eq!(stems(&folder("wgsl/single_lane"), "wgsl"), single_lane.collect());
    let cooperative = KERNELS.iter().filter(|kernel| kernel.cooperative_text.is_some());
    assert_eq!(stems(&folder("wgsl/cooperative"), "wgsl"), cooperative.map(|kernel| kernel.stem.to_owned()).collect());
}

/// WebGPU guarantees 8 storage buffers on every adapter.
#[test]
fn every_kernel_fits_the_storage_buffer_limit() {
    for kernel in KERNELS {
        assert!(kernel.max_storage_buffers() <= 8, "{}: {}", kernel.stem, kernel.max_storage_buffers());
    }
}

#[test]
fn every_row_is_found_by_its_id() {
    for kernel in KERNELS {
        assert_eq!(kernel.id.kernel().id, kernel.id);
    }
}

#[test]
fn every_kernel_has_a_cpu_reference() {
    let mut references = stems(&folder("src/cpu"), "rs");
    assert!(references.remove("mod"));
    assert_eq!(references, rows());
    for stem in rows() {
        let reference = read(&folder("src/cpu").join(&stem).with_extension("rs"));
        assert!(reference.contains(&format!("pub fn {stem}(")), "src/cpu/{stem}.rs has no function {stem}");
    }
}

#[test]
fn every_kernel_has_a_fast_form() {
    for stem in rows() {
        let text = read(&folder("src/simd").join(&stem).with_extension("rs"));
        assert!(text.contains(&format!("pub(super) fn {stem}(")), "src/simd/{stem}.rs has no function {stem}");
        assert!(text.contains("mod tests"), "src/simd/{stem}.rs has no tests");
    }
}

#[test]
fn every_kernel_has_a_device_test() {
    let tests = read(&folder("../tests/tests/kernels/mod.rs"));
    let missing: Vec<String> = rows().into_iter().filter(|stem| !tests.contains(&format!("fn {stem}"))).collect();
    assert!(missing.is_empty(), "tests/tests/kernels/mod.rs has no test function for {missing:?}");
}

#[test]
fn every_storage_binding_states_its_shape() {
    let files = ["wgsl", "wgsl/shared", "wgsl/subgroup", "wgsl/single_lane", "wgsl/cooperative"].map(folder);
    for (path, stem) in files.iter().flat_map(|path| stems(path, "wgsl").into_iter().map(move |stem| (path, stem))) {
        let path = path.join(stem).with_extension("wgsl");
        for line in read(&path).lines().filter(|line| line.contains("var<storage")) {
            assert!(line.contains("// ["), "{}: no shape in {line}", path.display());
        }
    }
    for kernel in KERNELS.iter().filter(|kernel| kernel.weights.is_some()) {
        let mut lines = kernel.text.lines().filter(|line| line.starts_with("// binding 1: w"));
        assert!(lines.any(|line| line.contains(kernel.bindings[0].shape)), "{}: no shape for w", kernel.stem);
    }
}
