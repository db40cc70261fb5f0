//! How far values of a forward pass in f32 may be off.

use bolmo_runtime::Config;

/// Roundings on the way through a model, counted from the lengths of its sums: a sum of n terms rounds n times, each
/// time by at most half a unit of what it has added up so far. Residual streams and norms carry on the errors of what
/// came before.
///
/// All bounds are relative to the largest value of a tensor. They hold for the values that are typical of a layer, not
/// for sums that cancel almost completely; a wrong index or factor moves the values by hundreds of times as much.
#[derive(Debug, Clone, Copy)]
pub struct Roundings {
    encoder: usize,
    boundary: usize,
    patches: usize,
    global: usize,
    decoder: usize,
    logits: usize,
}

impl Roundings {
    /// The roundings over a sequence of so many bytes, and at most as many patches.
    pub fn of(config: &Config, bytes: usize) -> Self {
        let d = config.hidden_size;
        // Sums over the sequence add weights that fall off: as many terms as a chunk has.
        let sequence = bytes.min(64);
        // Into the layer, out of it, up; then down.
        let local = 3 * d + sequence + config.local_intermediate_size;
        let block = 3 * d + sequence + config.intermediate_size;
        let encoder = config.num_local_encoder_layers * local + d;
        // Two projections, and three sums for the cosine.
        let boundary = encoder + 2 * d;
        let patches = encoder + d;
        let global = patches + config.num_hidden_layers * block;
        let decoder = global + d + config.num_local_decoder_layers * local;
        Self { encoder, boundary, patches, global, decoder, logits: decoder + d }
    }

    fn relative(roundings: usize) -> f64 {
        // Half a unit each, in both of the computations that are compared.
        roundings as f64 * f64::from(f32::EPSILON)
    }

    /// Of the encoder's outputs.
    pub fn encoder(&self) -> f64 {
        Self::relative(self.encoder)
    }

    /// Of a boundary's probability, in absolute terms.
    pub fn boundary(&self) -> f64 {
        Self::relative(self.boundary)
    }

    /// Of pooled patches.
    pub fn patches(&self) -> f64 {
        Self::relative(self.patches)
    }

    /// Of the global blocks' outputs.
    pub fn global(&self) -> f64 {
        Self::relative(self.global)
    }

    /// Of the decoder's outputs.
    pub fn decoder(&self) -> f64 {
        Self::relative(self.decoder)
    }

    /// Of the logits.
    pub fn logits(&self) -> f64 {
        Self::relative(self.logits)
    }
}
