//! The longest subword that ends at each position: the row of the suffix table that is added to a byte's embedding.

use crate::error::{Error, Result};
use crate::text::ids::{BPE_END_ID, END_ID, PAD_ID, plain};
use crate::text::vocabulary::Vocabulary;

/// A trie over the reversed sequences of a vocabulary, flat so that a device can walk it as well.
///
/// Node 0 is the root. The edges of node `n` are those from `first_edges[n]` up to `first_edges[n + 1]`, by ascending
/// label; edge `e` leads to node `targets[e]`. Nodes are numbered level by level, so what lookups touch most is near
/// the beginning.
///
/// Where several subwords have the same sequence, the one with the highest id is found, except that `<bos>` always
/// finds the source's end-of-text subword: Llama 3 has one for the beginning of a text as well, and the reference
/// implementation keeps either, from one run to the next.
#[derive(Debug, Clone)]
pub struct SuffixTrie {
    first_edges: Vec<u32>,
    labels: Vec<u16>,
    targets: Vec<u32>,
    terminals: Vec<u32>,
    max_len: usize,
}

impl SuffixTrie {
    /// What stands in [`SuffixTrie::terminals`] for a node that ends no subword.
    pub const NONE: u32 = u32::MAX;

    /// Builds the trie over all subwords of the vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut entries: Vec<(&[u16], u32)> = vocabulary.iter().map(|(id, sequence)| (sequence, id)).collect();
        // A node's entries are then a range, a shorter entry stands before those it begins, and equal ones by id.
        entries.sort_unstable_by(|(a, a_id), (b, b_id)| a.iter().rev().cmp(b.iter().rev()).then(a_id.cmp(b_id)));

        let mut trie = Self {
            first_edges: Vec::new(),
            labels: Vec::new(),
            targets: Vec::new(),
            terminals: Vec::new(),
            max_len: entries.iter().map(|(sequence, _)| sequence.len()).max().unwrap_or(0),
        };
        // The ranges of one level's nodes, in the order of their numbers.
        let root = 0..entries.len();
        let mut level = vec![root];
        for depth in 0.. {
            if level.is_empty() {
                break;
            }
            // Entries of a node at this depth have `depth` labels behind them and agree on those.
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
                    // In level order every edge makes the next number.
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

    /// The number of edges, which fits: a vocabulary bounds the length of all its sequences together.
    fn edge_count(&self) -> u32 {
        self.labels.len() as u32
    }

    /// The node at the other end of the edge with this label.
    fn child(&self, node: u32, label: u16) -> Option<u32> {
        let first = self.first_edges[node as usize] as usize;
        let end = self.first_edges[node as usize + 1] as usize;
        let edge = self.labels[first..end].binary_search(&label).ok()?;
        Some(self.targets[first + edge])
    }

    /// The longest subword that ends at the last id of `history`, or `None` if there is none.
    ///
    /// Fused ids count as their plain twins and `<bpe_token_end>` is passed over. Specials match only themselves.
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

    /// The longest subword that ends at each of the ids in `new`, which follow those in `history`.
    ///
    /// Of the history only the last [`SuffixTrie::max_len`]` - 1` ids matter, so a stream needs to keep no more (ids
    /// of `<bpe_token_end>`, which are passed over, not counted).
    ///
    /// # Errors
    /// An id at which no subword ends; the message has its position in `new`.
    pub fn suffixes(&self, history: &[u16], new: &[u16]) -> Result<Vec<u32>> {
        let at = |i: usize| self.walk(new[..=i].iter().rev().chain(history.iter().rev()));
        (0..new.len()).map(|i| at(i).ok_or_else(|| no_match(i, new[i]))).collect()
    }

    /// The number of nodes, the root among them.
    pub fn node_count(&self) -> usize {
        self.terminals.len()
    }

    /// First edges, terminals and labels one behind the other, as `sample.wgsl` reads them. Targets are not needed: an edge leads to the
    /// node whose number is one above its own.
    pub(crate) fn words(&self) -> Vec<u32> {
        let labels = self.labels.iter().map(|&label| u32::from(label));
        self.first_edges.iter().chain(&self.terminals).copied().chain(labels).collect()
    }

    /// The length of the longest subword.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Where each node's edges begin, and at the end the number of all edges.
    pub fn first_edges(&self) -> &[u32] {
        &self.first_edges
    }

    /// The plain id on each edge.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// The node that each edge leads to.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The subword that each node ends, or [`SuffixTrie::NONE`].
    pub fn terminals(&self) -> &[u32] {
        &self.terminals
    }
}

fn no_match(position: usize, id: u16) -> Error {
    let remedy = match plain(id) {
        END_ID => "; the tokenizer_config.json beside the tokenizer.json should name an eos_token that the latter has",
        PAD_ID => "; the tokenizer_config.json beside the tokenizer.json should name a pad_token that the latter has",
        _ => "",
    };
    Error::invalid(format!(
        "id {id} at position {position} of the new ids: expected an id at which a subword of the vocabulary ends, found none{remedy}"
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

    /// The definition: of the subwords that the ids end with, the longest, then the one with the highest id.
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
    fn fused_ids_count_as_bytes_and_the_token_end_is_passed_over() {
        let (_, trie) = build(&[b"he", b"the"], &[]);
        let fused: Vec<u16> = ids("the").iter().map(|id| id + FUSED_OFFSET).collect();
        assert_eq!(trie.longest_match(&fused), Some(257));
        let [t, h, e] = ids("the")[..] else { unreachable!() };
        assert_eq!(trie.longest_match(&[t, 3, h, 3, 3, e, 3]), Some(257));
    }

    #[test]
    fn specials_match_only_themselves() {
        let (_, trie) = build(&[b"ab"], &["<|end|>"]);
        let [a, b] = ids("ab")[..] else { unreachable!() };
        assert_eq!(trie.suffixes(&[], &[1, a, b, 1, b]).unwrap(), [257, 97, 256, 257, 98]);
        let error = trie.suffixes(&[1], &[a, 0, b]).unwrap_err().to_string();
        assert!(error.contains("id 0 at position 1") && error.contains("pad_token"), "{error}");
        assert!(trie.suffixes(&[], &[2]).unwrap_err().to_string().contains("id 2 at position 0"));
        assert!(trie.suffixes(&[], &[520]).is_err() && trie.suffixes(&[], &[u16::MAX]).is_err());
    }

    #[test]
    fn of_equal_sequences_the_highest_id_wins_but_for_the_end_of_text() {
        let (vocabulary, trie) = build(&[b"ab"], &["ab ", "<|end|>", "<|begin|>"]);
        assert_eq!((vocabulary.eos(), vocabulary.bos()), (Some(258), Some(259)));
        assert_eq!(trie.longest_match(&[1]), Some(258));
        let mut json = tokenizer(&[b"a\n", b"b"], &[]);
        // The added token's text is what the subword of id 256 stands for.
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

    proptest! {
        #[test]
        fn equals_the_definition_and_streams(
            subwords in prop::collection::btree_set(prop::collection::vec(b'a'..=b'c', 2..6), 0..30),
            text in prop::collection::vec(prop_oneof![8 => 101u16..=103, 4 => 361u16..=363, 1 => Just(3u16), 1 => Just(1u16)], 1..40),
            cut in 0usize..40,
        ) {
            let subwords: Vec<&[u8]> = subwords.iter().map(Vec::as_slice).collect();
            let (vocabulary, trie) = build(&subwords, &["<|end|>"]);
            let naive: Vec<_> = (0..text.len()).map(|i| naive(&vocabulary, &text[..=i])).collect();
            let at_once: Vec<_> = (0..text.len()).map(|i| trie.longest_match(&text[..=i])).collect();
            prop_assert_eq!(&at_once, &naive);
            // Nothing ends at a token end in front of everything else.
            let first = text.iter().position(|&id| id != 3).unwrap_or(text.len());
            let (history, new) = text.split_at(cut.clamp(first, text.len()));
            let tail = if text.contains(&3) { 0 } else { history.len().saturating_sub(trie.max_len() - 1) };
            let streamed = trie.suffixes(&history[tail..], new).unwrap();
            prop_assert!(streamed.into_iter().map(Some).eq(naive[history.len()..].iter().copied()));
        }
    }

    #[test]
    fn random_vocabularies_and_ids_agree_with_the_definition() {
        for mut case in crate::fuzz::cases(2, 100) {
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
