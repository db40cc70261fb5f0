//! Numbers on the command line, each with its valid range.

use std::fmt::Display;
use std::str::FromStr;

use bolmo_runtime::{Config, Formats, Preset, Products, RopeScaling};

/// Parses a number and checks it. `range` completes the sentence "expected …".
fn ranged<T: FromStr + Display>(text: &str, range: &str, fits: impl Fn(&T) -> bool) -> Result<T, String> {
    text.trim().parse().ok().filter(fits).ok_or_else(|| format!("expected {range}"))
}

/// 1, 2, …
pub fn at_least_one(text: &str) -> Result<usize, String> {
    ranged(text, &format!("a whole number from 1 to {}", usize::MAX), |&n: &usize| n >= 1)
}

/// 0, 1, …
pub fn whole(text: &str) -> Result<usize, String> {
    ranged(text, &format!("a whole number from 0 to {}", usize::MAX), |_| true)
}

fn between(text: &str, first: usize, last: usize) -> Result<usize, String> {
    ranged(text, &format!("a whole number from {first} to {last}"), |n: &usize| (first..=last).contains(n))
}

/// Bytes of a measured text: at most as many as a prompt file may have.
pub fn measured_bytes(text: &str) -> Result<usize, String> {
    between(text, 1, 1 << 28)
}

/// Number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    between(text, 1, 256)
}

/// Arithmetic of products.
pub fn products(text: &str) -> Result<Products, String> {
    match text {
        "f32" => Ok(Products::F32),
        "int8" => Ok(Products::Int8),
        _ => Err("expected f32 or int8".to_owned()),
    }
}

/// Number of sessions that are decoded together.
pub fn parallel(text: &str) -> Result<usize, String> {
    between(text, 1, 1024)
}

/// Number of questions of each kind.
pub fn examples(text: &str) -> Result<usize, String> {
    between(text, 1, 100_000)
}

/// Number of answered questions before each question.
pub fn shots(text: &str) -> Result<usize, String> {
    between(text, 0, 64)
}

/// Any seed.
pub fn seed(text: &str) -> Result<u64, String> {
    ranged(text, "a whole number from 0 to 18446744073709551615", |_| true)
}

/// Any finite number.
pub fn finite(text: &str) -> Result<f32, String> {
    // Beyond the range of f32 the largest number stands for it.
    ranged(text, "a finite number", |x: &f64| x.is_finite()).map(|x| x.clamp(f32::MIN.into(), f32::MAX.into()) as f32)
}

/// A finite number of at least 0.
pub fn zero_or_above(text: &str) -> Result<f32, String> {
    ranged(text, "a finite number of at least 0", |x: &f32| x.is_finite() && *x >= 0.0)
}

/// A finite number above 0.
pub fn above_zero(text: &str) -> Result<f32, String> {
    ranged(text, "a finite number above 0", |x: &f32| x.is_finite() && *x > 0.0)
}

/// A finite number of at least 1.
pub fn bytes_per_patch(text: &str) -> Result<f64, String> {
    ranged(text, "a finite number of at least 1", |x: &f64| x.is_finite() && *x >= 1.0)
}

/// Bytes per patch to train for. The run itself checks that a number above 0 is at least 1.
pub fn target_compression(text: &str) -> Result<f64, String> {
    ranged(text, "a finite number of at least 1", |x: &f64| x.is_finite() && *x > 0.0)
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f32, String> {
    ranged(text, "a number from 0 to 1", |x: &f32| (0.0..=1.0).contains(x))
}

/// A number above 0 and up to 1.
pub fn share_above_zero(text: &str) -> Result<f32, String> {
    ranged(text, "a number above 0 and up to 1", |x: &f32| *x > 0.0 && *x <= 1.0)
}

/// Weight formats, in lower or upper case.
pub fn formats(text: &str) -> Result<Formats, String> {
    text.to_ascii_lowercase().parse().map_err(|error: bolmo_runtime::Error| error.message().to_owned())
}

/// A model size, in lower or upper case.
pub fn preset(text: &str) -> Result<Preset, String> {
    text.to_ascii_lowercase().parse().map_err(|error: bolmo_runtime::Error| error.message().to_owned())
}

/// The choice of an adapter. Its own words may be in upper case; names are compared without regard to it anyway.
pub fn adapter(text: &str) -> Result<String, String> {
    match &*text.trim().to_ascii_lowercase() {
        "" => Err("expected a name, a number, low-power, cpu or software".to_owned()),
        word @ ("auto" | "low-power" | "cpu" | "software") => Ok(word.to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Base of the rotary frequencies.
pub fn rope_theta(text: &str) -> Result<f64, String> {
    let theta = ranged(text, "a number", |_: &f64| true)?;
    Config::check_rope_theta(theta).map(|()| theta).map_err(|error| error.message().to_owned())
}

/// Scaling of the rotary frequencies.
pub fn rope_scaling(text: &str) -> Result<RopeScaling, String> {
    text.parse().map_err(|error: bolmo_runtime::Error| error.message().to_owned())
}

/// `BYTE=X`, where BYTE is a character of one byte or `0xNN`.
pub fn byte_bias(text: &str) -> Result<(u8, f32), String> {
    // The number contains no `=`, so the byte itself may be one.
    let (byte, bias) = text.rsplit_once('=').ok_or("expected BYTE=X, as in e=2.5 or 0x0a=-100")?;
    let hexadecimal = byte
        .strip_prefix("0x")
        .filter(|digits| matches!(digits.len(), 1 | 2) && digits.chars().all(|digit| digit.is_ascii_hexdigit()));
    let byte = match (byte.as_bytes(), hexadecimal.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
        (_, Some(byte)) => byte,
        (&[byte], None) => byte,
        (bytes, None) if byte.chars().count() == 1 => {
            let all: Vec<String> = bytes.iter().map(|b| format!("0x{b:02x}")).collect();
            return Err(format!("{byte} has {} bytes; give one of them: {}", bytes.len(), all.join(", ")));
        }
        _ => return Err(format!("expected one character or 0x00 to 0xff before the =, found {byte:?}")),
    };
    Ok((byte, finite(bias).map_err(|range| format!("{range} after the =, found {bias:?}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_bias_accepts_any_single_byte_and_rejects_the_rest() {
        for (text, expected) in
            [("e=2.5", (b'e', 2.5)), ("==1", (b'=', 1.0)), ("-=-3", (b'-', -3.0)), ("0xfF=0", (255, 0.0))]
        {
            assert_eq!(byte_bias(text), Ok(expected), "{text}");
        }
        for text in ["", "e", "=1", "e=", "ab=1", "0x=1", "0x100=1", "0x+1=1", "e=nan", "e=inf", "\u{e9}=1"] {
            assert!(byte_bias(text).is_err(), "{text}");
        }
        assert!(byte_bias("\u{e9}=1").is_err_and(|e| e.contains("0xc3, 0xa9")));
    }

    #[test]
    fn ranges_hold_at_their_ends() {
        assert_eq!(at_least_one("1"), Ok(1));
        assert!(["0", "-1", "1.5", "x", "", "99999999999999999999999"].iter().all(|t| at_least_one(t).is_err()));
        assert_eq!((zero_or_above("0"), share("1"), share_above_zero("1")), (Ok(0.0), Ok(1.0), Ok(1.0)));
        assert!(["-0.1", "nan", "inf", "1e99"].iter().all(|t| zero_or_above(t).is_err()));
        assert!(["0", "1.1", "nan"].iter().all(|t| share_above_zero(t).is_err()));
        assert!(["0", "-1", "inf"].iter().all(|t| above_zero(t).is_err()));
        assert!(["1", "0", "inf", "nan"].iter().all(|t| rope_theta(t).is_err()));
        assert_eq!((bytes_per_patch("1"), bytes_per_patch("4.4")), (Ok(1.0), Ok(4.4)));
        assert!(["0.99", "-5", "inf", "nan", "x"].iter().all(|t| bytes_per_patch(t).is_err()));
        assert!(["0", "-5", "inf", "nan", "x"].iter().all(|t| target_compression(t).is_err()));
        assert_eq!((measured_bytes("268435456"), parallel("1024"), shots("0")), (Ok(1 << 28), Ok(1024), Ok(0)));
        assert!(["0", "268435457", "18446744073709551615"].iter().all(|t| measured_bytes(t).is_err()));
        assert_eq!(parallel("1025"), Err("expected a whole number from 1 to 1024".to_owned()));
        assert_eq!(shots("65"), Err("expected a whole number from 0 to 64".to_owned()));
        assert!(["", " "].iter().all(|t| adapter(t).is_err()));
        assert_eq!(adapter("software"), Ok("software".to_owned()));
    }

    #[test]
    fn names_may_be_in_upper_case() {
        assert_eq!(adapter("CPU"), Ok("cpu".to_owned()));
        assert_eq!(adapter("Low-Power"), Ok("low-power".to_owned()));
        assert_eq!(adapter("Some GPU"), Ok("Some GPU".to_owned()));
        assert_eq!(formats("Q4,Local=Q8"), formats("q4,local=q8"));
        assert!(formats("Q8").is_ok() && preset("Bolmo-1B").is_ok_and(|preset| preset.to_string() == "bolmo-1b"));
    }
}
