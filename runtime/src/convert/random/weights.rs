//! The weight files of a random checkpoint, written in chunks so that the memory use does not depend on the size.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, json};

use crate::checkpoint::layout::{TensorSpec, expected_tensors};
use crate::checkpoint::output::{HeaderItem, divide, encode, header, io_error, shard_name, write_index};
use crate::config::Config;
use crate::convert::random::rng::Stream;
use crate::convert::random::{InitOptions, InitReport};
use crate::error::{Error, ErrorKind, Result};

/// Number of elements to generate and write at a time.
const CHUNK: usize = 1 << 20;
/// Deviation of the two embedding tables, as in the source models.
const EMBEDDING_DEVIATION: f64 = 0.02;
/// Forget-gate biases of the first and the last head, the usual choice for an mLSTM.
const FORGET_BIASES: (f32, f32) = (3.0, 6.0);

/// Writes `model.safetensors`, or shards and their index, into the folder `dir`.
pub(super) fn write(
    dir: &Path,
    config: &Config,
    options: &InitOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<InitReport> {
    let specs = expected_tensors(config);
    let parameters: u64 = specs.iter().map(TensorSpec::element_count).sum();
    let total = options.dtype.bytes(parameters);
    let shards = divide(&specs, options.max_shard_bytes, |spec| options.dtype.bytes(spec.element_count()));
    let mut writer = Writer {
        options,
        progress,
        done: 0,
        total,
        values: Vec::with_capacity(CHUNK),
        bytes: Vec::with_capacity(options.dtype.bytes(CHUNK as u64) as usize),
    };
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = shard_name(i, shards.len());
        writer.shard(&dir.join(&name), shard)?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), json!(name))));
    }
    write_index(dir, shards.len(), parameters, total, weight_map)?;
    Ok(InitReport { parameters, bytes: total, shards: shards.len() })
}

/// The state that files share: progress and buffers.
struct Writer<'a> {
    options: &'a InitOptions,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    /// Values of a chunk before rounding.
    values: Vec<f32>,
    /// Values of a chunk as stored.
    bytes: Vec<u8>,
}

impl Writer<'_> {
    fn shard(&mut self, path: &Path, specs: &[TensorSpec]) -> Result<()> {
        let failed = |e: std::io::Error| io_error(path, "cannot be written", &e);
        let mut file = File::create(path).map_err(failed)?;
        let items: Vec<HeaderItem> = specs
            .iter()
            .map(|spec| HeaderItem { name: &spec.name, dtype: self.options.dtype.stored(), shape: &spec.shape })
            .collect();
        file.write_all(&header(&items)).map_err(failed)?;
        for spec in specs {
            let kind = Values::of(spec, self.options.seed);
            let mut first = 0;
            while first < spec.element_count() {
                let count = (spec.element_count() - first).min(CHUNK as u64);
                self.values.resize(count as usize, 0.0);
                kind.fill(first, &mut self.values);
                self.bytes.clear();
                encode(self.options.dtype, &self.values, &mut self.bytes);
                file.write_all(&self.bytes).map_err(failed)?;
                first += count;
                self.done += self.bytes.len() as u64;
                if !(self.progress)(self.done, self.total) {
                    return Err(Error::new(ErrorKind::Cancelled, "writing the checkpoint was cancelled"));
                }
            }
        }
        // Some systems report a full disk only here.
        file.sync_all().map_err(failed)
    }
}

/// The distribution of a tensor's elements.
enum Values {
    Constant(f32),
    /// Evenly spaced values from `first` to `last`, over `count` elements.
    Spread {
        first: f32,
        last: f32,
        count: u64,
    },
    /// Bell-shaped with mean 0.
    Bell {
        stream: Stream,
        deviation: f64,
    },
}

impl Values {
    /// Chooses the distribution of a tensor.
    ///
    /// Norms are 1, embeddings are distributed as in the source models, biases of forget gates are high, and biases of
    /// input gates are random, so that heads differ. Other biases are 0, and matrices preserve the length of a vector
    /// on average.
    fn of(spec: &TensorSpec, seed: u64) -> Values {
        let name = spec.name.as_str();
        let bell = |deviation| Values::Bell { stream: Stream::new(seed, name), deviation };
        if name.ends_with("norm.weight") {
            return Values::Constant(1.0);
        }
        if name.ends_with("fgate_preact.bias") {
            return Values::Spread { first: FORGET_BIASES.0, last: FORGET_BIASES.1, count: spec.element_count() };
        }
        if name.ends_with("igate_preact.bias") {
            return bell(1.0);
        }
        if name.ends_with("_embedding.weight") {
            return bell(EMBEDDING_DEVIATION);
        }
        match spec.shape[..] {
            [_, columns] => bell(1.0 / (columns.max(1) as f64).sqrt()),
            _ => Values::Constant(0.0),
        }
    }

    /// Fills `out` with the elements from `start` on.
    fn fill(&self, start: u64, out: &mut [f32]) {
        match *self {
            Values::Constant(value) => out.fill(value),
            Values::Spread { first, last, count } => {
                let step = (last - first) / count.saturating_sub(1).max(1) as f32;
                for (i, x) in (start..).zip(out) {
                    *x = first + step * i as f32;
                }
            }
            Values::Bell { stream, deviation } => stream.fill_bell(start, deviation, out),
        }
    }
}
