//! The tensors that make up a matrix, and their rows.

use std::ops::Range;

use bolmo_shaders::WeightFormat;
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::Tensor;
use crate::checkpoint::packed::out_of_range;
use crate::error::{Error, Result};

/// The tensors that make up a matrix.
pub(super) enum MatrixSource<'a> {
    /// The rows of one tensor after the other.
    Stacked(Vec<Tensor<'a>>),
    /// The rows of two tensors, alternating.
    Interleaved([Tensor<'a>; 2]),
}

impl<'a> MatrixSource<'a> {
    pub(super) fn tensors(&self) -> &[Tensor<'a>] {
        match self {
            MatrixSource::Stacked(tensors) => tensors,
            MatrixSource::Interleaved(tensors) => tensors,
        }
    }

    /// Whether the tensors are quantized in the checkpoint. All tensors of a part have the same format.
    pub(super) fn is_packed(&self) -> bool {
        self.tensors().iter().all(|tensor| tensor.dtype.has_scales())
    }

    /// Number of rows and columns.
    pub(super) fn shape(&self) -> Result<(usize, usize)> {
        let first = self.tensors().first().ok_or_else(|| Error::internal("a matrix has no tensors"))?;
        Ok((self.tensors().iter().map(|t| t.shape[0]).sum(), first.shape[1]))
    }

    pub(super) fn name(&self) -> &'a str {
        self.tensors().first().map_or("", |tensor| tensor.name)
    }

    pub(super) fn hash_names(&self, hash: &mut Xxh3) {
        self.tensors().iter().for_each(|tensor| hash.update(tensor.name.as_bytes()));
    }

    /// The tensor that contains row `row` of the matrix, and the row within the tensor.
    fn place(&self, row: usize) -> (&'a str, usize) {
        match self {
            MatrixSource::Interleaved(tensors) => (tensors[row % 2].name, row / 2),
            MatrixSource::Stacked(tensors) => {
                let mut row = row;
                for tensor in tensors {
                    if row < tensor.shape[0] {
                        return (tensor.name, row);
                    }
                    row -= tensor.shape[0];
                }
                (self.name(), row)
            }
        }
    }

    /// The error for element `at` of `values`, which begin at row `first_row`.
    pub(super) fn out_of_range(
        &self,
        format: WeightFormat,
        first_row: usize,
        k: usize,
        values: &[f32],
        at: usize,
    ) -> Error {
        let (name, row) = self.place(first_row + at / k);
        out_of_range(format, name, (row, at % k), values[at])
    }
}

/// Fetches `rows` rows of a matrix from row `first` on, so that they can be read.
pub(super) async fn fetch_rows(tensor: &Tensor<'_>, first: usize, rows: usize) -> Result<()> {
    let k = tensor.shape[1];
    tensor.fetch((first * k) as u64, (rows * k) as u64).await
}

/// Hashes some rows of tensors that are in memory, row by row in turns. The result is that of one matrix with these
/// rows.
pub(super) fn hash_rows(tensors: &[Tensor<'_>], rows: Range<usize>, weights: &mut Xxh3, scales: &mut Xxh3) {
    let contents: Vec<_> = tensors.iter().filter_map(|tensor| tensor.row_contents(rows.clone())).collect();
    if let [(all, all_scales)] = contents[..] {
        weights.update(all);
        scales.update(all_scales);
        return;
    }
    for row in 0..rows.len() {
        for &(all, all_scales) in &contents {
            let [row_bytes, row_scales] = [all.len(), all_scales.len()].map(|length| length / rows.len());
            weights.update(&all[row * row_bytes..][..row_bytes]);
            scales.update(&all_scales[row * row_scales..][..row_scales]);
        }
    }
}

/// Appends rows of `row_bytes` bytes, alternating between `a` and `b`.
pub(super) fn interleave(out: &mut Vec<u8>, a: &[u8], b: &[u8], row_bytes: usize) {
    for (a, b) in a.chunks_exact(row_bytes.max(1)).zip(b.chunks_exact(row_bytes.max(1))) {
        out.extend_from_slice(a);
        out.extend_from_slice(b);
    }
}
