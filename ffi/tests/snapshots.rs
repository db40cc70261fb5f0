//! Damaged snapshots with a valid checksum, through the functions of the C ABI: each gives a clean status, or a session
//! that works.

mod common;

use std::ffi::CStr;
use std::ptr::null_mut;

use bolmo::checkpoint::{bolmo_checkpoint_delete, bolmo_checkpoint_open};
use bolmo::engine::bolmo_engine_delete;
use bolmo::generate::bolmo_session_generate;
use bolmo::library::bolmo_handle_count;
use bolmo::model::{bolmo_model_delete, bolmo_model_load};
use bolmo::options::{
    bolmo_generate_options_create, bolmo_generate_options_delete, bolmo_generate_options_set_max_bytes,
};
use bolmo::session::*;
use bolmo::status::bolmo_last_error_message;
use bolmo::status::bolmo_status::{self, *};
use bolmo::text::{bolmo_bytes_delete, bolmo_bytes_get};
use bolmo_tests::{checksum, fixtures};

use common::open_engine;

/// Calls a function of the ABI.
macro_rules! abi {
    ($call:expr) => {
        // SAFETY: every pointer in these tests points to a live object, and every length is true.
        unsafe { $call }
    };
}

fn message() -> String {
    abi!(CStr::from_ptr(bolmo_last_error_message())).to_str().expect("UTF-8").to_owned()
}

fn ok(status: bolmo_status) {
    assert_eq!(status, BOLMO_OK, "{}", message());
}

/// Pseudo-random numbers from a fixed seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// Restores `bytes` after correcting their checksum. Returns whether the snapshot was accepted.
fn try_restore(model: *const bolmo::model::bolmo_model, bytes: &mut [u8], what: &str) -> bool {
    let body = bytes.len() - 8;
    let sum = checksum(&bytes[..body]);
    bytes[body..].copy_from_slice(&sum.to_le_bytes());
    let mut session = null_mut();
    match abi!(bolmo_session_restore(model, bytes.as_ptr().cast(), bytes.len(), &mut session)) {
        BOLMO_OK => {}
        BOLMO_BAD_CHECKPOINT | BOLMO_INVALID_ARGUMENT => {
            assert!(session.is_null() && message().contains("snapshot"), "{what}: {}", message());
            return false;
        }
        other => panic!("{what}: {other:?}: {}", message()),
    }
    // An accepted snapshot may hold nonsense, even NaNs, but the session works or reports an error.
    let mut options = null_mut();
    ok(abi!(bolmo_generate_options_create(&mut options)));
    ok(abi!(bolmo_generate_options_set_max_bytes(options, 2)));
    let fine = |status| matches!(status, BOLMO_OK | BOLMO_BAD_CHECKPOINT | BOLMO_INVALID_ARGUMENT);
    let generated = abi!(bolmo_session_generate(session, options, None, null_mut(), null_mut()));
    assert!(fine(generated), "{what}: {generated:?}: {}", message());
    let appended = abi!(bolmo_session_append(session, c"abc".as_ptr().cast(), 3, None, null_mut()));
    assert!(fine(appended), "{what}: {appended:?}: {}", message());
    let mut again = null_mut();
    if abi!(bolmo_session_snapshot(session, &mut again)) == BOLMO_OK {
        bolmo_bytes_delete(again);
    }
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
    true
}

#[test]
fn damaged_snapshots_with_a_valid_checksum_are_rejected_or_usable() {
    let (mut checkpoint, mut model, mut session, mut snapshot) = (null_mut(), null_mut(), null_mut(), null_mut());
    let engine = open_engine();
    let folder = fixtures().join("infer/models/nano_trained");
    let folder = folder.to_str().expect("UTF-8");
    ok(abi!(bolmo_checkpoint_open(folder.as_ptr().cast(), folder.len(), &mut checkpoint)));
    ok(abi!(bolmo_model_load(engine, checkpoint, null_mut(), &mut model)));
    ok(abi!(bolmo_session_create(model, &mut session)));
    let text = "class Reader:\n    def ";
    ok(abi!(bolmo_session_append_bos(session)));
    ok(abi!(bolmo_session_append(session, text.as_ptr().cast(), text.len(), None, null_mut())));
    ok(abi!(bolmo_session_snapshot(session, &mut snapshot)));
    let (mut data, mut size) = (std::ptr::null(), 0);
    ok(abi!(bolmo_bytes_get(snapshot, &mut data, &mut size)));
    let good = abi!(std::slice::from_raw_parts(data, size)).to_vec();
    bolmo_bytes_delete(snapshot);

    let mut numbers = Numbers(1);
    let (mut tried, mut taken) = (0, 0);
    let mut restore = |bytes: &mut [u8], what: &str| {
        tried += 1;
        taken += usize::from(try_restore(model, bytes, what));
    };
    restore(&mut good.clone(), "unchanged");
    // The start, where all the numbers are, and samples of the rest.
    let places: Vec<usize> = (0..200).chain((0..300).map(|_| numbers.below(size - 8))).collect();
    for at in places {
        let mut bytes = good.clone();
        bytes[at] ^= 1 + numbers.below(255) as u8;
        let what = format!("byte {at} is {:#04x} instead of {:#04x}", bytes[at], good[at]);
        restore(&mut bytes, &what);
    }
    // Numbers of 8 bytes that are slightly too large, far too large, or the largest possible.
    for at in 28..200 {
        for number in [u64::MAX, i64::MAX as u64, 1 << 32, 0] {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            restore(&mut bytes, &format!("{number} at byte {at}"));
        }
    }
    // Truncated, and extended.
    for len in (8..200).chain((200..size).step_by(101)) {
        let mut bytes = good[..len].to_vec();
        restore(&mut bytes, &format!("cut to {len} bytes"));
    }
    for more in [1, 8, 1000] {
        let mut bytes = good.clone();
        bytes.resize(size + more, 0);
        restore(&mut bytes, &format!("{more} bytes more"));
    }
    eprintln!("{taken} of {tried} damaged snapshots were accepted");
    bolmo_session_delete(session);
    bolmo_model_delete(model);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_engine_delete(engine);
    assert_eq!(bolmo_handle_count(), 0);
}
