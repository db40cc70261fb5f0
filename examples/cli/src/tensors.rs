//! The output file of `bolmo score --dump`.

use std::path::Path;

use bolmo_runtime::files::write_file;
use bolmo_runtime::unstable::output::{HeaderItem, header};
use bolmo_runtime::{Result, Tensors};
use bytemuck::cast_slice;
use safetensors::Dtype;

/// A tensor of the file.
struct Item<'a> {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    data: &'a [u8],
}

/// Writes the tensors of a model with hidden size `d` to `path`.
pub fn write(path: &Path, all: &Tensors, d: usize) -> Result<()> {
    let ids: Vec<i64> = all.ids.iter().map(|&id| id.into()).collect();
    let suffix_ids: Option<Vec<i64>> = all.suffix_ids.as_ref().map(|ids| ids.iter().map(|&id| id.into()).collect());
    let mask: Vec<u8> = all.boundary_mask.iter().map(|&end| end.into()).collect();

    // Large elements come first, so that each tensor is aligned to its type.
    let mut items = vec![rows("ids", Dtype::I64, 1, ids.len(), cast_slice(&ids))];
    if let Some(suffix_ids) = &suffix_ids {
        items.push(rows("suffix_ids", Dtype::I64, 1, suffix_ids.len(), cast_slice(suffix_ids)));
    }
    items.extend([
        floats("boundary_logprobs", 1, &all.boundary_logprobs),
        floats("encoder_out", d, &all.encoder_out),
        floats("patch_embeddings", d, &all.patch_embeddings),
        floats("global_out", d, &all.global_out),
        floats("decoder_out", d, &all.decoder_out),
        floats("final_hidden", d, &all.final_hidden),
        floats("logits", bolmo_runtime::BYTE_VOCABULARY, &all.logits),
        rows("boundary_mask", Dtype::U8, 1, mask.len(), &mask),
    ]);
    let list: Vec<HeaderItem<'_>> =
        items.iter().map(|item| HeaderItem { name: item.name, dtype: item.dtype, shape: &item.shape }).collect();
    let header = header(&list);
    let bytes = header.len() as u64 + items.iter().map(|item| item.data.len() as u64).sum::<u64>();
    write_file(path, bytes, |file| {
        file.write_all(&header)?;
        items.iter().try_for_each(|item| file.write_all(item.data))
    })
}

fn floats<'a>(name: &'static str, width: usize, values: &'a [f32]) -> Item<'a> {
    rows(name, Dtype::F32, width, values.len(), cast_slice(values))
}

/// A tensor of rows of `width` numbers, or of one dimension for width 1.
fn rows<'a>(name: &'static str, dtype: Dtype, width: usize, values: usize, data: &'a [u8]) -> Item<'a> {
    let shape = if width == 1 { vec![values] } else { vec![values / width.max(1), width] };
    Item { name, dtype, shape, data }
}
