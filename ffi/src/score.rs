//! Scoring: the probability of a text.
//!
//! ```c
//! bolmo_score *score;
//! double bits;
//! if (bolmo_model_score(model, text, size, NULL, &score) == BOLMO_OK) {
//!     bolmo_score_number(score, BOLMO_SCORE_BITS_PER_BYTE_JOINT, &bits);
//!     printf("%.4f bits per byte\n", bits);
//!     bolmo_score_delete(score);
//! }
//! ```

use std::ffi::c_void;
use std::sync::Mutex;

use bolmo_runtime::{Error, ErrorKind, Result, Score, ScoreOptions, block_on};

use crate::generate::chosen_logprobs;
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::model::{Progress, bolmo_model, bolmo_progress_callback};
use crate::session::telling;
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// Options for scoring.
pub struct bolmo_score_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_score_options, Mutex<Scoring>);

/// The score of a text. Any number of threads may use it at once.
pub struct bolmo_score {
    _opaque: [u8; 0],
}
opaque!(bolmo_score, Scored);

/// A number of a score.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_score_value {
    /// Bits per byte, of the bytes together with the patch boundaries.
    BOLMO_SCORE_BITS_PER_BYTE_JOINT = 0,
    /// Bits per byte, of the bytes alone. The model sees a little of each next byte, so this is not comparable with the
    /// bits per byte of a subword model.
    BOLMO_SCORE_BITS_PER_BYTE_FOLDED = 1,
    /// Natural log-probability of the bytes together with the patch boundaries.
    BOLMO_SCORE_LOG_LIKELIHOOD_JOINT = 2,
    /// Natural log-probability of the bytes alone.
    BOLMO_SCORE_LOG_LIKELIHOOD_FOLDED = 3,
    /// Number of predicted bytes.
    BOLMO_SCORE_BYTES = 4,
    /// Number of patches that end inside the text.
    BOLMO_SCORE_PATCHES = 5,
}

/// A tensor of the forward pass, for n ids, p patches and hidden size D.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_tensor {
    /// Encoder output after its norm, `[n, D]`.
    BOLMO_TENSOR_ENCODER_OUT = 0,
    /// Log-probability that a patch ends, `[n]`.
    BOLMO_TENSOR_BOUNDARY_LOGPROBS = 1,
    /// Input of the global blocks, `[p, D]`.
    BOLMO_TENSOR_PATCH_EMBEDDINGS = 2,
    /// Output of the global blocks, `[p, D]`.
    BOLMO_TENSOR_GLOBAL_OUT = 3,
    /// Decoder output before the final norm, `[n, D]`.
    BOLMO_TENSOR_DECODER_OUT = 4,
    /// Decoder output after the final norm, `[n, D]`.
    BOLMO_TENSOR_FINAL_HIDDEN = 5,
    /// Logits, `[n, 520]`.
    BOLMO_TENSOR_LOGITS = 6,
}

#[derive(Clone)]
pub(crate) struct Scoring {
    boundaries: Option<Vec<bool>>,
    tensors: bool,
    progress: Progress,
}

/// A score, with its boundary flags as bytes and its log-probabilities as floats.
pub(crate) struct Scored {
    score: Score,
    boundaries: Vec<u8>,
    /// Log-probabilities of the predicted bytes, joint and folded.
    logprobs: [Vec<f32>; 2],
}

/// Creates options with the defaults: boundaries from the model, no tensors, no progress callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_options_create(options: *mut *mut bolmo_score_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        let progress = Progress::new(None, std::ptr::null_mut());
        options.set(handle::insert(Mutex::new(Scoring { boundaries: None, tensors: false, progress }))?);
        Ok(())
    })
}

/// Sets which bytes end a patch, one flag (0 or 1) for each byte or id, instead of the model's decision. The flags are
/// copied; NULL and 0 remove them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_options_set_boundaries(
    options: *mut bolmo_score_options,
    flags: *const u8,
    count: usize,
) -> bolmo_status {
    call(|| {
        let flags = trusted!(input::items(flags, count, "flags"))?;
        if let Some(at) = flags.iter().position(|&flag| flag > 1) {
            return Err(invalid(format!("flags: expected 0 or 1, found {} at index {at}", flags[at])));
        }
        let object = handle::get(options)?;
        lock(&object, "bolmo_score_options")?.boundaries =
            (!flags.is_empty()).then(|| flags.iter().map(|&flag| flag == 1).collect());
        Ok(())
    })
}

/// Sets whether to keep every intermediate tensor, which takes memory for about 600 + 6 D numbers per byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_options_set_tensors(
    options: *mut bolmo_score_options,
    keep: bool,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_score_options")?.tensors = keep;
        Ok(())
    })
}

/// Sets the progress callback, which counts bytes and can cancel; NULL for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_options_set_progress(
    options: *mut bolmo_score_options,
    progress: bolmo_progress_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_score_options")?.progress = Progress::new(progress, user_data);
        Ok(())
    })
}

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_score_options_delete(options: *mut bolmo_score_options) {
    handle::delete(options);
}

/// Runs `run` with the options and writes its score to `out`.
fn score(
    options: *const bolmo_score_options,
    out: *mut *mut bolmo_score,
    run: impl FnOnce(&ScoreOptions, &mut (dyn FnMut(usize, usize) + Send)) -> Result<Score>,
) -> Result<()> {
    let out = trusted!(Out::new(out, "score"))?;
    let scoring = match handle::get_optional(options)? {
        Some(object) => Some(lock(&object, "bolmo_score_options")?.clone()),
        None => None,
    };
    let mut options = ScoreOptions::default();
    let mut progress = Progress::new(None, std::ptr::null_mut());
    if let Some(scoring) = scoring {
        options.boundaries = scoring.boundaries;
        options.dump = scoring.tensors;
        progress = scoring.progress;
    }
    let score = telling(progress, &options.cancel.clone(), |tell| run(&options, tell))?;
    let boundaries = score.boundaries.iter().map(|&end| end.into()).collect();
    let logprobs = [&score.log_likelihoods, &score.log_likelihoods_marginal].map(|all| {
        // A first id that is not predicted is among them.
        all[all.len() - score.bytes..].iter().map(|&value| value as f32).collect()
    });
    out.set(handle::insert(Scored { score, boundaries, logprobs })?);
    Ok(())
}

/// Scores a text, any bytes. It is preceded by the id that begins a text and followed by a newline as lookahead;
/// neither is counted. `options` may be NULL; they are read during the call only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_score(
    model: *const bolmo_model,
    data: *const c_void,
    size: usize,
    options: *const bolmo_score_options,
    score: *mut *mut bolmo_score,
) -> bolmo_status {
    call(|| {
        let data = trusted!(input::bytes(data, size, "data"))?;
        let model = handle::get(model)?;
        self::score(options, score, |options, tell| block_on(model.model.score_text(data, options, tell)))
    })
}

/// Scores plain ids (0, 1, 4 to 259) as they are, at least two. The first id is not predicted; the last one never ends
/// a patch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_score_ids(
    model: *const bolmo_model,
    ids: *const u32,
    count: usize,
    options: *const bolmo_score_options,
    score: *mut *mut bolmo_score,
) -> bolmo_status {
    call(|| {
        let ids = trusted!(input::items(ids, count, "ids"))?;
        let model = handle::get(model)?;
        self::score(options, score, |options, tell| block_on(model.model.score_ids(ids, options, tell)))
    })
}

/// Gets a number of the score (bolmo_score_value).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_number(score: *const bolmo_score, which: i32, number: *mut f64) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        let object = handle::get(score)?;
        let score = &object.score;
        number.set(match which {
            0 => score.bits_per_byte_joint(),
            1 => score.bits_per_byte_marginal(),
            2 => score.log_likelihood_joint,
            3 => score.log_likelihood_marginal,
            4 => score.bytes as f64,
            5 => score.patches as f64,
            other => return Err(invalid(format!("which: expected a bolmo_score_value (0 to 5), found {other}"))),
        });
        Ok(())
    })
}

/// Gets the log-probability of each predicted byte or id (BOLMO_SCORE_BYTES of them), of kind `which` (bolmo_logprob).
/// They add up to the log-likelihood of that kind, except for rounding. bolmo_model_score_ids predicts all ids but the
/// first. Valid until the score is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_logprobs(
    score: *const bolmo_score,
    which: i32,
    logprobs: *mut *const f32,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let (logprobs, count) = trusted!((Out::new(logprobs, "logprobs")?, Out::new(count, "count")?));
        let score = handle::get(score)?;
        let [joint, folded] = &score.logprobs;
        let found = chosen_logprobs(which, joint, folded)?;
        logprobs.set(found.as_ptr());
        count.set(found.len());
        Ok(())
    })
}

/// Gets which bytes or ids end a patch, one flag (0 or 1) each. Valid until the score is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_boundaries(
    score: *const bolmo_score,
    flags: *mut *const u8,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let (flags, count) = trusted!((Out::new(flags, "flags")?, Out::new(count, "count")?));
        let score = handle::get(score)?;
        flags.set(score.boundaries.as_ptr());
        count.set(score.boundaries.len());
        Ok(())
    })
}

/// Gets a tensor (bolmo_tensor), row by row; `columns` is 1 for a tensor of one dimension. Valid until the score is
/// deleted.
///
/// BOLMO_NOT_FOUND: the options did not ask for tensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_score_tensor(
    score: *const bolmo_score,
    which: i32,
    data: *mut *const f32,
    rows: *mut usize,
    columns: *mut usize,
) -> bolmo_status {
    call(|| {
        let data = trusted!(Out::new(data, "data"))?;
        let (rows, columns) = trusted!((Out::new(rows, "rows")?, Out::new(columns, "columns")?));
        let object = handle::get(score)?;
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                "the score has no tensors; call bolmo_score_options_set_tensors before scoring",
            )
        };
        let tensors = object.score.dump.as_ref().ok_or_else(missing)?;
        let n = tensors.ids.len();
        let p = tensors.boundary_mask.iter().filter(|&&end| end).count();
        let (values, count) = match which {
            0 => (&tensors.encoder_out, n),
            1 => (&tensors.boundary_logprobs, n),
            2 => (&tensors.patch_embeddings, p),
            3 => (&tensors.global_out, p),
            4 => (&tensors.decoder_out, n),
            5 => (&tensors.final_hidden, n),
            6 => (&tensors.logits, n),
            other => return Err(invalid(format!("which: expected a bolmo_tensor (0 to 6), found {other}"))),
        };
        data.set(values.as_ptr());
        rows.set(count);
        columns.set(values.len().checked_div(count).unwrap_or(0));
        Ok(())
    })
}

/// Deletes the score. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_score_delete(score: *mut bolmo_score) {
    handle::delete(score);
}
