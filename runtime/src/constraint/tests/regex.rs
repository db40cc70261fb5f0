//! Regular expressions: matches compared with another engine, errors and limits.

use std::time::{Duration, Instant};

use regex_automata::nfa::thompson::pikevm::PikeVM;

use crate::constraint::{Constraint, Matcher};
use crate::error::ErrorKind;
use crate::sampling::host::END;

/// All texts of at most `length` bytes from an alphabet.
fn texts(alphabet: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last.iter().flat_map(|text| alphabet.iter().map(move |&byte| [&text[..], &[byte]].concat())).collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn patterns_match_the_same_texts_as_in_another_engine() {
    let short = texts(b"ab0 \n", 5);
    let odd = texts(&[b'a', 0xc3, 0xa9, 0xff], 5);
    for pattern in [
        "a",
        "",
        "a*",
        "a|ab|abb",
        "(a|b)*0",
        "a+?b",
        "(?:a|ab)(?:b|0a)?",
        "[^a]+",
        ".*",
        "(?s).*",
        "(?s-u).*",
        "a{2,3}b{0,2}",
        "^a$",
        "a$|b",
        "(?m)a$\nb?",
        "(?m)^a\n^b",
        r"(?-u)\ba\b.*",
        r"(?-u)a\Bb",
        r"\d+|\w*",
        "(?i)A[B-]",
        "é*",
        r"(?-u)\xff|\xc3a",
        "[^ab]|a.",
        r"\s*a?\s*",
        "((a?)*)*b",
        "a??b??0??",
    ] {
        let constraint = Constraint::regex(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let whole = format!(r"\A(?:{pattern})\z");
        let syntax = regex_automata::util::syntax::Config::new().utf8(false);
        let other = PikeVM::builder().syntax(syntax).build(&whole).unwrap();
        let mut cache = other.create_cache();
        let mut shortest = usize::MAX;
        for text in short.iter().chain(&odd) {
            let expected = other.is_match(&mut cache, text);
            assert_eq!(constraint.matches(text), expected, "{pattern:?} on {:?}", text.escape_ascii().to_string());
            if expected {
                shortest = shortest.min(text.len());
            }
        }
        assert_eq!(constraint.shortest(), shortest, "{pattern}");
    }
}

#[test]
fn a_matcher_allows_the_bytes_that_lead_to_a_match() {
    let constraint = Constraint::regex("ab(c|d{3})?").unwrap();
    let mut matcher = constraint.matcher();
    assert_eq!((matcher.forced(), matcher.shortest_rest(), matcher.is_match()), (Some(b'a'), 2, false));
    let error = matcher.advance(b'b').unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("0x62"), "{error}");
    matcher.advance(b'a').unwrap();
    matcher.advance(b'b').unwrap();
    assert!(matcher.is_match() && matcher.can_continue() && matcher.forced().is_none());
    let names = |matcher: &Matcher, remaining| {
        let allowed = matcher.allowed(remaining);
        (0..=END).filter(|&i| allowed[i]).collect::<Vec<_>>()
    };
    let (c, d) = (usize::from(b'c'), usize::from(b'd'));
    assert_eq!(names(&matcher, None), [c, d, END]);
    assert_eq!(names(&matcher, Some(3)), [c, d, END]);
    assert_eq!(names(&matcher, Some(2)), [c, END]);
    assert_eq!(names(&matcher, Some(0)), [END]);
    matcher.advance(b'd').unwrap();
    // No match fits, so the limit is ignored.
    assert_eq!(names(&matcher, Some(1)), [d]);
    assert_eq!(matcher.shortest_rest(), 2);
    for _ in 0..2 {
        matcher.advance(b'd').unwrap();
    }
    assert!(matcher.is_match() && !matcher.can_continue());
    assert_eq!(names(&matcher, Some(5)), [END]);
    assert!(Constraint::regex("").unwrap().matcher().is_match());
}

#[test]
fn malformed_patterns_are_refused_in_one_line() {
    let expect = |pattern: &str, kind, words: &[&str]| {
        let error = Constraint::regex(pattern).unwrap_err();
        assert_eq!(error.kind(), kind, "{pattern}: {error}");
        assert!(!error.message().contains('\n'), "{error}");
        for word in words {
            assert!(error.message().contains(word), "{pattern}: {error} lacks {word}");
        }
    };
    expect("a(b", ErrorKind::InvalidArgument, &["byte 1", "unclosed group"]);
    expect("a**)", ErrorKind::InvalidArgument, &["unopened"]);
    expect("[b-a]", ErrorKind::InvalidArgument, &["byte 1", "range"]);
    expect(r"\p{Nothing}", ErrorKind::InvalidArgument, &["Unicode"]);
    expect("(?=a)", ErrorKind::InvalidArgument, &["look-around"]);
    expect(r"(a)\1", ErrorKind::InvalidArgument, &["backreferences"]);
    expect("[^\\s\\S]", ErrorKind::InvalidArgument, &["matches no text"]);
    expect("a^b", ErrorKind::InvalidArgument, &["matches no text"]);
    expect(r"\bword\b", ErrorKind::Unsupported, &["(?-u:\\b)"]);
    expect(&"a".repeat(70_000), ErrorKind::Unsupported, &["65536", "70000"]);
    expect(&format!("{}a{}", "(".repeat(200), ")".repeat(200)), ErrorKind::Unsupported, &["nested", "100"]);
    expect(&r"\pL".repeat(2000), ErrorKind::Unsupported, &["1000"]);
}

#[test]
fn patterns_with_huge_automata_are_refused_quickly() {
    let unicode = format!("(?i){}", r"[\pL\pN--a]".repeat(90));
    for pattern in [
        "(a|b|c){1000}{1000}",
        ".{0,100000}",
        "(.*a){40}",
        "(?:[ab]*a[ab]{40})*",
        "(?:(?:(?:x{100}){100}){100}){100}",
        r"\pL{2000}",
        r"(?i)\w{0,300}[a-zà-ÿ]{0,300}",
        &unicode,
        "(a?){500}a{500}",
        r"\pL]{0,30}*{1000}]{1000}(?s)\x{10ffff}^[[:alpha:]]",
        r"(?:\w{0,5}*){100}",
        r"\w{1,50}",
        r"(?:^*$*){500}{50}.*a.{9}",
        "((((((((((a*)*)*)*)*)*)*)*)*)*)*",
        &"a|".repeat(30_000),
    ] {
        let start = Instant::now();
        let result = Constraint::regex(pattern);
        let shown: String = pattern.chars().take(40).collect();
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{shown}: {error}");
        }
        eprintln!(
            "{shown}: {:?}, {}",
            start.elapsed(),
            result.map_or_else(|e| e.to_string(), |_| "accepted".to_owned())
        );
        assert!(start.elapsed() < Duration::from_secs(2), "{shown}: {:?}", start.elapsed());
    }
}
