//! Quantized checkpoints: folders whose matrices are stored as the device keeps them, so that loading converts nothing.
//!
//! `docs/quantised-checkpoints.md` describes the folder.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, json};

use crate::allocate;
use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{Part, TensorSpec, expected_tensors};
use crate::checkpoint::output::{
    HeaderItem, Replaces, Target, divide, header, io_error, shard_name, write_index, write_json,
};
use crate::checkpoint::packed::{Packed, Unpacked, out_of_range};
use crate::checkpoint::quantized::Stored;
use crate::checkpoint::stored_formats::set_stored_formats;
use crate::checkpoint::{Checkpoint, DType, Tensor, check_finite};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::input::json::config_with_nulls;

/// Number of elements to convert and write at a time.
const STRIDE: usize = 1 << 20;
/// Files other than weights that an output may have.
const OTHERS: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// Options of [`write_quantized`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Names and contents of further files to write: `tokenizer.json`, `tokenizer_config.json`,
    /// `generation_config.json`.
    pub others: Vec<(String, Vec<u8>)>,
    /// Maximum size of the weights in one file in bytes; a single tensor may be larger.
    pub max_shard_bytes: u64,
}

impl Default for QuantizeOptions {
    /// No further files, shards of 2 GiB.
    fn default() -> Self {
        Self { others: Vec::new(), max_shard_bytes: 2 << 30 }
    }
}

impl QuantizeOptions {
    /// Sets the further files to write.
    pub fn others(self, others: Vec<(String, Vec<u8>)>) -> Self {
        Self { others, ..self }
    }

    /// Sets the maximum size of the weights in one file.
    pub fn max_shard_bytes(self, max_shard_bytes: u64) -> Self {
        Self { max_shard_bytes, ..self }
    }
}

/// The result of [`write_quantized`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantizeReport {
    /// Size of each part's weights in bytes before and after, with scales and without headers.
    pub parts: Vec<(Part, u64, u64)>,
    /// Number of weight files.
    pub shards: usize,
    /// Matrices in a larger format than that of their part, because their rows are no multiple of a block.
    pub enlarged: Vec<String>,
}

impl QuantizeReport {
    /// Size of all weights of the source in bytes.
    pub fn bytes_before(&self) -> u64 {
        self.parts.iter().map(|(_, before, _)| before).sum()
    }

    /// Size of all weights of the new folder in bytes.
    pub fn bytes_after(&self) -> u64 {
        self.parts.iter().map(|(_, _, after)| after).sum()
    }
}

/// Writes the folder `dir` with the matrices of `checkpoint` in `formats`.
///
/// `dir` must not exist, be empty, or be an earlier output, which is replaced: all of its files must be listed in its
/// `bolmo-files.json`, with the same lengths. The files are written to a hidden folder beside it, which is renamed at
/// the end. Where a folder cannot be renamed, they are moved into it. The memory use is a few MiB plus the scales of
/// one tensor. `progress` receives the number of bytes of the source that are done and their total; returning `false`
/// cancels.
///
/// # Errors
/// `InvalidArgument` for a checkpoint that is already quantized, for f32 in all parts, and for a folder with other
/// files; `BadCheckpoint` for weights that are not finite; `Unsupported` for weights beyond f16; `Io`, also if there is
/// too little free space; `Busy` while another run writes into the folder; `Cancelled`.
pub fn write_quantized(
    checkpoint: &Checkpoint,
    dir: impl AsRef<Path>,
    formats: Formats,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<QuantizeReport> {
    if let Some(stored) = checkpoint.formats() {
        return Err(Error::invalid(format!(
            "{}: is quantized already, as {stored}; name the folder that it was made from",
            checkpoint.origin()
        ))
        .with_hint(Hint::QuantizeOriginal { format: None }));
    }
    if formats == Formats::default() {
        return Err(Error::invalid("f32 in all parts leaves nothing to quantize; choose f16, q8 or q4 for some part"));
    }
    if options.max_shard_bytes == 0 {
        return Err(Error::invalid("`max_shard_bytes` must be above 0"));
    }
    if let Some((name, _)) =
        options.others.iter().find(|(name, _)| name == OTHERS[0] || !OTHERS.contains(&name.as_str()))
    {
        return Err(Error::invalid(format!("{name:?} is not a file of a quantized checkpoint; leave it out")));
    }
    let target = Target::new(dir.as_ref(), Replaces::Listed("quantize"))?;
    let specs = expected_tensors(checkpoint.config());
    let plans: Vec<Plan<'_>> = specs
        .iter()
        .map(|spec| Ok(Plan { spec, tensor: checkpoint.tensor(&spec.name)?, stored: Stored::new(spec, formats) }))
        .collect::<Result<_>>()?;
    let needed: u64 = plans.iter().map(|plan| plan.stored.byte_count(plan.spec)).sum();
    let partial = target.begin(needed)?;

    let mut config = config_with_nulls(checkpoint.config_text(), &format!("{}/config.json", checkpoint.origin()))?;
    set_stored_formats(&mut config, formats);
    write_json(&partial.path.join("config.json"), &config)?;
    for (name, contents) in &options.others {
        let path = partial.path.join(name);
        std::fs::write(&path, contents).map_err(|e| io_error(&path, "cannot be written", &e))?;
    }

    let shards = divide(&plans, options.max_shard_bytes, |plan| plan.stored.byte_count(plan.spec));
    let mut writer =
        Writer { progress, done: 0, total: checkpoint.contents_bytes(), values: Vec::new(), packed: Packed::default() };
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = shard_name(i, shards.len());
        writer.shard(&partial.path.join(&name), shard)?;
        for plan in *shard {
            weight_map.insert(plan.spec.name.clone(), json!(name));
            weight_map.extend(plan.stored.scales.iter().map(|(scales, _)| (scales.clone(), json!(name))));
        }
    }
    let report = report(&plans, formats, shards.len());
    let parameters = specs.iter().map(TensorSpec::element_count).sum();
    write_index(&partial.path, shards.len(), parameters, report.bytes_after(), weight_map)?;
    target.finish(partial)?;
    Ok(report)
}

fn report(plans: &[Plan<'_>], formats: Formats, shards: usize) -> QuantizeReport {
    let mut parts: Vec<(Part, u64, u64)> = Vec::new();
    let mut enlarged = Vec::new();
    for Plan { spec, tensor, stored } in plans {
        if parts.last().is_none_or(|(part, ..)| *part != spec.part) {
            parts.push((spec.part, 0, 0));
        }
        if let Some((_, before, after)) = parts.last_mut() {
            *before += tensor.byte_count();
            *after += stored.byte_count(spec);
        }
        if spec.shape.len() == 2 && stored.dtype != DType::of_format(formats.of(spec.part)) {
            enlarged.push(spec.name.clone());
        }
    }
    QuantizeReport { parts, shards, enlarged }
}

/// A tensor, its source and how it will be stored.
struct Plan<'a> {
    spec: &'a TensorSpec,
    tensor: Tensor<'a>,
    stored: Stored,
}

/// The state that files share: progress and buffers.
struct Writer<'a> {
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    values: Vec<f32>,
    packed: Packed,
}

impl Writer<'_> {
    /// Writes a file: first the weights in the order of the list, then the scales, so that each tensor is aligned to
    /// its type.
    fn shard(&mut self, path: &Path, plans: &[Plan<'_>]) -> Result<()> {
        let failed = |e: std::io::Error| io_error(path, "cannot be written", &e);
        let weights = plans.iter().map(|plan| HeaderItem {
            name: &plan.spec.name,
            dtype: plan.stored.dtype.stored(),
            shape: &plan.stored.shape,
        });
        let scales = plans.iter().filter_map(|plan| plan.stored.scales.as_ref()).map(|(name, shape)| HeaderItem {
            name,
            dtype: DType::F16.stored(),
            shape,
        });
        let items: Vec<HeaderItem<'_>> = weights.chain(scales).collect();
        let header = header(&items);
        let mut file = File::create(path).map_err(failed)?;
        file.write_all(&header).map_err(failed)?;
        let mut scales_at = header.len() as u64 + items[..plans.len()].iter().map(HeaderItem::byte_count).sum::<u64>();
        let mut scales = Vec::new();
        for plan in plans {
            scales.clear();
            self.tensor(plan, &mut scales, &mut |bytes| file.write_all(bytes).map_err(failed))?;
            if !scales.is_empty() {
                let weights_at = file.stream_position().map_err(failed)?;
                file.seek(SeekFrom::Start(scales_at)).map_err(failed)?;
                file.write_all(&scales).map_err(failed)?;
                file.seek(SeekFrom::Start(weights_at)).map_err(failed)?;
                scales_at += scales.len() as u64;
            }
        }
        // Some systems report a full disk only here.
        file.sync_all().map_err(failed)
    }

    /// Passes the packed weights of a tensor to `write` and collects its scales.
    fn tensor(
        &mut self,
        plan: &Plan<'_>,
        scales: &mut Vec<u8>,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Plan { spec, tensor, stored } = plan;
        let row = spec.shape.last().copied().unwrap_or(1).max(1);
        let format = stored.dtype.format();
        let chunk = (STRIDE / row).max(1) * row;
        let count = spec.element_count();
        let mut first = 0;
        while first < count {
            let elements = (count - first).min(chunk as u64);
            allocate::resize(&mut self.values, elements as usize, &spec.name)?;
            tensor.read_f32(first, &mut self.values)?;
            check_finite(&spec.name, first, &self.values, row)?;
            self.packed.pack(format, &self.values).map_err(|unpacked| match unpacked {
                Unpacked::OutOfRange(at) => {
                    let element = first as usize + at;
                    out_of_range(format, &spec.name, (element / row, element % row), self.values[at])
                }
                Unpacked::Memory(error) => error.context(&spec.name),
            })?;
            write(&self.packed.weights)?;
            scales.extend_from_slice(&self.packed.scales);
            first += elements;
            self.done += tensor.dtype.bytes(elements);
            if !(self.progress)(self.done, self.total) {
                return Err(Error::new(ErrorKind::Cancelled, "quantization was cancelled"));
            }
        }
        Ok(())
    }
}
