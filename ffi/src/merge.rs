//! Task arithmetic: adds what a subword model learned after its pretraining to the Bolmo model that was made from it.
//!
//! Global blocks and final norm become `bolmo + alpha * (post_trained - base)`; the byte-level parts stay. No device is
//! used.
//!
//! ```c
//! bolmo_merge_options *options;
//! bolmo_bytes *report;
//! bolmo_merge_options_create(&options);
//! bolmo_merge_options_set_bolmo(options, "bolmo-7b", 8);
//! bolmo_merge_options_set_base(options, "olmo-3-7b", 9);
//! bolmo_merge_options_set_post_trained(options, "olmo-3-7b-instruct", 18);
//! if (bolmo_merge(options, "bolmo-7b-instruct", 17, &report) == BOLMO_OK) {
//!     const uint8_t *json;
//!     size_t size;
//!     bolmo_bytes_get(report, &json, &size);
//!     fwrite(json, 1, size, stdout);
//!     bolmo_bytes_delete(report);
//! }
//! bolmo_merge_options_delete(options);
//! ```

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Mutex;

use bolmo_runtime::Result;
use bolmo_runtime::convert::merge::{Merge, write_merged};

use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::model::{Progress, bolmo_progress_callback};
use crate::status::{bolmo_status, call};
use crate::text::{bolmo_bytes, lock};

/// Options for merging.
pub struct bolmo_merge_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_merge_options, Mutex<Merging>);

#[derive(Clone)]
pub(crate) struct Merging {
    /// Paths are empty until they are set.
    merge: Merge,
    progress: Progress,
}

/// Sets the path that `place` returns.
fn set_path(
    options: *mut bolmo_merge_options,
    path: *const c_void,
    size: usize,
    place: impl FnOnce(&mut Merge) -> &mut PathBuf,
) -> bolmo_status {
    call(|| {
        let path = trusted!(input::path(path, size, "path"))?;
        let object = handle::get(options)?;
        *place(&mut lock(&object, "bolmo_merge_options")?.merge) = path;
        Ok(())
    })
}

/// Creates options without paths, which must be set, and with defaults for the rest: alpha 1, embeddings unchanged, no
/// progress callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_create(options: *mut *mut bolmo_merge_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        let progress = Progress::new(None, std::ptr::null_mut());
        options.set(handle::insert(Mutex::new(Merging { merge: Merge::new("", "", ""), progress }))?);
        Ok(())
    })
}

/// Sets the folder of the Bolmo model. Paths are as in bolmo_checkpoint_open, and are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_bolmo(
    options: *mut bolmo_merge_options,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    set_path(options, path, size, |merge| &mut merge.bolmo)
}

/// Sets the folder of the subword model that the Bolmo model was made from: OLMo 2 or 3, Qwen 3 or Llama, in the
/// Hugging Face layout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_base(
    options: *mut bolmo_merge_options,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    set_path(options, path, size, |merge| &mut merge.base)
}

/// Sets the folder of a model that was trained from the base model and differs from it in its weights only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_post_trained(
    options: *mut bolmo_merge_options,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    set_path(options, path, size, |merge| &mut merge.post_trained)
}

/// Sets the factor for the difference between the two, a finite number. Default: 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_alpha(options: *mut bolmo_merge_options, alpha: f32) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        let mut this = lock(&object, "bolmo_merge_options")?;
        let mut changed = this.merge.clone();
        changed.alpha = alpha;
        changed.validate()?;
        this.merge = changed;
        Ok(())
    })
}

/// Sets whether the suffix table changes too, by the difference of the token embeddings. Default: false.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_embeddings(
    options: *mut bolmo_merge_options,
    embeddings: bool,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_merge_options")?.merge.embeddings = embeddings;
        Ok(())
    })
}

/// Sets the progress callback, which counts bytes of weight files and can cancel; NULL for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge_options_set_progress(
    options: *mut bolmo_merge_options,
    progress: bolmo_progress_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_merge_options")?.progress = Progress::new(progress, user_data);
        Ok(())
    })
}

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_merge_options_delete(options: *mut bolmo_merge_options) {
    handle::delete(options);
}

/// Writes the merged model to the folder `out`, which must be empty or not exist, with the files of the Bolmo folder.
/// The folder appears when it is complete. `report` is JSON: `alpha`, `embeddings`, `files`, `bytes`, the counts
/// `moved` and `kept`, and a list `tensors` of objects with `name`, `shape`, `dtype`, `moved`, and either
/// `largest_change` and `rms_change`, or `why`.
///
/// BOLMO_INVALID_ARGUMENT: a path is missing, the models don't belong together, the Bolmo model is stored quantized, or
/// the folder contains files. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT: the message names the file and the tensor or key.
/// BOLMO_UNSUPPORTED: a subword model of another kind, or sums that exceed the range of f16. BOLMO_CANCELLED, BOLMO_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_merge(
    options: *const bolmo_merge_options,
    out: *const c_void,
    size: usize,
    report: *mut *mut bolmo_bytes,
) -> bolmo_status {
    call(|| {
        let report = trusted!(Out::new(report, "report"))?;
        let out = trusted!(input::path(out, size, "out"))?;
        let object = handle::get(options)?;
        // The callback runs without the lock, so it may use the options.
        let Merging { merge, progress } = lock(&object, "bolmo_merge_options")?.clone();
        paths_are_set(&merge)?;
        let made = write_merged(&merge, &out, &mut |done, total| progress.tell(done, total))?;
        report.set(handle::insert(made.to_json().to_string().into_bytes())?);
        Ok(())
    })
}

fn paths_are_set(merge: &Merge) -> Result<()> {
    let paths = [("bolmo", &merge.bolmo), ("base", &merge.base), ("post_trained", &merge.post_trained)];
    match paths.iter().find(|(_, path)| path.as_os_str().is_empty()) {
        Some((name, _)) => Err(invalid(format!(
            "the options have no path of the {name} model; call bolmo_merge_options_set_{name} first"
        ))),
        None => Ok(()),
    }
}
