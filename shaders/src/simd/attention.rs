use std::ops::Range;

use super::call::{Call, product};
use super::instruction_set::InstructionSet;
use super::memory::{Fault, Output};
use super::panels::{Operand, PackKeys, PackValues, Product, TILE_ROWS};
use super::scratch::{with_scratch, with_shared_memory};
use crate::params;

mod softmax;
#[cfg(test)]
mod tests;

use softmax::{Merge, Softmax, State};

/// Keys that one softmax covers. Results of blocks are merged in the order of positions. Blocks begin at multiples of
/// this many positions, so that a query's result doesn't depend on the queries around it.
const BLOCK: usize = 256;
/// Keys or values that are packed at a time. At the usual widths of heads they fit in the first-level cache.
const CHUNK: usize = 32;
/// Queries of a tile, which share packed keys and values: enough to make packing cheap.
const TILE: usize = 11 * TILE_ROWS;
/// Tasks below which blocks of keys become tasks of their own.
const FEW_TASKS: usize = 64;
/// The maximum number of values in results of blocks (4 MB).
const MAX_SHARED: usize = 1 << 20;

/// Softmax attention over one segment of the KV cache; see the [CPU reference](crate::cpu::attention). A score that is
/// not finite makes the result of its query NaN.
pub(super) fn attention(call: &Call<'_>) -> Result<(), Fault> {
    let Some(attention) = Attention::new(call)? else { return Ok(()) };
    let a = &attention;
    let tiles = a.count.div_ceil((TILE / a.group).max(1));
    let rows = a.count.div_ceil(tiles);
    let tile = |sequence: usize, kv_head: usize, number: usize| Tile {
        attention: a,
        sequence,
        kv_head,
        rows: number * rows..a.count.min((number + 1) * rows),
    };
    let queries = a.sequences * a.count * a.heads;
    let blocks = a.blocks(0..a.count);
    let cost = queries.saturating_mul(blocks.len() * BLOCK).saturating_mul(2 * a.dim);
    let tasks = a.sequences * tiles * a.kv_heads;

    let states = queries.saturating_mul(blocks.len());
    let size = State::size(a.width);
    if tasks >= FEW_TASKS || blocks.len() < 2 || states.saturating_mul(size) > MAX_SHARED {
        call.each(tasks, cost, |task| {
            let (sequence, number, kv_head) = (task / a.kv_heads / tiles, task / a.kv_heads % tiles, task % a.kv_heads);
            tile(sequence, kv_head, number).run();
        });
        return Ok(());
    }
    with_shared_memory(states * size, |memory| {
        let results = memory.output(states * size).expect("memory of this size");
        call.each(tasks * blocks.len(), cost, |task| {
            // Neighbors in memory follow each other.
            let (rest, kv_head) = (task / a.kv_heads, task % a.kv_heads);
            let (rest, number) = (rest / tiles, rest % tiles);
            let (sequence, block) = (rest / blocks.len(), rest % blocks.len());
            tile(sequence, kv_head, number).run_block(&blocks, block, results);
        });
        call.each(queries, states.saturating_mul(size), |query| a.merge(&blocks, query, results));
    });
    Ok(())
}

/// Sizes and bindings of a call. Keys are numbered from the block boundary at or before the segment.
struct Attention<'a> {
    p: params::Attention,
    instructions: InstructionSet,
    sequences: usize,
    count: usize,
    heads: usize,
    kv_heads: usize,
    /// Query heads of a key/value head.
    group: usize,
    dim: usize,
    /// `dim` up to whole vectors.
    width: usize,
    keys: usize,
    /// Number of the segment's first key.
    first: usize,
    /// `[sequences, count, heads, dim]`
    q: &'a [f32],
    /// `[sequences, keys, 2, kv_heads, dim]`
    kv: &'a [f32],
    /// `[sequences, count, heads, 2]`
    running: Output<'a>,
    /// `[sequences, count, heads, dim]`
    o: Output<'a>,
}

impl<'a> Attention<'a> {
    /// Nothing if there are no queries.
    fn new(call: &Call<'a>) -> Result<Option<Self>, Fault> {
        let p: params::Attention = call.params()?;
        let [count, heads, group, dim4, keys] = [p.count, p.heads, p.heads_per_kv, p.dim4, p.keys].map(|n| n as usize);
        let sequences = call.grid[2] as usize;
        if group == 0 || heads % group != 0 {
            return Err(Fault::new(format!("attention: {heads} heads are not a multiple of {group}")));
        }
        let (dim, kv_heads) = (product(&[4, dim4]), heads / group);
        if [sequences, count, heads, dim].contains(&0) {
            return Ok(None);
        }
        let queries = product(&[sequences, count, heads]);
        Ok(Some(Self {
            p,
            instructions: call.instructions,
            sequences,
            count,
            heads,
            kv_heads,
            group,
            dim,
            width: product(&[dim.div_ceil(16), 16]),
            keys,
            first: p.key_first as usize % BLOCK,
            q: call.read(0, product(&[queries, dim]))?,
            kv: call.read(1, product(&[sequences, keys, 2, kv_heads, dim]))?,
            running: call.write(2, product(&[queries, 2]))?,
            o: call.write(3, product(&[queries, dim]))?,
        }))
    }

    /// The keys that a row of queries sees. Both ends grow with the row.
    fn visible(&self, row: usize) -> Range<usize> {
        let [first, keys, window] = [self.p.key_first, self.p.keys, self.p.window].map(u64::from);
        let end = u64::from(self.p.query_first) + row as u64 + 1;
        let begin = if window == 0 { 0 } else { end.saturating_sub(window) };
        let number = |position: u64| self.first + (position.clamp(first, first + keys) - first) as usize;
        number(begin)..number(end)
    }

    /// As [`Self::visible`], of all of these rows.
    fn visible_to(&self, rows: Range<usize>) -> Range<usize> {
        self.visible(rows.start).start..self.visible(rows.end - 1).end
    }

    /// The blocks with keys that these rows see.
    fn blocks(&self, rows: Range<usize>) -> Range<usize> {
        let keys = self.visible_to(rows);
        if keys.is_empty() { 0..0 } else { keys.start / BLOCK..keys.end.div_ceil(BLOCK) }
    }

    /// Distance from a key to the next.
    fn stride(&self) -> usize {
        2 * self.kv_heads * self.dim
    }

    /// The key or the value with this number, and what follows it.
    fn row(&self, sequence: usize, key: usize, which: usize, kv_head: usize) -> &'a [f32] {
        let row = (sequence * self.keys + key - self.first) * 2 + which;
        &self.kv[(row * self.kv_heads + kv_head) * self.dim..]
    }

    /// Sets the state before the segment.
    fn start(&self, query: usize, total: &mut [f32]) {
        let mut total = State::of(total);
        total.clear();
        if self.p.begin == 0 {
            // SAFETY: every query belongs to one task, and the slices are of different bindings.
            let (o, running) = unsafe { self.outputs(query) };
            total.set(running[0], running[1]);
            total.output()[..self.dim].copy_from_slice(o);
        }
    }

    /// Writes the state after the segment.
    fn finish(&self, query: usize, total: &mut [f32]) {
        let mut total = State::of(total);
        // SAFETY: as above.
        let (o, running) = unsafe { self.outputs(query) };
        running.copy_from_slice(&total.top_and_sum());
        let divisor = if self.p.end != 0 { running[1] } else { 1.0 };
        for (o, total) in o.iter_mut().zip(total.output()) {
            *o = *total / divisor;
        }
    }

    /// The query's part of `o` and `running`.
    ///
    /// # Safety
    /// Nothing else uses them at the same time.
    unsafe fn outputs(&self, query: usize) -> (&'a mut [f32], &'a mut [f32]) {
        // SAFETY: the caller's.
        unsafe {
            (self.o.slice(query * self.dim..(query + 1) * self.dim), self.running.slice(2 * query..2 * (query + 1)))
        }
    }

    /// Merges the results of blocks, `[queries, blocks]` states.
    fn merge(&self, blocks: &Range<usize>, query: usize, results: Output<'_>) {
        let size = State::size(self.width);
        let row = query / self.heads % self.count;
        with_scratch(size, |total| {
            self.start(query, total);
            for block in self.blocks(row..row + 1) {
                let result = query * blocks.len() + block - blocks.start;
                // SAFETY: every query has states of its own, and the tasks that wrote them are done.
                let other = unsafe { results.slice(result * size..(result + 1) * size) };
                self.instructions.run(Merge { state: State::of(total), other: State::of(other) });
            }
            self.finish(query, total);
        });
    }
}

/// Queries that share a key/value head: `rows` times the heads of a group.
struct Tile<'a> {
    attention: &'a Attention<'a>,
    sequence: usize,
    kv_head: usize,
    rows: Range<usize>,
}

/// Memory of a tile.
struct Scratch<'a> {
    /// `[queries, dim]`, scaled
    q: &'a mut [f32],
    /// A chunk of keys or values.
    packed: &'a mut [f32],
    /// `[queries, BLOCK]`, scores and then weights
    scores: &'a mut [f32],
    /// `[queries]` states of a block
    states: &'a mut [f32],
    /// `[queries]` states of all blocks so far
    totals: &'a mut [f32],
}

impl Tile<'_> {
    fn queries(&self) -> usize {
        self.rows.len() * self.attention.group
    }

    /// The row of query `i` of the tile.
    fn row(&self, i: usize) -> usize {
        self.rows.start + i / self.attention.group
    }

    /// The number of query `i` of the tile in the call.
    fn query(&self, i: usize) -> usize {
        let a = self.attention;
        (self.sequence * a.count + self.row(i)) * a.heads + self.kv_head * a.group + i % a.group
    }

    /// The keys among `keys` that some of these queries of the tile see, counted from the first one of `keys`.
    fn visible(&self, queries: Range<usize>, keys: &Range<usize>) -> Range<usize> {
        let visible = self.attention.visible_to(self.row(queries.start)..self.row(queries.end - 1) + 1);
        let number = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
        number(visible.start)..number(visible.end)
    }

    /// All blocks in turn.
    fn run(&self) {
        let a = self.attention;
        let size = State::size(a.width);
        self.with_scratch(|scratch| {
            for (i, total) in scratch.totals.chunks_exact_mut(size).enumerate() {
                a.start(self.query(i), total);
            }
            for block in a.blocks(self.rows.clone()) {
                self.block(block, scratch);
                let states = scratch.states.chunks_exact_mut(size);
                for (i, (total, other)) in scratch.totals.chunks_exact_mut(size).zip(states).enumerate() {
                    let row = self.row(i);
                    if a.blocks(row..row + 1).contains(&block) {
                        a.instructions.run(Merge { state: State::of(total), other: State::of(other) });
                    }
                }
            }
            for (i, total) in scratch.totals.chunks_exact_mut(size).enumerate() {
                a.finish(self.query(i), total);
            }
        });
    }

    /// One of `blocks`, into `results`, `[queries, blocks]` states.
    fn run_block(&self, blocks: &Range<usize>, block: usize, results: Output<'_>) {
        let a = self.attention;
        if !a.blocks(self.rows.clone()).contains(&(blocks.start + block)) {
            return;
        }
        let size = State::size(a.width);
        self.with_scratch(|scratch| {
            self.block(blocks.start + block, scratch);
            for (i, state) in scratch.states.chunks_exact(size).enumerate() {
                let result = self.query(i) * blocks.len() + block;
                // SAFETY: one task has this query and this block.
                unsafe { results.slice(result * size..(result + 1) * size) }.copy_from_slice(state);
            }
        });
    }

    /// Calls `f` with memory that has the queries.
    fn with_scratch(&self, f: impl FnOnce(&mut Scratch<'_>)) {
        let a = self.attention;
        let (queries, size) = (self.queries(), State::size(a.width));
        let (q, packed, scores, states) = (queries * a.width, CHUNK * a.width, queries * BLOCK, queries * size);
        with_scratch(q + packed + scores + 2 * states, |memory| {
            let (q, memory) = memory.split_at_mut(q);
            let (packed, memory) = memory.split_at_mut(packed);
            let (scores, memory) = memory.split_at_mut(scores);
            let (states, totals) = memory.split_at_mut(states);
            for (i, scaled) in q[..queries * a.dim].chunks_exact_mut(a.dim).enumerate() {
                let from = self.query(i) * a.dim;
                scaled.iter_mut().zip(&a.q[from..from + a.dim]).for_each(|(scaled, &q)| *scaled = q * a.p.scale);
            }
            f(&mut Scratch { q, packed, scores, states, totals });
        });
    }

    /// The states of a block. Those of queries that see none of its keys are unspecified.
    fn block(&self, block: usize, scratch: &mut Scratch<'_>) {
        let size = State::size(self.attention.width);
        let first = block * BLOCK;
        for chunk in (0..BLOCK).step_by(CHUNK) {
            self.score(first, chunk, scratch);
        }
        let rows = scratch.scores.chunks_exact_mut(BLOCK).zip(scratch.states.chunks_exact_mut(size));
        for (i, (scores, state)) in rows.enumerate() {
            let mut state = State::of(state);
            state.clear();
            let range = self.visible(i..i + 1, &(first..first + BLOCK));
            if !range.is_empty() {
                self.attention.instructions.run(Softmax { scores, range, state });
            }
        }
        for chunk in (0..BLOCK).step_by(CHUNK) {
            self.add_values(first, chunk, scratch);
        }
    }

    /// Groups of queries for a register tile.
    fn register_tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let queries = self.queries();
        (0..queries).step_by(TILE_ROWS).map(move |i| i..queries.min(i + TILE_ROWS))
    }

    /// Scores for the keys of a chunk of the block from `first` on.
    fn score(&self, first: usize, chunk: usize, scratch: &mut Scratch<'_>) {
        let a = self.attention;
        let keys = first + chunk..first + chunk + CHUNK;
        let columns = self.visible(0..self.queries(), &keys);
        if columns.is_empty() {
            return;
        }
        let number = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
        let valid = number(a.first)..number(a.first + a.keys);
        a.instructions.run(PackKeys {
            keys: a.row(self.sequence, keys.start + valid.start, 0, self.kv_head),
            stride: a.stride(),
            dim: a.dim,
            valid,
            columns,
            panels: scratch.packed,
        });
        for tile in self.register_tiles() {
            a.instructions.run(Product {
                a: &scratch.q[tile.start * a.dim..],
                a_stride: a.dim,
                b: Operand::Panels(scratch.packed, a.dim),
                c: &mut scratch.scores[tile.start * BLOCK + chunk..],
                c_stride: BLOCK,
                rows: tile.len(),
                columns: self.visible(tile, &keys),
                depth: 0..a.dim,
                add: false,
            });
        }
    }

    /// Adds the weighted values of a chunk of the block from `first` on to the states.
    fn add_values(&self, first: usize, chunk: usize, scratch: &mut Scratch<'_>) {
        let a = self.attention;
        let keys = first + chunk..first + chunk + CHUNK;
        let seen = self.visible(0..self.queries(), &keys);
        if seen.is_empty() {
            return;
        }
        let keys = keys.start + seen.start..keys.start + seen.end;
        let values = a.row(self.sequence, keys.start, 1, self.kv_head);
        let b = if self.queries() == 1 && a.dim == a.width {
            Operand::Rows(values, a.stride())
        } else {
            let (stride, dim, depth) = (a.stride(), a.dim, CHUNK);
            a.instructions.run(PackValues { values, stride, dim, rows: 0..keys.len(), depth, panels: scratch.packed });
            Operand::Panels(scratch.packed, CHUNK)
        };
        let (weights, size) = (&scratch.scores[chunk + seen.start..], State::size(a.width));
        let mut add = |queries: Range<usize>, depth: Range<usize>| {
            if depth.is_empty() {
                return;
            }
            a.instructions.run(Product {
                a: &weights[queries.start * BLOCK..],
                a_stride: BLOCK,
                b,
                c: &mut scratch.states[queries.start * size..],
                c_stride: size,
                rows: queries.len(),
                columns: 0..a.dim,
                depth,
                add: true,
            });
        };
        for tile in self.register_tiles() {
            // Keys that all queries of the tile see are added together. Others are added query by query, since 0 times
            // a value that a query doesn't see could be NaN.
            let own = |i: usize| self.visible(i..i + 1, &keys);
            let (first, last) = (own(tile.start), own(tile.end - 1));
            let common = last.start..first.end.max(last.start);
            for i in tile.clone().filter(|_| first.start < common.start) {
                let own = own(i);
                add(i..i + 1, own.start..own.end.min(common.start));
            }
            add(tile.clone(), common.clone());
            for i in tile.filter(|_| common.end < last.end) {
                let own = own(i);
                add(i..i + 1, own.start.max(common.end)..own.end);
            }
        }
    }
}
