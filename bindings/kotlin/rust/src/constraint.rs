//! Constraints and matchers.

use bolmo::constraint::*;
use jni_sys::{jboolean, jlong};

use crate::env::{ByteArray, at, size};
use crate::native::{check, make, number, read};

natives! {
    fn constraintCreateRegex(env, pattern: ByteArray) -> jlong {
        let pattern = env.bytes(pattern)?;
        make(|out| abi!(bolmo_constraint_create_regex(pattern.pointer().cast(), pattern.len(), out)))
    }

    fn constraintCreateJsonSchema(env, schema: ByteArray) -> jlong {
        let schema = env.bytes(schema)?;
        make(|out| abi!(bolmo_constraint_create_json_schema(schema.pointer().cast(), schema.len(), out)))
    }

    fn constraintMatches(env, constraint: jlong, data: ByteArray) -> jboolean {
        let data = env.bytes(data)?;
        read(|out| abi!(bolmo_constraint_matches(at(constraint), data.pointer().cast(), data.len(), out)))
    }

    fn constraintShortest(_env, constraint: jlong) -> jlong {
        number(|out| abi!(bolmo_constraint_shortest(at(constraint), out)))
    }

    fn constraintDelete(_env, constraint: jlong) {
        bolmo_constraint_delete(at(constraint));
        Ok(())
    }

    fn matcherCreate(_env, constraint: jlong) -> jlong {
        make(|out| abi!(bolmo_matcher_create(at(constraint), out)))
    }

    fn matcherClone(_env, matcher: jlong) -> jlong { make(|out| abi!(bolmo_matcher_clone(at(matcher), out))) }

    fn matcherAllowed(env, matcher: jlong, remaining: jlong) -> ByteArray {
        let remaining = size(remaining, "remaining")?;
        let mut allowed = [0; BOLMO_CANDIDATES];
        check(abi!(bolmo_matcher_allowed(at(matcher), remaining, allowed.as_mut_ptr())))?;
        env.byte_array(&allowed)
    }

    fn matcherAdvance(env, matcher: jlong, data: ByteArray) {
        let data = env.bytes(data)?;
        check(abi!(bolmo_matcher_advance(at(matcher), data.pointer().cast(), data.len())))
    }

    fn matcherIsMatch(_env, matcher: jlong) -> jboolean {
        read(|out| abi!(bolmo_matcher_is_match(at(matcher), out)))
    }

    fn matcherDelete(_env, matcher: jlong) {
        bolmo_matcher_delete(at(matcher));
        Ok(())
    }
}
