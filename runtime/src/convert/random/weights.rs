//! The weight files of a random checkpoint, streamed in pieces so that memory stays flat at any size.

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

/// Elements that are made and written at a time.
const PIECE: usize = 1 << 20;
/// Deviation of the two embedding tables, the source models' own.
const EMBEDDING_DEVIATION: f64 = 0.02;
/// Forget-gate biases from the first head to the last, the usual choice for an mLSTM.
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
        values: Vec::with_capacity(PIECE),
        bytes: Vec::with_capacity(options.dtype.bytes(PIECE as u64) as usize),
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

/// What lasts from file to file: where the run stands, and its buffers.
struct Writer<'a> {
    options: &'a InitOptions,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    /// Values of one piece before rounding.
    values: Vec<f32>,
    /// The same as they are stored.
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
                let count = (spec.element_count() - first).min(PIECE as u64);
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
        file.flush().map_err(failed)
    }
}

/// How the elements of one tensor come about.
enum Values {
    Constant(f32),
    /// From the first value to the last in even steps, over `count` elements.
    Spread {
        first: f32,
        last: f32,
        count: u64,
    },
    Bell {
        stream: Stream,
        deviation: f64,
    },
}

impl Values {
    /// The choice for each tensor: norms 1; embeddings as the source models have them; forget gates that remember;
    /// input gates of one deviation, so that heads differ; other biases 0; and matrices that keep the length of a
    /// vector.
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

    /// The elements from `start` on.
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
