//! JSON schemas: what each keyword accepts and refuses, and the errors of unsupported and malformed schemas.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::constraint::Constraint;
use crate::error::ErrorKind;

fn check(schema: Value, accepted: &[&str], refused: &[&str]) {
    let constraint = Constraint::json_schema(schema.to_string().as_bytes()).unwrap_or_else(|e| panic!("{schema}: {e}"));
    for text in accepted {
        assert!(constraint.matches(text.as_bytes()), "{schema} refuses {text}");
    }
    for text in refused {
        assert!(!constraint.matches(text.as_bytes()), "{schema} accepts {text}");
    }
}

fn fails(schema: &str, kind: ErrorKind, words: &[&str]) {
    let start = Instant::now();
    let shown: String = schema.chars().take(80).collect();
    let error = match Constraint::json_schema(schema.as_bytes()) {
        Ok(_) => panic!("{shown} is accepted"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{shown}: {error}");
    assert!(!error.message().contains('\n') && error.message().len() < 1000, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{shown}: {error} lacks {word}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{shown}: {:?}", start.elapsed());
}

#[test]
fn documents_have_no_optional_white_space_but_one_space_after_separators() {
    check(
        json!({}),
        &["null", "true", "0", "-1.5e+10", "\"a\\u00e9\\n\"", "[]", "[1,2]", "[1, 2]", "{}", "{\"a\":1, \"b\": [{}]}"],
        &[
            "",
            " 1",
            "1 ",
            "[ ]",
            "[1 ,2]",
            "[1,  2]",
            "{\"a\" :1}",
            "01",
            "1.",
            ".5",
            "+1",
            "nul",
            "\"a",
            "[1,]",
            "{1:2}",
        ],
    );
    check(json!({"type": "string"}), &["\"é\u{1f600}\\\"\\/\""], &["\"\n\"", "\"\\x\"", "\"\\ud800\"", "'a'"]);
    assert!(!Constraint::json_schema(b"true").unwrap().matches(b"\"\xff\""));
    assert!(!Constraint::json_schema(b"true").unwrap().matches(b"\"\xed\xa0\x80\""));
}

#[test]
fn types_and_constants_restrict_values() {
    check(json!({"type": "null"}), &["null"], &["0", "false"]);
    check(json!({"type": "boolean"}), &["true", "false"], &["null", "\"true\""]);
    check(json!({"type": "integer"}), &["0", "-7", "123456789012345"], &["1.0", "-0", "1e3", "1234567890123456"]);
    check(json!({"type": "number"}), &["0", "-0.5", "1e9", "2.25E-3"], &["1.", "\"1\"", "1e100"]);
    check(json!({"type": ["array", "null"]}), &["[]", "null"], &["{}"]);
    check(
        json!({"const": {"b": [1.0, "x"], "a": null}}),
        &["{\"b\":[1.0,\"x\"],\"a\":null}"],
        &["{\"a\":null,\"b\":[1.0,\"x\"]}"],
    );
    check(json!({"enum": ["a", "ab", 1, [2]]}), &["\"a\"", "\"ab\"", "1", "[2]"], &["\"b\"", "2"]);
    check(json!({"type": "string", "enum": ["a", 1, null]}), &["\"a\""], &["1", "null"]);
    check(json!({"type": "integer", "enum": [1.0, 1.5, 2]}), &["1.0", "2"], &["1.5"]);
    check(json!({"type": "integer", "minLength": 5, "minItems": 2}), &["1"], &["\"abcde\""]);
    check(
        json!({"title": "t", "description": "d", "default": 1, "examples": [], "$schema": "s", "$id": "i",
        "$comment": "c", "deprecated": true, "readOnly": true, "writeOnly": false, "$anchor": "a", "x-mine": {},
        "type": "null"}),
        &["null"],
        &["1"],
    );
}

#[test]
fn string_keywords_restrict_strings() {
    check(
        json!({"type": "string", "minLength": 2}),
        &["\"ab\"", "\"a\\n\"", "\"日本語\"", "\"\\u0041b\""],
        &["\"a\"", "\"日\"", "\"\\n\""],
    );
    check(
        json!({"type": "string", "maxLength": 2}),
        &["\"\"", "\"ab\"", "\"\u{1f600}é\""],
        &["\"abc\"", "\"\\n\\n\\n\""],
    );
    check(json!({"type": "string", "maxLength": 0}), &["\"\""], &["\"a\""]);
    check(json!({"type": "string", "pattern": "b+"}), &["\"b\"", "\"abba é\""], &["\"\"", "\"ac\"", "\"b\\n\""]);
    check(json!({"type": "string", "pattern": "^\\d+$"}), &["\"12\""], &["\"١\"", "\"1a\""]);
    check(json!({"type": "string", "pattern": "^\\W$"}), &["\"é\"", "\"-\""], &["\"a\""]);
    check(json!({"type": "string", "pattern": "^[\\s\\d]{2}$"}), &["\"1\u{feff}\"", "\" 2\""], &["\"a1\""]);
    check(
        json!({"type": "string", "pattern": "^a|b$", "maxLength": 3}),
        &["\"axx\"", "\"xb\""],
        &["\"xa\"", "\"axxx\""],
    );
    check(json!({"type": "string", "pattern": "^(?x) a # comment"}), &["\"ab\""], &["\"b\""]);
    check(json!({"type": "string", "pattern": "\\bé?a\\b"}), &["\"éa\"", "\"b a\""], &["\"ba\""]);
    check(json!({"type": "string", "pattern": "^\\/\\u00e9$"}), &["\"/é\""], &["\"é\""]);
    check(
        json!({"type": "string", "format": "date"}),
        &["\"2024-02-29\"", "\"1999-12-31\""],
        &["\"2023-02-29\"", "\"2023-04-31\"", "\"1900-02-29\""],
    );
    check(
        json!({"type": "string", "format": "time"}),
        &["\"23:59:59Z\"", "\"00:00:00.5+01:00\""],
        &["\"24:00:00Z\"", "\"12:00\""],
    );
    check(
        json!({"type": "string", "format": "date-time"}),
        &["\"2000-02-29T01:02:03Z\""],
        &["\"2000-02-29\"", "\"2000-02-29 01:02:03Z\""],
    );
    check(json!({"type": "string", "format": "uuid"}), &["\"01234567-89ab-cdef-0123-456789ABCDEF\""], &["\"0123\""]);
}

#[test]
fn bounds_restrict_numbers() {
    for (low, high) in
        [(0, 0), (-1, 1), (7, 7), (-12, 105), (98, 1002), (-1005, -99), (-3, 0), (0, 9), (10, 99), (5, 23)]
    {
        let closed = json!({"type": "integer", "minimum": low, "maximum": high});
        let open = json!({"type": "integer", "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1});
        let number = json!({"type": "number", "minimum": low, "maximum": high});
        let between = json!({"type": "number", "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1});
        let [closed, open, number, between] = [closed, open, number, between]
            .map(|schema| Constraint::json_schema(schema.to_string().as_bytes()).unwrap());
        for n in -1100i64..=1100 {
            let expected = (low..=high).contains(&n);
            for constraint in [&closed, &open, &number, &between] {
                assert_eq!(constraint.matches(n.to_string().as_bytes()), expected, "{n} in {low}..={high}");
            }
            for tail in [".0", ".000", ".5", ".05", ".999"] {
                // -0 is not allowed, but numbers just below it are.
                for text in [format!("{n}{tail}"), format!("-0{tail}")] {
                    let x: f64 = text.parse().unwrap();
                    let plain = text != "-0.0" && text != "-0.000";
                    let (least, most) = (low as f64, high as f64);
                    assert_eq!(
                        number.matches(text.as_bytes()),
                        plain && (least..=most).contains(&x),
                        "{text} in {low}..={high}"
                    );
                    let inside = least - 1.0 < x && x < most + 1.0;
                    assert_eq!(
                        between.matches(text.as_bytes()),
                        plain && inside,
                        "{text} between {low} - 1 and {high} + 1"
                    );
                }
            }
        }
    }
    check(json!({"type": "integer", "minimum": 5}), &["5", "999999999999999"], &["4", "-5", "1000000000000000"]);
    check(
        json!({"type": "integer", "maximum": 1_000_000_000_000_000i64}),
        &["1000000000000000", "-999999999999999"],
        &["1000000000000001"],
    );
    check(json!({"type": "number", "minimum": 0}), &["0.5", "12345678901234.5"], &["-0.5", "12345678901234.55", "1e5"]);
    check(
        json!({"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 9, "exclusiveMaximum": 12}),
        &["4", "9"],
        &["3", "10"],
    );
}

#[test]
fn array_and_object_keywords_restrict_their_values() {
    check(json!({"type": "array", "minItems": 1, "maxItems": 2}), &["[1]", "[1, null]"], &["[]", "[1,2,3]"]);
    check(json!({"type": "array", "maxItems": 0}), &["[]"], &["[1]"]);
    check(json!({"type": "array", "items": false}), &["[]"], &["[1]"]);
    check(
        json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}),
        &["[]", "[1]", "[1,2]", "[1,2,{}]"],
        &["[2]", "[1,1]"],
    );
    check(
        json!({"type": "array", "prefixItems": [{"const": 1}], "maxItems": 3, "minItems": 2}),
        &["[1,5]", "[1,5,6]"],
        &["[1]", "[1,5,6,7]"],
    );
    let two = json!({"a": {"const": 1}, "b": {"const": 2}, "c\"": {"const": 3}});
    check(
        json!({"type": "object", "properties": two, "required": ["b"]}),
        &["{\"b\":2}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\\\"\":3}", "{\"a\": 1, \"b\": 2, \"c\\\"\": 3}"],
        &["{}", "{\"a\":1}", "{\"b\":2,\"a\":1}", "{\"b\":2,\"d\":4}", "{,\"b\":2}", "{\"b\":2,}"],
    );
    check(
        json!({"type": "object", "properties": two, "additionalProperties": {"type": "null"}}),
        &["{}", "{\"x\":null}", "{\"a\":1,\"aa\":null}", "{\"\":null}", "{\"c\":null,\"é\":null}"],
        &["{\"a\":null}", "{\"x\":1}", "{\"\\u0061\":null}", "{\"x\":null,\"a\":1}"],
    );
    check(
        json!({"type": "object", "properties": two, "required": ["z"]}),
        &["{\"z\":[]}", "{\"a\":1,\"z\":0}"],
        &["{}", "{\"y\":1,\"z\":1}"],
    );
    check(
        json!({"type": "object", "required": ["z"], "additionalProperties": {"const": 0}}),
        &["{\"z\":0,\"zz\":0}"],
        &["{\"z\":1}", "{}"],
    );
    check(json!({"type": "object"}), &["{}", "{\"a\\n\":{}}"], &["[]"]);
    check(json!({"type": "object", "properties": {}}), &["{}"], &["{\"a\":1}"]);
    check(json!({"type": "object", "additionalProperties": false}), &["{}"], &["{\"a\":1}"]);
}

#[test]
fn references_and_alternatives_are_followed() {
    check(json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]}), &["null"], &["1"]);
    check(json!({"anyOf": [false, {"type": "null"}]}), &["null"], &["1"]);
    check(json!({"type": "integer", "anyOf": [{"type": "number"}, {"type": "string"}]}), &["3"], &["\"a\"", "1.5"]);
    check(
        json!({"type": ["string", "null"], "$ref": "#/$defs/a", "$defs": {"a": {"enum": ["x", 1]}}}),
        &["\"x\""],
        &["1", "null"],
    );
    check(json!({"allOf": [{"type": "null"}]}), &["null"], &["1"]);
    check(
        json!({"$ref": "#/definitions/a~1%62~0/prefixItems/1",
            "definitions": {"a/b~": {"prefixItems": [1, {"const": 5}]}}}),
        &["5"],
        &["1"],
    );
    check(json!({"oneOf": [{"type": "integer", "minimum": 5}, {"type": "string"}]}), &["5", "\"\""], &["4"]);
    check(
        json!({"oneOf": [{"const": "a"}, {"enum": ["b", 1]}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "null"}}}),
        &["\"a\"", "1", "null"],
        &["2"],
    );
    let a = json!({"$ref": "#/$defs/a"});
    check(
        json!({"type": "array", "items": a,
            "$defs": {"a": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/a"}}, {"const": 1}]}}}),
        &["[[[1]],1]"],
        &["[2]"],
    );
    // Cyclic references with an alternative that ends.
    check(
        json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"anyOf": [{"$ref": "#/$defs/b"}, {"const": 1}]},
            "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 2}]}}}),
        &["1", "2"],
        &["3"],
    );
}

#[test]
fn unsupported_keywords_are_named_with_their_location() {
    for keyword in [
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "uniqueItems",
        "contains",
        "minContains",
        "multipleOf",
        "unevaluatedProperties",
        "contentEncoding",
        "$dynamicRef",
        "dependencies",
        "additionalItems",
        "nullable",
    ] {
        let schema = json!({"type": "object", "properties": {"a/b": {keyword: {}}}}).to_string();
        fails(
            &schema,
            ErrorKind::Unsupported,
            &["schema at #/properties/a~1b: ", &format!("`{keyword}` is not supported")],
        );
    }
    let cases = [
        (json!({"enum": ["a"], "minLength": 1}), "`minLength` beside `enum`"),
        (json!({"$ref": "#/$defs/a", "properties": {}, "$defs": {"a": true}}), "`properties` beside `$ref`"),
        (json!({"anyOf": [true], "oneOf": [true]}), "`oneOf` beside `anyOf`"),
        (json!({"allOf": [true, true]}), "one entry only, found 2"),
        (json!({"type": "string", "format": "email"}), "found `email`"),
        (json!({"type": "string", "format": "date", "pattern": "a"}), "`format` beside `pattern`"),
        (json!({"type": "number", "minimum": 0.5}), "whole numbers"),
        (json!({"type": "number", "maximum": 1e16}), "1000000000000000"),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "alternatives 0 and 1 of oneOf may both match; use anyOf if that is meant",
        ),
        (json!({"oneOf": [{"const": 1}, {"type": "null"}, {"enum": [2, 1.0]}]}), "alternatives 0 and 2"),
        (
            json!({"oneOf": [
                {"type": "object", "properties": {"k": {"const": 1}}},
                {"type": "object", "properties": {"k": {"const": 2}}}]}),
            "alternatives 0 and 1",
        ),
        (json!({"oneOf": [{"$ref": "#"}, {"type": "null"}]}), "alternatives 0 and 1"),
        (json!({"type": "string", "pattern": "[a&&b]"}), "`pattern`"),
        (json!({"type": "string", "pattern": "[[:alpha:]]"}), "`pattern`"),
        (json!({"type": "string", "pattern": "\\Aa"}), "`pattern`"),
    ];
    for (schema, words) in cases {
        fails(&schema.to_string(), ErrorKind::Unsupported, &["schema at #: ", words]);
    }
    // A restriction of another type than the constants' has no effect.
    check(json!({"enum": [1, null], "minLength": 1}), &["1"], &[]);
}

#[test]
fn malformed_schemas_are_refused_with_their_location() {
    let cases = [
        (json!({"type": "foo"}), "`type`: expected"),
        (json!({"type": ["null", 7]}), "found 7"),
        (json!({"type": "string", "minLength": -1}), "`minLength`: expected a whole number, at least 0, found -1"),
        (json!({"maxItems": 1.5}), "found 1.5"),
        (json!({"pattern": 7}), "`pattern`: expected a string, found 7"),
        (json!({"type": "string", "pattern": "("}), "`pattern`: the pattern is not a regular expression: at byte 0"),
        (json!({"minimum": "1"}), "`minimum`: expected a number, found a string"),
        (json!({"required": ["a", 1]}), "`required`: expected a list of strings"),
        (json!({"required": "a"}), "`required`"),
        (json!({"properties": []}), "`properties`: expected an object"),
        (json!({"items": [true]}), "`items`: expected a schema"),
        (json!({"additionalProperties": 3}), "`additionalProperties`"),
        (json!({"prefixItems": []}), "`prefixItems`"),
        (json!({"anyOf": []}), "`anyOf`: expected a list of schemas, at least one, found an empty list"),
        (json!({"enum": 5}), "`enum`"),
        (json!({"$ref": 5}), "`$ref`"),
        (json!({"$ref": "#/$defs/none"}), "`#/$defs/none`, which is not in the schema"),
        (json!({"$ref": "#name"}), "found `#name`"),
        (json!({"$ref": "https://example.com/x"}), "https://example.com/x"),
        (json!({"$ref": "#/%zz"}), "#/%zz"),
        (json!({"$defs": 1}), "`$defs`"),
    ];
    for (schema, words) in cases {
        fails(&schema.to_string(), ErrorKind::InvalidArgument, &["schema at #: ", words]);
    }
    fails(
        "{\"items\":{\"anyOf\":[true,7]}}",
        ErrorKind::InvalidArgument,
        &["schema at #/items/anyOf/1: expected an object or a boolean"],
    );
    fails("7", ErrorKind::InvalidArgument, &["schema at #: expected an object or a boolean, found a number"]);
    fails("{", ErrorKind::InvalidArgument, &["not JSON"]);
    fails("", ErrorKind::InvalidArgument, &["not JSON"]);
    fails(&"[".repeat(1000), ErrorKind::InvalidArgument, &["not JSON"]);
    for nothing in [
        json!(false),
        json!({"enum": []}),
        json!({"type": []}),
        json!({"type": "integer", "minimum": 2, "maximum": 1}),
        json!({"type": "string", "minLength": 2, "maxLength": 1}),
        json!({"type": "object", "properties": {"a": false}, "required": ["a"]}),
        json!({"$ref": "#"}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
        json!({"type": "string", "enum": [1]}),
        json!({"type": "object", "required": ["a"], "additionalProperties": false}),
        json!({"type": "string", "pattern": "a^b"}),
        json!({"type": "number", "exclusiveMinimum": 1, "maximum": 1}),
    ] {
        fails(&nothing.to_string(), ErrorKind::InvalidArgument, &["matches no text"]);
    }
}

#[test]
fn huge_schemas_are_refused_quickly() {
    let big = ErrorKind::Unsupported;
    fails(&json!({"type": "array", "maxItems": 1_000_000_000u64}).to_string(), big, &["too large", "200000"]);
    fails(&json!({"type": "array", "minItems": u64::MAX}).to_string(), big, &["too large"]);
    fails(&json!({"type": "string", "minLength": 1_000_000}).to_string(), big, &["too large"]);
    fails(&json!({"type": "string", "pattern": "^[a-z]*$", "maxLength": 1_000_000}).to_string(), big, &["too large"]);
    fails(&json!({"type": "string", "pattern": "(.*a){40}", "maxLength": 10_000}).to_string(), big, &["too large"]);
    fails(&" ".repeat((1 << 20) + 1), big, &["1048576"]);
    let long = json!({"enum": [("x".repeat(500_000))]}).to_string();
    fails(&long, big, &["too large"]);
    let name = "n".repeat(900_000);
    fails(&json!({"properties": {name: {"not": {}}}}).to_string(), big, &["too large"]);

    // A long chain of references, a cycle of them, and many alternatives that refer to each other.
    let soon = |schema: Value| {
        let start = Instant::now();
        let constraint = Constraint::json_schema(schema.to_string().as_bytes());
        if let Ok(constraint) = &constraint {
            assert!(constraint.matches(b"null"));
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    };
    let chain = |last: Value| {
        let mut defs: serde_json::Map<String, Value> =
            (0..20_000).map(|i| (format!("{i}"), json!({"$ref": format!("#/$defs/{}", i + 1)}))).collect();
        defs.insert("20000".to_owned(), last);
        json!({"$ref": "#/$defs/0", "$defs": defs})
    };
    soon(chain(json!({"type": "null"})));
    soon(chain(json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]})));
    let all: Vec<Value> =
        (0..100).map(|i| json!({"$ref": format!("#/$defs/{i}")})).chain([json!({"type": "null"})]).collect();
    let defs: serde_json::Map<String, Value> = (0..100).map(|i| (format!("{i}"), json!({"anyOf": all}))).collect();
    soon(json!({"anyOf": all, "$defs": defs}));
    // Arrays whose shortest text is longer than a 64-bit number of bytes.
    let mut deep = json!({"type": "null"});
    for _ in 0..30 {
        deep = json!({"type": "array", "items": deep, "minItems": 1000});
    }
    fails(&deep.to_string(), ErrorKind::InvalidArgument, &["matches no text"]);
    // Alternatives of oneOf that differ only deep inside.
    let mut pair = (json!({"const": 1}), json!({"const": 2}));
    for _ in 0..20 {
        let one = |k: &Value| json!({"type": "object", "properties": {"k": k, "l": k}, "required": ["k", "l"]});
        pair = (one(&pair.0), one(&pair.0.clone()));
        if pair.0.to_string().len() > 200_000 {
            break;
        }
    }
    fails(&json!({"oneOf": [pair.0, pair.1]}).to_string(), big, &["oneOf"]);
}
