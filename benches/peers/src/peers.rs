//! The peers' sides.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;

use bolmo_runtime::WeightFormat;
use burn::tensor::TensorData;
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use gemm::Parallelism;

use crate::cases::{Matrix, Side};

/// `x Wᵀ` by gemm, `times` times per sample.
pub fn gemm<'a>(w: &'a Matrix, x: &'a [f32], threads: usize, times: usize) -> Side<'a> {
    let (n, k, rows) = (w.n, w.k, x.len() / w.k);
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    let once = move |y: &mut [f32]| {
        assert!(y.len() == rows * n && w.values.len() == n * k && x.len() == rows * k);
        let (columns, width) = (n as isize, k as isize);
        // SAFETY: the lengths are those of y [rows, n], x [rows, k] and W [n, k], whose strides follow; W is read
        // transposed. y overlaps neither.
        unsafe {
            gemm::gemm(
                rows,
                n,
                k,
                y.as_mut_ptr(),
                1,
                columns,
                false,
                x.as_ptr(),
                1,
                width,
                w.values.as_ptr(),
                width,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    let mut y = vec![0.0; rows * n];
    once(&mut y);
    let result = y.clone();
    let sample = move || {
        (0..times).for_each(|_| once(black_box(&mut y)));
        Ok(())
    };
    Side { form: "gemm", result, sample: Box::new(sample) }
}

/// `x Wᵀ` by burn's flex backend, `times` times per sample: with the weights as ours, and in the order of burn's
/// linear layers, `[k, n]`.
pub fn burn_matmul<'a>(w: &Matrix, x: &[f32], times: usize) -> Result<Vec<Side<'a>>, String> {
    let (n, k, rows) = (w.n, w.k, x.len() / w.k);
    let device = burn::tensor::Device::flex();
    let tensor = |values: Vec<f32>, shape: [usize; 2]| {
        burn::tensor::Tensor::<2>::from_data(TensorData::new(values, shape), &device)
    };
    let mut transposed = vec![0.0; n * k];
    for (row, values) in w.values.chunks_exact(k).enumerate() {
        for (column, value) in values.iter().enumerate() {
            transposed[column * n + row] = *value;
        }
    }
    let x = tensor(x.to_vec(), [rows, k]);
    let forms = [
        ("flex, W [n, k]", tensor(w.values.clone(), [n, k]).transpose()),
        ("flex, W [k, n]", tensor(transposed, [k, n])),
    ];
    let side = |(form, w): (&'static str, burn::tensor::Tensor<2>)| {
        let once = {
            let x = x.clone();
            move || x.clone().matmul(w.clone())
        };
        let result = once().into_data().try_to_vec::<f32>().map_err(|e| format!("burn's result is not f32: {e:?}."))?;
        let sample = move || {
            (0..times).for_each(|_| drop(black_box(once())));
            Ok(())
        };
        Ok(Side { form, result, sample: Box::new(sample) as _ })
    };
    forms.into_iter().map(side).collect()
}

/// `x Wᵀ` by candle, `times` times per sample.
pub fn candle_matmul<'a>(w: &Matrix, x: &[f32], times: usize) -> Result<Side<'a>, String> {
    let (n, k, rows) = (w.n, w.k, x.len() / w.k);
    let make = || {
        let w = Tensor::from_slice(&w.values, (n, k), &Device::Cpu)?.t()?;
        Ok((Tensor::from_slice(x, (rows, k), &Device::Cpu)?, w))
    };
    let (x, w) = make().map_err(failed)?;
    let result = x.matmul(&w).and_then(|y| y.flatten_all()?.to_vec1()).map_err(failed)?;
    let sample = move || (0..times).try_for_each(|_| x.matmul(&w).map(|y| drop(black_box(y)))).map_err(failed);
    Ok(Side { form: "Tensor::matmul", result, sample: Box::new(sample) })
}

/// One row of x by `copies` copies of W, one after the other, in the forms that candle has for `format`.
pub fn candle_matvec<'a>(format: WeightFormat, w: &Matrix, x: &[f32], copies: usize) -> Result<Vec<Side<'a>>, String> {
    let (dtype, forms): (_, &[Form]) = match format {
        WeightFormat::F32 => (GgmlDType::F32, &[Form::Blocks, Form::Plain]),
        WeightFormat::F16 => (GgmlDType::F16, &[Form::Blocks, Form::Plain]),
        WeightFormat::Q8 => (GgmlDType::Q8_0, &[Form::Blocks]),
        WeightFormat::Q4 => (GgmlDType::Q4_0, &[Form::Blocks]),
    };
    forms.iter().map(|&form| form.side(dtype, w, x, copies).map_err(failed)).collect()
}

/// How candle holds the weights of a `QMatMul`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In ggml's blocks.
    Blocks,
    /// As a tensor of f32 or f16.
    Plain,
}

impl Form {
    fn side<'a>(self, dtype: GgmlDType, w: &Matrix, x: &[f32], copies: usize) -> candle_core::Result<Side<'a>> {
        let shape = (w.n, w.k);
        let all = Tensor::from_slice(&w.values, shape, &Device::Cpu)?;
        let once = QTensor::quantize(&all, dtype)?;
        let data = once.data()?;
        let copy = |_| {
            Ok(match self {
                Form::Blocks => {
                    let storage = QStorage::from_data(Cow::Borrowed(&data), &Device::Cpu, dtype)?;
                    QMatMul::QTensor(Arc::new(QTensor::new(storage, shape)?))
                }
                Form::Plain if dtype == GgmlDType::F16 => QMatMul::TensorF16(all.to_dtype(DType::F16)?),
                Form::Plain => QMatMul::Tensor(all.copy()?),
            })
        };
        let matrices: Vec<QMatMul> = (0..copies).map(copy).collect::<candle_core::Result<_>>()?;
        let x = Tensor::from_slice(x, (1, w.k), &Device::Cpu)?;
        let result = matrices[0].forward(&x)?.flatten_all()?.to_vec1()?;
        let form = match (self, dtype) {
            (Form::Blocks, GgmlDType::F32) => "QTensor F32",
            (Form::Blocks, GgmlDType::F16) => "QTensor F16",
            (Form::Blocks, GgmlDType::Q8_0) => "QTensor Q8_0",
            (Form::Blocks, _) => "QTensor Q4_0",
            (Form::Plain, GgmlDType::F16) => "Tensor F16",
            (Form::Plain, _) => "Tensor F32",
        };
        let sample =
            move || matrices.iter().try_for_each(|w| w.forward(&x).map(|y| drop(black_box(y)))).map_err(failed);
        Ok(Side { form, result, sample: Box::new(sample) })
    }
}

fn failed(e: candle_core::Error) -> String {
    format!("candle failed: {e}")
}
