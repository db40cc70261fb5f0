//! Constraints: what a generation may write, byte by byte.
//!
//! A constraint is a regular expression or a JSON schema. A generation with a constraint writes only texts that match
//! it, whatever the model prefers. Bytes that the constraint determines are not sampled, which also makes generation
//! faster. If the byte budget allows for any match, the text is completed in time: near the end of the budget only
//! those bytes are chosen that still lead to a match.
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
//! Programs that choose bytes themselves follow a text with a matcher:
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

use bolmo_runtime::CANDIDATES;
use bolmo_runtime::{Constraint, Matcher};

use crate::handle::{self, opaque};
use crate::input::{self, Out};
use crate::status::{bolmo_status, call};
use crate::text::lock;

const _: () = assert!(BOLMO_CANDIDATES == CANDIDATES);

/// A pattern that a whole text must match. It is compiled once; any number of threads may use it at once.
pub struct bolmo_constraint {
    _opaque: [u8; 0],
}
opaque!(bolmo_constraint, Constraint);

/// The state of a text within a match. For one thread at a time.
pub struct bolmo_matcher {
    _opaque: [u8; 0],
}
opaque!(bolmo_matcher, Mutex<Matcher>);

/// Creates a constraint from a regular expression in the syntax of Rust's regex crate, UTF-8. The whole text must match
/// it: `^` and `$` around it are implied. `(?-u)` switches to single bytes, so `(?s-u:.)` is any byte.
///
/// BOLMO_INVALID_ARGUMENT: the expression is malformed, or matches nothing. BOLMO_UNSUPPORTED: it is too large; the
/// message names the limit.
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

/// Creates a constraint from a JSON schema; the common subset of keywords is supported. The text must be one JSON
/// document that is valid against the schema, without white space except single spaces after ':' and ','. Members come
/// in the order of `properties`.
///
/// BOLMO_INVALID_ARGUMENT: this is not a schema, or nothing is valid against it. BOLMO_UNSUPPORTED: it has an
/// unsupported keyword or is too large. The message names the place in the schema.
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

/// Gets whether a whole text matches.
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

/// Gets the length of the shortest matching text, in bytes.
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

/// Deletes the constraint. Options and matchers that use it keep working. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_constraint_delete(constraint: *mut bolmo_constraint) {
    handle::delete(constraint);
}

/// Creates a matcher at the start of a text.
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

/// Creates an independent matcher at the same place.
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

/// Candidates for the next step: the 256 bytes, and the end of the text.
pub const BOLMO_CANDIDATES: usize = 257;

/// Writes what may follow to `allowed`: BOLMO_CANDIDATES flags, 1 or 0, one for each byte, and at 256 whether the text
/// may end here. With `remaining` above 0, a byte is allowed only if a match can be completed within that many bytes;
/// if no byte qualifies, `remaining` is ignored.
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
/// BOLMO_INVALID_ARGUMENT: one of the bytes is not allowed; the matcher is unchanged.
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

/// Gets whether the whole text so far matches.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_matcher_is_match(matcher: *const bolmo_matcher, is_match: *mut bool) -> bolmo_status {
    call(|| {
        let is_match = trusted!(Out::new(is_match, "is_match"))?;
        let object = handle::get(matcher)?;
        is_match.set(lock(&object, "bolmo_matcher")?.is_match());
        Ok(())
    })
}

/// Deletes the matcher. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_matcher_delete(matcher: *mut bolmo_matcher) {
    handle::delete(matcher);
}
