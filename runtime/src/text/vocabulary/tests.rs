use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::fuzz;
use crate::text::byte_alphabet::character_of;
use crate::text::suffix_trie::SuffixTrie;

const CONFIG: &str = r#"{"eos_token": "<|end|>", "bos_token": null, "pad_token": {"content": "<|pad|>"}}"#;

/// A byte string in the alphabet of byte-level tokenizers.
fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| character_of(byte)).collect()
}

/// A `tokenizer.json`: each byte with its value as id, then these subwords, then these added tokens.
pub(crate) fn tokenizer(subwords: &[&[u8]], added: &[&str]) -> Value {
    let bytes = (0..=255u8).map(|byte| vec![byte]);
    let all = bytes.chain(subwords.iter().map(|subword| subword.to_vec()));
    let vocab: serde_json::Map<_, _> = all.zip(0u32..).map(|(token, id)| (printable(&token), id.into())).collect();
    let added: Vec<_> =
        added.iter().zip(vocab.len()..).map(|(token, id)| json!({"content": token, "id": id})).collect();
    json!({"model": {"type": "BPE", "vocab": vocab}, "added_tokens": added})
}

pub(crate) fn vocabulary(tokenizer: &Value, config: &str) -> Result<Vocabulary> {
    Vocabulary::from_json(tokenizer.to_string().as_bytes(), Some(config.as_bytes()), "a test")
}

fn message(result: Result<Vocabulary>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn tokens_become_ids_of_bytes_and_special_tokens() {
    let json =
        tokenizer(&[b" the", "é".as_bytes()], &["<|end|>", "<|pad|>", "<bos>", "two words é", "<bpe_token_end>"]);
    let v = vocabulary(&json, CONFIG).unwrap();
    assert_eq!((v.len(), v.max_id(), v.eos(), v.bos(), v.pad()), (263, 262, Some(258), None, Some(259)));
    assert_eq!(v.sequence(0), Some(&[4][..]));
    assert_eq!(v.sequence(256), Some(&[36, 120, 108, 105][..]));
    assert_eq!(v.sequence(257), Some(&[199, 173][..]));
    let specials = [258, 259, 260, 262].map(|id| v.sequence(id).unwrap());
    assert_eq!(specials, [&[1], &[0], &[1], &[3]]);
    assert_eq!(v.sequence(261).unwrap().len(), "two words é".len());
    assert_eq!((v.sequence(263), v.sequence(u32::MAX)), (None, None));
}

#[test]
fn a_token_that_is_eos_and_pad_is_eos() {
    let both = r#"{"eos_token": {"content": "<|end|>"}, "pad_token": "<|end|>", "bos_token": "<|absent|>"}"#;
    let v = vocabulary(&tokenizer(&[], &["<|end|>"]), both).unwrap();
    assert_eq!((v.eos(), v.bos(), v.pad(), v.sequence(256)), (Some(256), None, Some(256), Some(&[1][..])));
}

#[test]
fn errors_name_the_token_key_or_byte() {
    let mut json = tokenizer(&[], &[]);
    json["model"]["vocab"].as_object_mut().unwrap().remove("A");
    assert!(message(vocabulary(&json, CONFIG)).contains("none for 0x41 ('A')"));
    let with = |token: &str, id: Value| {
        let mut json = tokenizer(&[], &["<|end|>"]);
        json["model"]["vocab"][token] = id;
        message(vocabulary(&json, CONFIG))
    };
    assert!(with("▁the", json!(300)).contains("token \"▁the\" with id 300: expected the printable characters"));
    assert!(with("", json!(300)).contains("token \"\" with id 300: expected 1 to 4096 bytes"));
    assert!(with(&"x".repeat(4097), json!(300)).contains("found 4097"));
    assert!(with("ab", json!(65)).contains("its id 65 is also another token's"));
    assert!(with("<|end|>", json!(65)).contains("id 65 in model.vocab but id 256 in added_tokens"));
    for id in [json!(-1), json!(1.5), json!("7"), json!((1 << 22) + 1), json!(u64::MAX), json!(null)] {
        assert!(with("ab", id).contains("model.vocab, token \"ab\": expected an id"));
    }
    let unigram = vocabulary(&json!({"model": {"type": "Unigram", "vocab": []}}), CONFIG).unwrap_err();
    assert_eq!(unigram.kind(), ErrorKind::Unsupported);
    assert!(unigram.message().contains("found \"Unigram\""));
    assert!(message(vocabulary(&json!([1]), CONFIG)).contains("a test: model.vocab: expected an object"));
    assert!(
        message(vocabulary(&json!({"model": {"vocab": {}}, "added_tokens": [{}]}), CONFIG))
            .contains("added_tokens[0].content")
    );
    assert!(message(vocabulary(&tokenizer(&[], &[]), r#"{"eos_token": 5}"#)).contains("eos_token: expected a string"));
    assert!(
        message(vocabulary(&tokenizer(&[], &[]), "["))
            .contains("tokenizer_config.json beside a test: is not a JSON document")
    );
    let commas = vec![b','; Vocabulary::LIMITS.values + 1];
    assert!(message(Vocabulary::from_json(&commas, None, "a test")).contains("JSON values"));
}

#[test]
fn what_a_vocabulary_does_not_need_is_skipped() {
    let deep = format!("{}1{}", r#"{"":"#.repeat(9999), "}".repeat(9999));
    let text = tokenizer(&[b"the"], &["<|end|>"]).to_string();
    let with = |more: &str| format!("{{\"normalizer\":{deep},{more}{}", &text[1..]);
    let read = |text: &str| Vocabulary::from_json(text.as_bytes(), Some(CONFIG.as_bytes()), "a test");
    assert_eq!(read(&with("")).unwrap().eos(), Some(257));
    assert_eq!(read(&format!("\u{feff}{}", with("\"dropout\":NaN,"))).unwrap().len(), 258);
    let config = format!("{{\"model_max_length\":Infinity,\"auto_map\":{deep},{}", &CONFIG[1..]);
    let read = Vocabulary::from_json(text.as_bytes(), Some(config.as_bytes()), "a test");
    assert_eq!(read.unwrap().eos(), Some(257));
}

#[test]
fn tokens_that_contradict_each_other_are_rejected() {
    let text = tokenizer(&[], &[]).to_string();
    let twice = text.replace("\"A\":65", "\"A\":65,\"A\":300");
    assert!(message(Vocabulary::from_json(twice.as_bytes(), None, "a test")).contains("token \"A\": has two ids"));
    let escaped = text.replace("\"A\":65", "\"\\u0041\":65");
    assert_eq!(Vocabulary::from_json(escaped.as_bytes(), None, "a test").unwrap().sequence(65), Some(&[69][..]));
    let values = format!("[{}0]", "0,".repeat(Vocabulary::LIMITS.values));
    assert!(
        message(Vocabulary::from_json(values.as_bytes(), None, "a test")).contains("more than 4194304 JSON values")
    );
    let long = vec![b' '; Vocabulary::LIMITS.bytes + 1];
    assert!(message(Vocabulary::from_json(&long, None, "a test")).contains("longer than 67108864 bytes"));
}

#[test]
fn the_suffix_table_must_fit_the_vocabulary() {
    let v = vocabulary(&tokenizer(&[&[b'a'; 2][..], b"aaa"], &[]), CONFIG).unwrap();
    assert_eq!(v.len(), 258);
    assert_eq!(v.check_rows(258).unwrap(), None);
    assert!(v.check_rows(320).unwrap().unwrap().contains("258 subwords for a suffix table of 320 rows: the other 62"));
    assert!(v.check_rows(384).unwrap().is_some());
    for rows in [0, 257, 259, 386, 448, 100_278, usize::MAX] {
        let error = v.check_rows(rows).unwrap_err().to_string();
        assert!(error.contains("of another model") && error.contains(&rows.to_string()) && error.contains("258"));
    }
    let mut holes = tokenizer(&[], &[]);
    holes["model"]["vocab"]["zz"] = json!(256 + 100);
    let holes = vocabulary(&holes, CONFIG).unwrap();
    assert!(holes.check_rows(257).is_err());
    assert!(holes.check_rows(384).unwrap().is_some());
}

#[test]
fn the_config_beside_the_file_is_read() {
    let folder = std::env::temp_dir().join(format!("bolmo-vocabulary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("tokenizer.json");
    let missing = Vocabulary::open(&path).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.message().contains("tokenizer.json"));
    std::fs::write(&path, tokenizer(&[], &["<|end|>"]).to_string()).unwrap();
    assert_eq!(Vocabulary::open(&path).unwrap().eos(), None);
    std::fs::write(folder.join("tokenizer_config.json"), CONFIG).unwrap();
    assert_eq!(Vocabulary::open(&path).unwrap().eos(), Some(256));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn damaged_files_never_panic() {
    const INSERTED: &[u8] = b"\"{}[],:0129-e.\\u\xff";
    let whole = tokenizer(&[b"the", b" of", b"\n\n"], &["<|end|>", "<|pad|>"]).to_string().into_bytes();
    for mut case in fuzz::cases(1, 15_000) {
        let mut below = |n: usize| case.random.below(n.max(1));
        let mut json = whole.clone();
        for _ in 0..=below(4) {
            let at = below(json.len());
            match below(4) {
                0 => json.truncate(at),
                1 => drop(json.drain(at..(at + below(20)).min(json.len()))),
                2 => json.insert(at, INSERTED[below(INSERTED.len())]),
                _ => json.iter_mut().skip(at).take(1).for_each(|byte| *byte = below(256) as u8),
            }
        }
        if let Ok(vocabulary) = Vocabulary::from_json(&json, Some(CONFIG.as_bytes()), "a test") {
            let trie = SuffixTrie::new(&vocabulary);
            assert!(trie.suffixes(&[], &[4, 80, 259]).is_ok());
        }
    }
}
