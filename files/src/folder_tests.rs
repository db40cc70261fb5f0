//! Tests of writing folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::testing::names;
use crate::{Error, MANIFEST, MARKER, PartialFolder, Replaces, Target, with_free_bytes};

const LISTED: Replaces = Replaces::Listed("test");

fn fill(partial: &PartialFolder, files: &[(&str, &str)]) {
    for (name, text) in files {
        fs::write(partial.path.join(name), text).unwrap();
    }
}

/// Writes a folder with these files.
fn put(folder: &Path, replaces: Replaces, files: &[(&str, &str)]) -> crate::Result<()> {
    let target = Target::new(folder, replaces)?;
    let partial = target.begin(10)?;
    fill(&partial, files);
    target.finish(partial)
}

fn refused(folder: &Path, replaces: Replaces, words: &[&str]) {
    let error = Target::new(folder, replaces).err().unwrap();
    for word in words {
        assert!(error.to_string().contains(word), "{error} lacks {word}");
    }
}

#[test]
fn a_folder_appears_when_it_is_complete() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("deep/out");
    let target = Target::new(&out, Replaces::Nothing).unwrap();
    let partial = target.begin(1).unwrap();
    fill(&partial, &[("a", "1")]);
    assert!(!out.exists());
    target.finish(partial).unwrap();
    assert_eq!((names(&out), names(out.parent().unwrap())), (vec!["a".to_owned()], vec!["out".to_owned()]));
    refused(&out, Replaces::Nothing, &["out", "files in it", "(a)", "name a new folder"]);
    // Dropping it without finishing leaves nothing.
    let other = parent.path().join("other");
    drop(Target::new(&other, Replaces::Nothing).unwrap().begin(0).unwrap());
    assert_eq!(names(parent.path()), ["deep"]);
}

#[test]
fn only_listed_files_are_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    put(&out, LISTED, &[("a", "1"), ("b", "2")]).unwrap();
    assert_eq!(names(&out), ["a", "b", MANIFEST]);
    put(&out, LISTED, &[("a", "111"), ("c", "2")]).unwrap();
    assert_eq!(
        (names(&out), names(parent.path())),
        (vec!["a".into(), MANIFEST.into(), "c".into()], vec!["out".into()])
    );

    fs::write(out.join("model-mine.safetensors"), "mine").unwrap();
    refused(&out, LISTED, &["files in it", "(model-mine.safetensors)", "did not write", "move them"]);
    fs::remove_file(out.join("model-mine.safetensors")).unwrap();
    fs::create_dir(out.join("mine")).unwrap();
    refused(&out, LISTED, &["(mine)", "did not write"]);
    fs::remove_dir(out.join("mine")).unwrap();
    fs::write(out.join("a"), "edited").unwrap();
    refused(&out, LISTED, &["(a)", "have changed"]);
    fs::write(out.join("a"), "111").unwrap();
    refused(&out, Replaces::Listed("other"), &["another kind"]);
    refused(&out, Replaces::Nothing, &["files in it"]);
    // A file that is gone is no reason.
    fs::remove_file(out.join("c")).unwrap();
    put(&out, LISTED, &[("a", "3")]).unwrap();
    for damaged in ["", "{}", "[1]"] {
        fs::write(out.join(MANIFEST), damaged).unwrap();
        refused(&out, LISTED, &["files in it", "no bolmo-files.json"]);
    }
    fs::remove_file(out.join(MANIFEST)).unwrap();
    refused(&out, LISTED, &["files in it", "no bolmo-files.json", "(a)"]);
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "3");
}

#[test]
fn files_of_fixed_names_need_no_list() {
    const NAMES: Replaces = Replaces::Named(&["state", "tensors"]);
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    put(&out, NAMES, &[("state", "1"), ("tensors", "1")]).unwrap();
    put(&out, NAMES, &[("state", "2")]).unwrap();
    assert_eq!(names(&out), ["state"]);
    fs::write(out.join("notes"), "mine").unwrap();
    refused(&out, NAMES, &["(notes)"]);
}

#[test]
fn files_that_appear_during_the_work_stay_and_so_does_the_result() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    put(&out, LISTED, &[("a", "1")]).unwrap();
    for (replaces, name) in [(LISTED, "out"), (Replaces::Nothing, "new"), (Replaces::Nothing, "file")] {
        let out = parent.path().join(name);
        let target = Target::new(&out, replaces).unwrap();
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("a", "22")]);
        if name == "file" {
            fs::write(&out, "mine").unwrap();
        } else {
            fs::create_dir_all(&out).unwrap();
            fs::write(out.join("mine"), "mine").unwrap();
        }
        let error = target.finish(partial).unwrap_err();
        let message = error.to_string();
        let Error::Kept { kept, .. } = error else { panic!("{message}") };
        assert!(message.contains(name) && message.contains(&kept.display().to_string()), "{message}");
        assert_eq!(fs::read_to_string(kept.join("a")).unwrap(), "22");
        // The next run does not remove it.
        assert!(Target::new(&out, replaces).is_err());
        assert!(kept.join("a").exists());
    }
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "mine");
}

#[test]
fn a_killed_run_leaves_what_the_next_one_removes() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    for dead in [".out.partial-0", ".out.partial-1000"] {
        fs::create_dir(parent.path().join(dead)).unwrap();
        fs::write(parent.path().join(dead).join("model.safetensors"), "gigabytes").unwrap();
    }
    // Another run is alive.
    let other = Target::new(&out, LISTED).unwrap();
    let live = other.begin(0).unwrap();
    fill(&live, &[("a", "other")]);
    assert_eq!(names(parent.path()).len(), 1);
    put(&out, LISTED, &[("a", "this")]).unwrap();
    assert_eq!(fs::read_to_string(live.path.join("a")).unwrap(), "other");
    // The last one wins.
    other.finish(live).unwrap();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "other");
    assert_eq!(names(parent.path()), ["out"]);
}

#[test]
fn too_little_space_is_found_before_anything_is_written() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("deep/out");
    let target = Target::new(&out, Replaces::Nothing).unwrap();
    let error = with_free_bytes(99, || target.begin(100)).err().unwrap();
    assert!(matches!(error, Error::NoSpace { needed: 100, free: 99, .. }), "{error}");
    assert!(error.to_string().contains("deep/out"), "{error}");
    assert!(names(parent.path()).is_empty());
    with_free_bytes(100, || target.begin(100)).unwrap();
}

/// Marks the folder as a run leaves it that is killed while it moves files.
fn interrupt(out: &Path, files: &[&str]) {
    let files: serde_json::Map<String, serde_json::Value> = files.iter().map(|f| ((*f).to_owned(), 1.into())).collect();
    let list = serde_json::json!({ "written_by": "test", "files": files });
    fs::write(out.join(MARKER), list.to_string()).unwrap();
}

#[test]
fn a_folder_whose_writing_was_interrupted_is_replaced_but_no_other_file() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    for replaces in [Replaces::Nothing, LISTED] {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("a"), "half").unwrap();
        fs::write(out.join("mine"), "mine").unwrap();
        fs::create_dir(out.join(".bolmo.partial-12")).unwrap();
        fs::write(out.join(".bolmo.partial-12/new"), "").unwrap();
        interrupt(&out, &["a", "b"]);
        refused(&out, replaces, &["(mine)", "interrupted run did not write"]);
        fs::remove_file(out.join("mine")).unwrap();
        put(&out, replaces, &[("b", "2")]).unwrap();
        assert_eq!(fs::read_to_string(out.join("b")).unwrap(), "2");
        assert!(!out.join("a").exists() && !out.join(MARKER).exists());
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn other_ways_to_write_a_path_lead_to_the_same_folder() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        symlink("deep/linked", at("dangling")).unwrap();
        symlink("empty", at("to-empty")).unwrap();
        symlink(at("dangling"), at("twice")).unwrap();
        let paths = [
            ("new1/", "new1"),
            ("new2/.", "new2"),
            ("deep/../new3", "new3"),
            ("new4/./", "new4"),
            ("dangling", "deep/linked"),
            ("to-empty/", "empty"),
            ("to-empty", "empty"),
            ("twice/", "deep/linked"),
        ];
        for (path, folder) in paths {
            put(&PathBuf::from(format!("{}/{path}", parent.path().display())), LISTED, &[("a", path)]).unwrap();
            assert_eq!(fs::read_to_string(at(folder).join("a")).unwrap(), path);
            assert!(!at(folder).is_symlink(), "{path}");
        }
        assert!(at("dangling").is_symlink() && at("to-empty").is_symlink() && at("twice").is_symlink());
        assert_eq!(names(&at("deep")), ["linked"]);
        for path in ["missing/..", "/"] {
            assert!(matches!(Target::new(Path::new(path), LISTED), Err(Error::NoName(_))), "{path}");
        }
        refused(&at("deep/linked/.."), LISTED, &["(linked)"]);
        fs::write(at("file"), "mine").unwrap();
        for path in ["file", "file/", "file/new"] {
            assert!(matches!(Target::new(&at(path), LISTED), Err(Error::IsFile(_))), "{path}");
        }
    }

    #[test]
    fn a_folder_keeps_its_mode_and_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o710)).unwrap();
        for text in ["1", "2"] {
            put(&out, LISTED, &[("a", text)]).unwrap();
            assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o710);
        }
        // Only root can give folders away.
        if chown(&out, Some(12), Some(34)).is_err() {
            println!("skipped: this user cannot change owners");
            return;
        }
        let before = fs::metadata(&out).unwrap().ino();
        put(&out, LISTED, &[("b", "3")]).unwrap();
        let metadata = fs::metadata(&out).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.ino()), (12, 34, before));
        assert_eq!((names(&out), names(parent.path())), (vec!["b".into(), MANIFEST.into()], vec!["out".into()]));
    }

    /// A folder that is written in place: that of another owner or, for users who cannot give folders away, one in a
    /// folder without permission.
    struct InPlace<'a> {
        parent: &'a Path,
        out: PathBuf,
    }

    impl<'a> InPlace<'a> {
        fn new(parent: &'a Path) -> Self {
            let out = parent.join("out");
            fs::create_dir(&out).unwrap();
            if chown(&out, Some(12), Some(34)).is_err() {
                fs::set_permissions(parent, fs::Permissions::from_mode(0o555)).unwrap();
            }
            Self { parent, out }
        }
    }

    impl Drop for InPlace<'_> {
        fn drop(&mut self) {
            let _ = fs::set_permissions(self.parent, fs::Permissions::from_mode(0o755));
        }
    }

    #[test]
    fn a_folder_in_place_is_marked_until_it_is_complete() {
        let parent = tempfile::tempdir().unwrap();
        let place = InPlace::new(parent.path());
        let out = place.out.clone();
        let target = Target::new(&out, LISTED).unwrap();
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("a", "1")]);
        assert!(out.join(MARKER).exists() && partial.path.starts_with(&out));
        assert!(matches!(Target::new(&out, LISTED), Err(Error::Busy { .. })));
        drop(partial);
        assert!(names(&out).is_empty());
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("a", "1")]);
        target.finish(partial).unwrap();
        assert_eq!(names(&out), ["a", MANIFEST]);

        // An earlier output is complete until the new one is.
        let target = Target::new(&out, LISTED).unwrap();
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("b", "2")]);
        assert!(!out.join(MARKER).exists() && out.join("a").exists());
        target.finish(partial).unwrap();
        assert_eq!(names(&out), ["b", MANIFEST]);
    }

    #[test]
    fn a_result_that_cannot_be_moved_in_place_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let place = InPlace::new(parent.path());
        let out = place.out.clone();
        let target = Target::new(&out, Replaces::Nothing).unwrap();
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("a", "1")]);
        fs::write(out.join("mine"), "mine").unwrap();
        let error = target.finish(partial).unwrap_err();
        let Error::Kept { kept, .. } = &error else { panic!("{error}") };
        assert_eq!(fs::read_to_string(kept.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "mine");
        refused(&out, LISTED, &["mine"]);
        assert!(kept.join("a").exists());
    }

    /// A bind mount of the same file system cannot be told by its device number, and cannot be renamed.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_point_is_written_in_place() {
        struct Mounted(PathBuf);
        impl Drop for Mounted {
            fn drop(&mut self) {
                let _ = std::process::Command::new("umount").arg(&self.0).status();
            }
        }
        let parent = tempfile::tempdir().unwrap();
        let (disk, out) = (parent.path().join("disk"), parent.path().join("out"));
        fs::create_dir(&disk).unwrap();
        fs::create_dir(&out).unwrap();
        let mount = std::process::Command::new("mount").arg("--bind").args([&disk, &out]).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            println!("skipped: nothing can be mounted here");
            return;
        }
        let _mounted = Mounted(out.clone());
        let link = parent.path().join("link");
        symlink(&out, &link).unwrap();
        for (path, files) in [(&out, [("a", "1")]), (&out, [("b", "22")]), (&link, [("c", "333")])] {
            put(path, LISTED, &files).unwrap();
            assert_eq!(names(&disk), names(&out));
            assert!(names(&disk).contains(&files[0].0.to_owned()) && names(&disk).len() == 2, "{:?}", names(&disk));
        }
        // A folder that turned into a mount point during the work.
        let late = parent.path().join("late");
        let target = Target::new(&late, LISTED).unwrap();
        let partial = target.begin(1).unwrap();
        fill(&partial, &[("d", "4")]);
        fs::create_dir(&late).unwrap();
        fs::create_dir(parent.path().join("disk2")).unwrap();
        let disk2 = parent.path().join("disk2");
        assert!(std::process::Command::new("mount").arg("--bind").args([&disk2, &late]).status().unwrap().success());
        let _late = Mounted(late.clone());
        target.finish(partial).unwrap();
        assert_eq!(names(&disk2), [MANIFEST, "d"]);
    }
}
