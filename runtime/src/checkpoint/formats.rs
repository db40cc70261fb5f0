//! The weight formats of a model's parts.

use std::fmt;
use std::str::FromStr;

use bolmo_shaders::WeightFormat;

use crate::checkpoint::layout::{Part, TensorSpec};
use crate::error::{Error, Result};

/// The weight format of each part's matrices on the device.
///
/// If a matrix has rows that don't fit a format, the next larger format that fits is used
/// ([`WeightFormat::fitting`]). Norms and biases are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Formats {
    /// The parts that run once per byte: local layers, boundary predictor, pooling and depooling, head.
    pub local: WeightFormat,
    /// The global blocks, which run once per patch.
    pub global: WeightFormat,
    /// The byte embedding and the suffix table.
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
    /// Returns the format of a part.
    pub fn of(&self, part: Part) -> WeightFormat {
        match part {
            Part::ByteEmbedding | Part::SuffixEmbedding => self.embeddings,
            Part::Global => self.global,
            Part::LocalEncoder | Part::BoundaryPredictor | Part::LocalDecoder | Part::Head => self.local,
        }
    }

    /// Returns the format of all parts if it is the same.
    pub fn uniform(&self) -> Option<WeightFormat> {
        (*self == Self::from(self.local)).then_some(self.local)
    }

    /// Device memory of a tensor in bytes, including scales.
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
    /// Writes the formats as [`Formats::from_str`] reads them.
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

    /// Parses a format for all parts, optionally followed by parts that differ: `q8`, or `q4,local=q8,embeddings=f16`.
    fn from_str(text: &str) -> Result<Self> {
        let format = |name: &str| {
            WeightFormat::from_name(name)
                .ok_or_else(|| Error::invalid(format!("unknown weight format {name:?}; use f32, f16, q8 or q4")))
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
                        "unknown part {part:?} of weight formats; use local=FORMAT, global=FORMAT or embeddings=FORMAT"
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
    fn names_round_trip() {
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
