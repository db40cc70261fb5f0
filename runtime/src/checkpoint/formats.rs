//! How the matrices of a model's parts are kept on the device.

use std::fmt;
use std::str::FromStr;

use bolmo_shaders::WeightFormat;

use crate::checkpoint::layout::{Part, TensorSpec};
use crate::error::{Error, Result};

/// The format of each part's matrices. A matrix whose rows a format cannot hold is kept in the next larger one that can
/// ([`WeightFormat::fitting`]). Norms and biases are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Formats {
    /// What runs once a byte: local layers, boundary predictor, pooling and depooling, head.
    pub local: WeightFormat,
    /// The global blocks, which run once a patch.
    pub global: WeightFormat,
    /// The tables of bytes and of subwords.
    pub embeddings: WeightFormat,
}

impl From<WeightFormat> for Formats {
    fn from(format: WeightFormat) -> Self {
        Self { local: format, global: format, embeddings: format }
    }
}

impl Default for Formats {
    fn default() -> Self {
        WeightFormat::F32.into()
    }
}

impl Formats {
    /// That of a part.
    pub fn of(&self, part: Part) -> WeightFormat {
        match part {
            Part::ByteEmbedding | Part::SuffixEmbedding => self.embeddings,
            Part::Global => self.global,
            Part::LocalEncoder | Part::BoundaryPredictor | Part::LocalDecoder | Part::Head => self.local,
        }
    }

    /// The one format of all parts, if there is one.
    pub fn uniform(&self) -> Option<WeightFormat> {
        (*self == Self::from(self.local)).then_some(self.local)
    }

    /// Bytes of device memory that a tensor takes, scales included.
    pub(crate) fn tensor_bytes(&self, tensor: &TensorSpec) -> u64 {
        match tensor.shape.as_slice() {
            &[n, k] => {
                let format = self.of(tensor.part).fitting(k);
                format.weight_bytes(n as u64, k as u64) + format.scale_bytes(n as u64, k as u64)
            }
            _ => 4 * tensor.element_count(),
        }
    }
}

impl fmt::Display for Formats {
    /// As [`Formats::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.global.name())?;
        for (name, format) in [("local", self.local), ("embeddings", self.embeddings)] {
            if format != self.global {
                write!(f, ",{name}={}", format.name())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Formats {
    type Err = Error;

    /// A format for all parts, and behind it parts that differ: `q8`, or `q4,local=q8,embeddings=f16`.
    fn from_str(text: &str) -> Result<Self> {
        let format = |name: &str| {
            WeightFormat::from_name(name)
                .ok_or_else(|| Error::invalid(format!("format {name:?} of weights: expected f32, f16, q8 or q4")))
        };
        let mut parts = text.split(',');
        let mut formats = Self::from(format(parts.next().unwrap_or_default())?);
        for part in parts {
            match part.split_once('=') {
                Some(("local", name)) => formats.local = format(name)?,
                Some(("global", name)) => formats.global = format(name)?,
                Some(("embeddings", name)) => formats.embeddings = format(name)?,
                _ => {
                    return Err(Error::invalid(format!(
                        "part {part:?} of the weights' formats: expected local=FORMAT, global=FORMAT or embeddings=FORMAT"
                    )));
                }
            }
        }
        Ok(formats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for text in ["f32", "q8", "q4,local=q8", "f16,local=q4,embeddings=q8"] {
            assert_eq!(text.parse::<Formats>().expect("formats").to_string(), text);
        }
        assert_eq!(
            "q4,global=q8,local=q8,embeddings=q8".parse::<Formats>().expect("formats").uniform(),
            Some(WeightFormat::Q8)
        );
        for text in ["", "q5", "q8,", "q8,head=q4", "local=q8", "q8,local=Q4", "q8 ,local=q4"] {
            assert!(text.parse::<Formats>().is_err(), "{text}");
        }
    }
}
