use bolmo_runtime::files::MemoryFile;
use proptest::prelude::*;

use super::*;

fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
}

fn open(bytes: Vec<u8>) -> Result<TokenFile> {
    TokenFile::from_npy(Box::new(MemoryFile::new("ids.npy", bytes)))
}

fn all(file: &TokenFile) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    file.read(0..file.len(), &mut ids).map(|()| ids)
}

fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    let error = open(bytes).err().expect("an error");
    (error.kind(), error.to_string())
}

#[test]
fn every_type_is_read() {
    let ids = [0i64, 1, 257, 65_535];
    let encoded: [(&str, Vec<u8>); 4] = [
        ("<u2", ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect()),
        ("<u4", ids.iter().flat_map(|&id| (id as u32).to_le_bytes()).collect()),
        ("<i4", ids.iter().flat_map(|&id| (id as i32).to_le_bytes()).collect()),
        ("<i8", ids.iter().flat_map(|&id| id.to_le_bytes()).collect()),
    ];
    for (descr, data) in encoded {
        for version in 1..=3 {
            let file = open(npy(version, &header(descr, "(4,)"), &data)).unwrap();
            assert_eq!(all(&file).unwrap(), [0, 1, 257, 65_535], "{descr}");
            let mut middle = vec![7];
            file.read(1..3, &mut middle).unwrap();
            assert_eq!(middle, [7, 1, 257], "{descr}");
            assert!(file.read(3..5, &mut middle).is_err());
        }
        let ids = IdType::from_descr(descr).unwrap();
        let raw = TokenFile::from_raw(Box::new(MemoryFile::new("raw", data)), ids).unwrap();
        assert_eq!(all(&raw).unwrap(), [0, 1, 257, 65_535], "{descr}");
    }
}

#[test]
fn numbers_that_are_not_ids_are_named() {
    for (descr, data) in [("<i4", (-5i32).to_le_bytes().to_vec()), ("<i8", (1i64 << 32).to_le_bytes().to_vec())] {
        let error = all(&open(npy(1, &header(descr, "(1,)"), &data)).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("ids.npy: expected a subword id at position 0"), "{error}");
    }
}

#[test]
fn damage_and_other_arrays_are_told_apart() {
    let whole = npy(1, &header("<u2", "(4,)"), &[0; 8]);
    for cut in 10..whole.len() {
        assert_eq!(refusal(whole[..cut].to_vec()).0, ErrorKind::BadCheckpoint, "{cut} bytes");
    }
    assert!(refusal(whole[..whole.len() - 1].to_vec()).1.contains("expected 4 ids of 2 bytes each, found 7 bytes"));
    let mut longer = whole.clone();
    longer.push(0);
    assert_eq!(refusal(longer).0, ErrorKind::BadCheckpoint);

    for (descr, shape, says) in [
        ("<f4", "(2,)", "found <f4; convert them with astype"),
        (">u2", "(4,)", "found >u2"),
        ("<u8", "(1,)", "found <u8"),
        ("<u2", "(2, 2)", "one dimension, found 2; reshape"),
        ("<u2", "()", "one dimension, found 0"),
    ] {
        let (kind, message) = refusal(npy(1, &header(descr, shape), &[0; 8]));
        assert_eq!(kind, ErrorKind::Unsupported, "{message}");
        assert!(message.starts_with("ids.npy: ") && message.contains(says), "{message}");
    }
    let structure = "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (4,), }";
    assert!(refusal(npy(1, structure, &[0; 8])).1.contains("found a structure"));
    assert!(refusal(vec![0; 100]).1.contains("say of which type they are"));
    assert!(refusal(npy(9, "", &[])).1.contains("version 1, 2 or 3"));
}

#[test]
fn headers_must_be_complete_and_plain() {
    let good = header("<u2", "(4,)");
    for bad in [
        String::new(),
        "{}".to_owned(),
        good.replace("'shape': (4,), ", ""),
        good.replace("'fortran_order': False, ", ""),
        good.replace("(4,)", "(-4,)"),
        good.replace("(4,)", "(4x,)"),
        good.replace("(4,)", "(99999999999999999999,)"),
        good.replace("'shape'", "'descr'"),
        good.replace("}", "'more': 1}"),
        good.replace("False,", "False"),
    ] {
        assert_eq!(refusal(npy(1, &bad, &[0; 8])).0, ErrorKind::BadCheckpoint, "{bad:?}");
    }
    // A size in bytes that wraps around to eight.
    assert_eq!(refusal(npy(1, &header("<i8", "(2305843009213693953,)"), &[0; 8])).0, ErrorKind::BadCheckpoint);
    let mut long = npy(2, &good, &[0; 8]);
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(long).1.contains("a header of at most"));
    // A header by another writer: double quotes, another order, no comma at the end.
    let other = r#"{"shape":(4,),"fortran_order":True,"descr":"<u2"}"#;
    assert_eq!(open(npy(1, other, &[0; 8])).unwrap().len(), 4);
}

#[test]
fn bare_ids_have_a_length_and_no_header() {
    let raw = |bytes: Vec<u8>| TokenFile::from_raw(Box::new(MemoryFile::new("raw", bytes)), IdType::U32);
    assert_eq!(raw(vec![0; 6]).err().unwrap().kind(), ErrorKind::BadCheckpoint);
    assert!(raw(npy(1, &header("<u4", "(1,)"), &[0; 4])).is_err());
    assert!(raw(Vec::new()).unwrap().is_empty());
}

proptest! {
    #[test]
    fn random_damage_is_an_error_or_still_a_file(at in 0usize..90, byte: u8) {
        let mut bytes = npy(1, &header("<u2", "(4,)"), &[1, 0, 2, 0, 3, 0, 4, 0]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(file) = open(bytes) {
            let _ = all(&file);
        }
    }
}
