//! The longest subword that ends at each position of a text.
//!
//! Its row of the suffix table is added to the embedding of the byte (`docs/model.md`, Suffix table).

use crate::error::{Error, Result};
use crate::text::ids::{BPE_END_ID, END_ID, PAD_ID, plain};
use crate::text::vocabulary::Vocabulary;

/// A trie over the reversed sequences of a vocabulary, stored in flat arrays so that a device can walk it too.
///
/// Node 0 is the root. Node `n` has the edges `first_edges[n]..first_edges[n + 1]`, in ascending order of their labels;
/// edge `e` leads to node `targets[e]`. Nodes are numbered level by level, so the nodes that lookups visit most are
/// close together.
///
/// If several subwords have the same sequence, the one with the highest id wins. The exception is `<bos>`, which always
/// matches the source model's end-of-text subword: Llama 3 also has a begin-of-text subword, and the reference
/// implementation picks one of the two, differently from run to run.
#[derive(Debug, Clone)]
pub struct SuffixTrie {
    first_edges: Vec<u32>,
    labels: Vec<u16>,
    targets: Vec<u32>,
    terminals: Vec<u32>,
    max_len: usize,
}

impl SuffixTrie {
    /// The value in [`SuffixTrie::terminals`] of a node that ends no subword.
    pub const NONE: u32 = u32::MAX;

    /// Builds the trie of all subwords of the vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut entries: Vec<(&[u16], u32)> = vocabulary.iter().map(|(id, sequence)| (sequence, id)).collect();
        // The entries below a node are then a range, in which shorter sequences come first and equal ones are in
        // ascending order of their ids.
        entries.sort_unstable_by(|(a, a_id), (b, b_id)| a.iter().rev().cmp(b.iter().rev()).then(a_id.cmp(b_id)));

        let mut trie = Self {
            first_edges: Vec::new(),
            labels: Vec::new(),
            targets: Vec::new(),
            terminals: Vec::new(),
            max_len: entries.iter().map(|(sequence, _)| sequence.len()).max().unwrap_or(0),
        };
        // The ranges of the nodes of one level, in the order of their numbers.
        let root = 0..entries.len();
        let mut level = vec![root];
        for depth in 0.. {
            if level.is_empty() {
                break;
            }
            // The entries of a node at this depth agree on their last `depth` labels.
            let label = |(sequence, _): &(&[u16], u32)| sequence[sequence.len() - 1 - depth];
            let mut next = Vec::new();
            for mut node in level {
                let mut terminal = Self::NONE;
                while !node.is_empty() && entries[node.start].0.len() == depth {
                    terminal = entries[node.start].1;
                    node.start += 1;
                }
                trie.terminals.push(terminal);
                trie.first_edges.push(trie.edge_count());
                while !node.is_empty() {
                    let first = label(&entries[node.start]);
                    let end = node.start + entries[node.clone()].partition_point(|entry| label(entry) == first);
                    trie.labels.push(first);
                    // Nodes are numbered in level order, so each edge leads to the next new node.
                    trie.targets.push(trie.edge_count());
                    next.push(node.start..end);
                    node.start = end;
                }
            }
            level = next;
        }
        trie.first_edges.push(trie.edge_count());

        if let Some(eos) = vocabulary.eos()
            && vocabulary.sequence(eos) == Some(&[END_ID])
            && let Some(node) = trie.child(0, END_ID)
        {
            trie.terminals[node as usize] = eos;
        }
        trie
    }

    /// Number of edges. It fits a `u32`: a vocabulary limits the total length of its sequences.
    fn edge_count(&self) -> u32 {
        self.labels.len() as u32
    }

    /// Returns the node that the edge with this label leads to.
    fn child(&self, node: u32, label: u16) -> Option<u32> {
        let first = self.first_edges[node as usize] as usize;
        let end = self.first_edges[node as usize + 1] as usize;
        let edge = self.labels[first..end].binary_search(&label).ok()?;
        Some(self.targets[first + edge])
    }

    /// Returns the longest subword that ends at the last id of `history`, or `None` if there is none.
    ///
    /// Fused ids count as plain ids and `<bpe_token_end>` is skipped. Special tokens match only themselves.
    pub fn longest_match(&self, history: &[u16]) -> Option<u32> {
        self.walk(history.iter().rev())
    }

    fn walk<'a>(&self, backwards: impl Iterator<Item = &'a u16>) -> Option<u32> {
        let (mut node, mut longest) = (0, Self::NONE);
        for &id in backwards.filter(|&&id| id != BPE_END_ID) {
            match self.child(node, plain(id)) {
                Some(child) => node = child,
                None => break,
            }
            let terminal = self.terminals[node as usize];
            if terminal != Self::NONE {
                longest = terminal;
            }
        }
        (longest != Self::NONE).then_some(longest)
    }

    /// Returns the longest subword that ends at each of the ids in `new`, which follow those in `history`.
    ///
    /// Only the last [`SuffixTrie::max_len`]` - 1` ids of the history matter, not counting `<bpe_token_end>`, which is
    /// skipped. A stream needs to keep no more than those.
    ///
    /// # Errors
    /// `InvalidArgument` for an id at which no subword ends; the message has its position in `new`.
    pub fn suffixes(&self, history: &[u16], new: &[u16]) -> Result<Vec<u32>> {
        let at = |i: usize| self.walk(new[..=i].iter().rev().chain(history.iter().rev()));
        (0..new.len()).map(|i| at(i).ok_or_else(|| no_match(i, new[i]))).collect()
    }

    /// Number of nodes, including the root.
    pub fn node_count(&self) -> usize {
        self.terminals.len()
    }

    /// Returns first edges, terminals and labels, concatenated for `sample.wgsl`.
    ///
    /// The shader needs no targets: edge `e` leads to node `e + 1`.
    pub(crate) fn words(&self) -> Vec<u32> {
        let labels = self.labels.iter().map(|&label| u32::from(label));
        self.first_edges.iter().chain(&self.terminals).copied().chain(labels).collect()
    }

    /// Size of [`Self::words`] in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let words = self.first_edges.len() + self.terminals.len() + self.labels.len();
        4 * words as u64
    }

    /// Length of the longest subword in ids.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Index of the first edge of each node, followed by the number of all edges.
    pub fn first_edges(&self) -> &[u32] {
        &self.first_edges
    }

    /// Label of each edge, a plain id.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Node that each edge leads to.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Subword that each node ends, or [`SuffixTrie::NONE`].
    pub fn terminals(&self) -> &[u32] {
        &self.terminals
    }
}

fn no_match(position: usize, id: u16) -> Error {
    let remedy = match plain(id) {
        END_ID => "; name an eos_token of the tokenizer.json in the tokenizer_config.json beside it",
        PAD_ID => "; name a pad_token of the tokenizer.json in the tokenizer_config.json beside it",
        _ => "",
    };
    Error::invalid(format!(
        "id {id} at position {position} of the new ids: no subword of the vocabulary ends at it{remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::ids::{BYTE_OFFSET, FUSED_OFFSET, IDS, encode};
    use crate::text::vocabulary::tests::{tokenizer, vocabulary};

    const CONFIG: &str = r#"{"eos_token": "<|end|>", "bos_token": "<|begin|>", "pad_token": "<|pad|>"}"#;

    fn build(subwords: &[&[u8]], added: &[&str]) -> (Vocabulary, SuffixTrie) {
        let vocabulary = vocabulary(&tokenizer(subwords, added), CONFIG).unwrap();
        let trie = SuffixTrie::new(&vocabulary);
        (vocabulary, trie)
    }

    fn ids(text: &str) -> Vec<u16> {
        encode(text.as_bytes(), BYTE_OFFSET)
    }

    /// The definition: the longest subword that the ids end with; among equals, the one with the highest id.
    fn naive(vocabulary: &Vocabulary, history: &[u16]) -> Option<u32> {
        let plain: Vec<u16> = history.iter().filter(|&&id| id != BPE_END_ID).map(|&id| plain(id)).collect();
        let matches = vocabulary.iter().filter(|(_, sequence)| plain.ends_with(sequence));
        matches.max_by_key(|(id, sequence)| (sequence.len(), *id)).map(|(id, _)| id)
    }

    #[test]
    fn the_longest_subword_wins() {
        let (_, trie) = build(&[b"he", b"the", b" the", b"x"], &[]);
        assert_eq!(trie.suffixes(&[], &ids("the the")).unwrap(), [116, 104, 257, 32, 116, 104, 258]);
        assert_eq!(trie.suffixes(&ids("th"), &ids("e")).unwrap(), [257]);
        assert_eq!(trie.longest_match(&ids("xhe")), Some(256));
        assert_eq!((trie.longest_match(&[]), trie.max_len()), (None, 4));
    }

    #[test]
    fn fused_ids_count_as_bytes_and_the_token_end_is_skipped() {
        let (_, trie) = build(&[b"he", b"the"], &[]);
        let fused: Vec<u16> = ids("the").iter().map(|id| id + FUSED_OFFSET).collect();
        assert_eq!(trie.longest_match(&fused), Some(257));
        let [t, h, e] = ids("the")[..] else { unreachable!() };
        assert_eq!(trie.longest_match(&[t, 3, h, 3, 3, e, 3]), Some(257));
    }

    #[test]
    fn special_tokens_match_only_themselves() {
        let (_, trie) = build(&[b"ab"], &["<|end|>"]);
        let [a, b] = ids("ab")[..] else { unreachable!() };
        assert_eq!(trie.suffixes(&[], &[1, a, b, 1, b]).unwrap(), [257, 97, 256, 257, 98]);
        let error = trie.suffixes(&[1], &[a, 0, b]).unwrap_err().to_string();
        assert!(error.contains("id 0 at position 1") && error.contains("pad_token"), "{error}");
        assert!(trie.suffixes(&[], &[2]).unwrap_err().to_string().contains("id 2 at position 0"));
        assert!(trie.suffixes(&[], &[520]).is_err() && trie.suffixes(&[], &[u16::MAX]).is_err());
    }

    #[test]
    fn the_highest_id_wins_except_for_the_end_of_text() {
        let (vocabulary, trie) = build(&[b"ab"], &["ab ", "<|end|>", "<|begin|>"]);
        assert_eq!((vocabulary.eos(), vocabulary.bos()), (Some(258), Some(259)));
        assert_eq!(trie.longest_match(&[1]), Some(258));
        let mut json = tokenizer(&[b"a\n", b"b"], &[]);
        // The added token has the same text as subword 256.
        json["added_tokens"] = json!([{"content": "a\n", "id": 700}]);
        let vocabulary = crate::text::vocabulary::tests::vocabulary(&json, CONFIG).unwrap();
        assert_eq!(SuffixTrie::new(&vocabulary).longest_match(&ids("a\n")), Some(700));
    }

    #[test]
    fn the_arrays_are_a_tree() {
        let (vocabulary, trie) = build(&[b"he", b"the", b" the", b"that", b"hat"], &["<|end|>", "<|pad|>"]);
        let nodes = trie.terminals().len();
        assert_eq!(trie.first_edges().len(), nodes + 1);
        assert_eq!(trie.labels().len(), trie.targets().len());
        assert_eq!(trie.first_edges().last(), Some(&(trie.labels().len() as u32)));
        let mut targets = trie.targets().to_vec();
        targets.sort_unstable();
        assert!(targets.into_iter().eq(1..nodes as u32));
        for edges in trie.first_edges().windows(2) {
            assert!(trie.labels()[edges[0] as usize..edges[1] as usize].is_sorted_by(|a, b| a < b));
        }
        let ends = trie.terminals().iter().filter(|&&id| id != SuffixTrie::NONE).count();
        assert_eq!(ends, vocabulary.len());
    }

    /// Ids of `a`, `b` and `c`, plain and fused, and some special tokens.
    fn text_id() -> impl Strategy<Value = u16> {
        prop_oneof![8 => 101u16..=103, 4 => 361u16..=363, 1 => Just(3u16), 1 => Just(1u16)]
    }

    proptest! {
        #[test]
        fn equals_the_definition_and_streams(
            subwords in prop::collection::btree_set(prop::collection::vec(b'a'..=b'c', 2..6), 0..30),
            text in prop::collection::vec(text_id(), 1..40),
            cut in 0usize..40,
        ) {
            let subwords: Vec<&[u8]> = subwords.iter().map(Vec::as_slice).collect();
            let (vocabulary, trie) = build(&subwords, &["<|end|>"]);
            let naive: Vec<_> = (0..text.len()).map(|i| naive(&vocabulary, &text[..=i])).collect();
            let at_once: Vec<_> = (0..text.len()).map(|i| trie.longest_match(&text[..=i])).collect();
            prop_assert_eq!(&at_once, &naive);
            // No subword ends at a leading `<bpe_token_end>`.
            let first = text.iter().position(|&id| id != 3).unwrap_or(text.len());
            let (history, new) = text.split_at(cut.clamp(first, text.len()));
            let tail = if text.contains(&3) { 0 } else { history.len().saturating_sub(trie.max_len() - 1) };
            let streamed = trie.suffixes(&history[tail..], new).unwrap();
            prop_assert!(streamed.into_iter().map(Some).eq(naive[history.len()..].iter().copied()));
        }
    }

    #[test]
    fn random_vocabularies_and_ids_agree_with_the_definition() {
        for mut case in crate::fuzz::cases(2, 700) {
            let mut below = |n: usize| case.random.below(n);
            let subwords: Vec<Vec<u8>> =
                (0..below(40)).map(|_| (0..2 + below(8)).map(|_| b"ab\x00\xff"[below(4)]).collect()).collect();
            let unique: std::collections::BTreeSet<&[u8]> = subwords.iter().map(Vec::as_slice).collect();
            let (vocabulary, trie) = build(&Vec::from_iter(unique), &["<|end|>"]);
            for _ in 0..50 {
                let ids: Vec<u16> = (0..below(20))
                    .map(|_| match below(4) {
                        0 => below(IDS + 10) as u16,
                        _ => [4, 101, 102, 259, 264, 361, 362, 519][below(8)],
                    })
                    .collect();
                assert_eq!(trie.longest_match(&ids), naive(&vocabulary, &ids), "{ids:?}");
            }
        }
    }
}
