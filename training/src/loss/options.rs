//! Factors of the losses, and their values.

/// Factors of the losses and how they are averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Factor of the distance between the student's and the teacher's patches after the first global blocks.
    pub encoder: f64,
    /// Factor of the cross-entropy.
    pub cross_entropy: f64,
    /// Factor of the distillation of patch probabilities.
    pub distill: f64,
    /// Factor of the boundary predictor's cross-entropy.
    pub boundary: f64,
    /// Factor of byte distillation: the divergence of the next id's distribution from the teacher's. The paper has no
    /// such term, so the default is 0.
    pub byte_distillation: f64,
    /// Temperature: divides log-probabilities before distillation compares them.
    pub temperature: f64,
    /// Epsilon subtracted from log-probabilities before distillation.
    pub epsilon: f64,
    /// Whether cross-entropy and distillation are divided once more by the share of real bytes, as in the reference.
    pub divide_twice: bool,
}

impl LossOptions {
    /// Stage 1 with the paper's factors and the reference's averaging.
    pub fn stage1() -> Self {
        Self {
            encoder: 4.0,
            cross_entropy: 1.0,
            distill: 1.0,
            boundary: 4.0,
            byte_distillation: 0.0,
            temperature: 5.0,
            epsilon: 1e-6,
            divide_twice: true,
        }
    }

    /// Stage 2: cross-entropy and boundary predictor only.
    pub fn stage2() -> Self {
        Self { encoder: 0.0, distill: 0.0, ..Self::stage1() }
    }
}

/// Values of the losses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// Sum of all terms, with their factors.
    pub total: f64,
    /// Cross-entropy of the logits with fused labels, in nats, without its factor.
    pub cross_entropy: f64,
    /// Cross-entropy of the boundary predictor, in nats, without its factor.
    pub boundary: f64,
    /// Distance of patches, with its factor; stage 1.
    pub encoder: f64,
    /// Binary divergence of patch probabilities, without its factor; stage 1, and 0 if the factor is 0.
    pub distill: f64,
    /// Byte distillation: divergence of the next id's distribution from the teacher's, in nats, with its factor; stage
    /// 1.
    pub byte_distillation: f64,
    /// Mean of -log2 p of a byte with its flag, over the real bytes.
    pub bits_per_byte: f64,
    /// Decisions of the boundary predictor.
    pub predictor: BoundaryCounts,
    /// Bytes that have a label.
    pub labels: u64,
}

impl Losses {
    /// Adds `factor` times the losses of another batch, and its counts.
    pub fn add(&mut self, other: &Self, factor: f64) {
        self.total += factor * other.total;
        self.cross_entropy += factor * other.cross_entropy;
        self.boundary += factor * other.boundary;
        self.encoder += factor * other.encoder;
        self.distill += factor * other.distill;
        self.byte_distillation += factor * other.byte_distillation;
        self.bits_per_byte += factor * other.bits_per_byte;
        self.predictor.add(&other.predictor);
        self.labels += other.labels;
    }
}

/// Confusion matrix of the boundary predictor over real bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BoundaryCounts {
    /// Boundaries that were predicted.
    pub true_positives: u64,
    /// Boundaries that were missed.
    pub false_negatives: u64,
    /// Predicted boundaries where there is none.
    pub false_positives: u64,
    /// Bytes rightly predicted not to end a patch.
    pub true_negatives: u64,
}

impl BoundaryCounts {
    /// Share of right decisions.
    pub fn accuracy(&self) -> f64 {
        let right = self.true_positives + self.true_negatives;
        ratio(right, right + self.false_negatives + self.false_positives)
    }

    /// Share of predicted boundaries that are true.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of true boundaries that were predicted.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Adds the counts of another batch.
    pub fn add(&mut self, other: &Self) {
        self.true_positives += other.true_positives;
        self.false_negatives += other.false_negatives;
        self.false_positives += other.false_positives;
        self.true_negatives += other.true_negatives;
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
