//! Bytes and text: ids, the source model's vocabulary and its suffix trie, UTF-8, stop strings.

pub mod byte_alphabet;
pub mod ids;
pub mod stop;
pub mod suffix_trie;
pub mod utf8;
pub mod vocabulary;
