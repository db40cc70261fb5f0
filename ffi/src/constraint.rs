//! Constraints: what a generation may write, byte for byte.
//!
//! A constraint is a regular expression or a JSON schema. A generation with one writes only texts that match it, whatever the model
//! would rather write. Bytes that must follow are not sampled, which also makes it faster. As long as the budget of bytes allows for
//! any match, the text is completed in time: near the end only bytes are chosen from which a match can still be completed.
//!
//! ```c
//! bolmo_constraint *constraint;
//! const char *pattern = "(yes|no), because [a-z ]{10,60}\\.";
//! if (bolmo_constraint_create_regex(pattern, strlen(pattern), &constraint) == BOLMO_OK) {
//!     bolmo_generate_options_set_constraint(options, constraint);
//!     bolmo_constraint_delete(constraint); // the options keep what they need
//! }
//! ```
//!
//! Programs that choose bytes by themselves follow a text with a matcher:
//!
//! ```c
//! bolmo_matcher *matcher;
//! uint8_t allowed[BOLMO_CANDIDATES];
//! bolmo_matcher_create(constraint, &matcher);
//! bolmo_matcher_allowed(matcher, 0, allowed);  // allowed[b] for byte b, allowed[256] for the end
//! bolmo_matcher_advance(matcher, "yes", 3);
//! ```

use std::ffi::c_void;
use std::sync::Mutex;

use bolmo_runtime::stages::sample::CANDIDATES;
use bolmo_runtime::{Constraint, Matcher};

use crate::handle::{self, opaque};
use crate::input::{self, Out};
use crate::status::{bolmo_status, call};
use crate::text::lock;

const _: () = assert!(BOLMO_CANDIDATES == CANDIDATES);

/// What a text must match as a whole. Compiled once; any number of threads may use it at once.
pub struct bolmo_constraint {
    _opaque: [u8; 0],
}
opaque!(bolmo_constraint, Constraint);

/// How far a text is within a match. For one thread at a time.
pub struct bolmo_matcher {
    _opaque: [u8; 0],
}
opaque!(bolmo_matcher, Mutex<Matcher>);

/// A regular expression in the syntax of Rust's regex crate, UTF-8. The whole text must match it: `^` and `$` around it are implied.
/// `(?-u)` switches to single bytes, so `(?s-u:.)` is any byte.
///
/// BOLMO_INVALID_ARGUMENT: the expression is malformed, or matches nothing. BOLMO_UNSUPPORTED: it is too large; the message says by
/// which limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_constraint_create_regex(
    pattern: *const c_void,
    size: usize,
    constraint: *mut *mut bolmo_constraint,
) -> bolmo_status {
    call(|| {
        let constraint = trusted!(Out::new(constraint, "constraint"))?;
        let pattern = trusted!(input::text(pattern, size, "pattern"))?;
        constraint.set(handle::insert(Constraint::regex(pattern)?)?);
        Ok(())
    })
}

/// A JSON schema, of which the common subset is understood: the text must be one JSON document that is valid against it, without
/// white space but for single spaces behind ':' and ','. Members come in the order of `properties`.
///
/// BOLMO_INVALID_ARGUMENT: no schema, or one that nothing is valid against. BOLMO_UNSUPPORTED: a keyword that is not understood, or
/// too large. The message says where in the schema.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_constraint_create_json_schema(
    schema: *const c_void,
    size: usize,
    constraint: *mut *mut bolmo_constraint,
) -> bolmo_status {
    call(|| {
        let constraint = trusted!(Out::new(constraint, "constraint"))?;
        let schema = trusted!(input::bytes(schema, size, "schema"))?;
        constraint.set(handle::insert(Constraint::json_schema(schema)?)?);
        Ok(())
    })
}

/// Whether a text matches as a whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_constraint_matches(
    constraint: *const bolmo_constraint,
    data: *const c_void,
    size: usize,
    matches: *mut bool,
) -> bolmo_status {
    call(|| {
        let matches = trusted!(Out::new(matches, "matches"))?;
        let data = trusted!(input::bytes(data, size, "data"))?;
        matches.set(handle::get(constraint)?.matches(data));
        Ok(())
    })
}

/// Bytes of the shortest text that matches.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_constraint_shortest(
    constraint: *const bolmo_constraint,
    bytes: *mut usize,
) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        bytes.set(handle::get(constraint)?.shortest());
        Ok(())
    })
}

/// Deletes the constraint; options and matchers that use it go on. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_constraint_delete(constraint: *mut bolmo_constraint) {
    handle::delete(constraint);
}

/// A matcher at the beginning of a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_create(
    constraint: *const bolmo_constraint,
    matcher: *mut *mut bolmo_matcher,
) -> bolmo_status {
    call(|| {
        let matcher = trusted!(Out::new(matcher, "matcher"))?;
        let start = handle::get(constraint)?.matcher();
        matcher.set(handle::insert(Mutex::new(start))?);
        Ok(())
    })
}

/// Another matcher at the same place, which goes its own way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_clone(
    matcher: *const bolmo_matcher,
    clone: *mut *mut bolmo_matcher,
) -> bolmo_status {
    call(|| {
        let clone = trusted!(Out::new(clone, "clone"))?;
        let object = handle::get(matcher)?;
        let copy = lock(&object, "bolmo_matcher")?.clone();
        clone.set(handle::insert(Mutex::new(copy))?);
        Ok(())
    })
}

/// What may follow a text: the 256 bytes, and its end.
pub const BOLMO_CANDIDATES: usize = 257;

/// What may follow: writes BOLMO_CANDIDATES flags, 1 or 0, to `allowed`, one for each byte and at 256 whether the text may end here. With
/// `remaining` above 0 only bytes count after which a match can be completed within that many bytes; if none can, all count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_allowed(
    matcher: *const bolmo_matcher,
    remaining: usize,
    allowed: *mut u8,
) -> bolmo_status {
    call(|| {
        let allowed = trusted!(Out::new(allowed.cast::<[u8; BOLMO_CANDIDATES]>(), "allowed"))?;
        let object = handle::get(matcher)?;
        let mask = lock(&object, "bolmo_matcher")?.allowed((remaining > 0).then_some(remaining));
        allowed.set(mask.map(u8::from));
        Ok(())
    })
}

/// Takes the next bytes of the text.
///
/// BOLMO_INVALID_ARGUMENT: one of them is not allowed; the matcher is then as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_advance(
    matcher: *mut bolmo_matcher,
    data: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let data = trusted!(input::bytes(data, size, "data"))?;
        let object = handle::get(matcher)?;
        let mut this = lock(&object, "bolmo_matcher")?;
        let mut ahead = this.clone();
        data.iter().try_for_each(|&byte| ahead.advance(byte))?;
        *this = ahead;
        Ok(())
    })
}

/// Whether the text so far matches as a whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_is_match(matcher: *const bolmo_matcher, is_match: *mut bool) -> bolmo_status {
    call(|| {
        let is_match = trusted!(Out::new(is_match, "is_match"))?;
        let object = handle::get(matcher)?;
        is_match.set(lock(&object, "bolmo_matcher")?.is_match());
        Ok(())
    })
}

/// Deletes the matcher. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_matcher_delete(matcher: *mut bolmo_matcher) {
    handle::delete(matcher);
}
