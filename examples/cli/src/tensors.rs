//! The output file of `bolmo score --dump`.

use std::path::Path;

use bolmo_runtime::{Error, ErrorKind, Result, Tensors};
use bytemuck::cast_slice;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::files;

/// Writes the tensors of a model with hidden size `d` to `path`.
pub fn write(path: &Path, all: &Tensors, d: usize) -> Result<()> {
    let ids: Vec<i64> = all.ids.iter().map(|&id| id.into()).collect();
    let suffix_ids: Option<Vec<i64>> = all.suffix_ids.as_ref().map(|ids| ids.iter().map(|&id| id.into()).collect());
    let mask: Vec<u8> = all.boundary_mask.iter().map(|&end| end.into()).collect();

    let mut views = vec![
        view("ids", Dtype::I64, 1, ids.len(), cast_slice(&ids))?,
        view("boundary_mask", Dtype::U8, 1, mask.len(), &mask)?,
        floats("boundary_logprobs", 1, &all.boundary_logprobs)?,
        floats("encoder_out", d, &all.encoder_out)?,
        floats("patch_embeddings", d, &all.patch_embeddings)?,
        floats("global_out", d, &all.global_out)?,
        floats("decoder_out", d, &all.decoder_out)?,
        floats("final_hidden", d, &all.final_hidden)?,
        floats("logits", bolmo_runtime::BYTE_VOCABULARY, &all.logits)?,
    ];
    if let Some(suffix_ids) = &suffix_ids {
        views.push(view("suffix_ids", Dtype::I64, 1, suffix_ids.len(), cast_slice(suffix_ids))?);
    }

    files::write(path, |partial| serialize_to_file(views, None, partial))
}

fn floats<'a>(name: &'static str, width: usize, values: &'a [f32]) -> Result<(&'static str, TensorView<'a>)> {
    view(name, Dtype::F32, width, values.len(), cast_slice(values))
}

/// A tensor of rows of `width` numbers, or of one dimension for width 1.
fn view<'a>(
    name: &'static str,
    dtype: Dtype,
    width: usize,
    values: usize,
    data: &'a [u8],
) -> Result<(&'static str, TensorView<'a>)> {
    let shape = if width == 1 { vec![values] } else { vec![values / width.max(1), width] };
    let view = TensorView::new(dtype, shape, data)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("tensor {name} has an unexpected size: {e}")))?;
    Ok((name, view))
}
