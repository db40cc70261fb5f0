//! Bytes and what they are called: ids, the source model's vocabulary, its suffix trie, UTF-8, stop strings.

pub mod ids;
pub mod stop;
pub mod suffix_trie;
pub mod utf8;
pub mod vocabulary;
