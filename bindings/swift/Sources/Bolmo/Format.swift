import CBolmo
import Foundation

/// Format of matrices on the device. Norms and biases are always f32.
public enum Format: Int32, Sendable, Hashable, CaseIterable {
    /// 32 bits per weight.
    case f32 = 0
    /// 16 bits per weight.
    case f16
    /// 8 bits per weight, and a scale for every 32 weights.
    case q8
    /// 4 bits per weight, and a scale for every 32 weights.
    case q4
}

/// Arithmetic of products with matrices in ``Format/q8`` and ``Format/q4`` on the CPU device.
public enum Products: Int32, Sendable, Hashable, CaseIterable {
    /// Weights are converted to 32-bit numbers.
    case f32 = 0
    /// What is multiplied with the weights is rounded to 8 bits, in blocks of 32 values with a scale. This is faster,
    /// most of all for long prompts, and less exact.
    case int8
}

/// Parts of a model that may be kept in different formats.
public enum ModelPart: Int32, Sendable, Hashable, CaseIterable {
    /// The parts that run once per byte: local layers, boundary predictor, head.
    case local = 0
    /// The global blocks, which run once per patch.
    case global
    /// The embedding tables of bytes and subwords.
    case embeddings
}

/// The source model's tokenizer, for checkpoints that don't contain it.
public enum Tokenizer: Sendable, Hashable {
    /// The path of `tokenizer.json`, or of its folder.
    case path(String)
    /// The contents of `tokenizer.json`, and of the `tokenizer_config.json` beside it.
    case json(Data, config: Data? = nil)
}

/// Options for loading a model.
public struct LoadOptions: Sendable, Hashable {
    /// Format of matrices; `nil` for the formats in which the checkpoint is stored if it is quantized, else f32.
    public var format: Format?
    /// Formats of single parts, which override ``format``.
    public var partFormats: [ModelPart: Format]
    /// The tokenizer to use instead of the checkpoint's own.
    public var tokenizer: Tokenizer?
    /// Base of the rotary frequencies, above 1 and at most 1e15, for checkpoints that lost it in conversion.
    public var ropeTheta: Double?
    /// Scaling of the rotary frequencies of full-attention layers, for checkpoints that lost it in conversion: `none`,
    /// or a kind (`linear`, `llama3`, `yarn`) with the keys of `rope_scaling` in `config.json`, as in
    /// `yarn:factor=8,original_max_position_embeddings=8192`, or the JSON object.
    public var ropeScaling: String?

    /// Creates options.
    public init(
        format: Format? = nil, partFormats: [ModelPart: Format] = [:], tokenizer: Tokenizer? = nil,
        ropeTheta: Double? = nil, ropeScaling: String? = nil
    ) {
        self.format = format
        self.partFormats = partFormats
        self.tokenizer = tokenizer
        self.ropeTheta = ropeTheta
        self.ropeScaling = ropeScaling
    }

    /// Passes the options to a call, with a progress callback.
    func use<R>(progress: ProgressContext, _ body: (OpaquePointer) throws -> R) throws -> R {
        let handle = try Handle("the options", delete: bolmo_load_options_delete) { bolmo_load_options_create($0) }
        return try handle.use { raw in
            if let format { try check(bolmo_load_options_set_format(raw, format.rawValue)) }
            for (part, format) in partFormats {
                try check(bolmo_load_options_set_part_format(raw, part.rawValue, format.rawValue))
            }
            switch tokenizer {
            case .path(let path):
                try check(withBytes(of: path) { bolmo_load_options_set_tokenizer_path(raw, $0, $1) })
            case .json(let json, let config):
                try withBytes(of: json) { json, size in
                    try withBytes(of: config) { config, configSize in
                        try check(bolmo_load_options_set_tokenizer(raw, json, size, config, configSize))
                    }
                }
            case nil: break
            }
            if let ropeTheta { try check(bolmo_load_options_set_rope_theta(raw, ropeTheta)) }
            if let ropeScaling {
                try check(withBytes(of: ropeScaling) { bolmo_load_options_set_rope_scaling(raw, $0, $1) })
            }
            return try progress.use { callback, user in
                try check(bolmo_load_options_set_progress(raw, callback, user))
                return try body(raw)
            }
        }
    }
}

/// Sizes of a model.
public struct ModelInfo: Sendable, Hashable {
    /// Number of weights, all parts together.
    public let parameters: UInt64
    /// Width of the residual stream.
    public let hiddenSize: Int
    /// Local layers before the boundary predictor.
    public let encoderLayers: Int
    /// Global blocks.
    public let globalLayers: Int
    /// Local layers after the global blocks.
    public let decoderLayers: Int
    /// Rows of the suffix table; 0 for a model without one. Such a model needs no tokenizer.
    public let suffixRows: Int
    /// Logits per step: 520.
    public let logits: Int
    /// Size of the state that a byte changes, in bytes. A session takes more: ``Model/sessionBytes(patches:)``.
    public let stateBytes: UInt64
    /// Size of the keys and values of a patch, in bytes. Sessions reserve room for more patches than they hold:
    /// ``Model/sessionBytes(patches:)``.
    public let patchBytes: UInt64
    /// The same for patches beyond the sliding window, if the model has one.
    public let latePatchBytes: UInt64
    /// Device memory that the model takes, beside weights and sessions, to process prompts, in bytes: once for each
    /// call that appends or scores at the same time. Of a checkpoint: at most this much, on any device.
    public let workBytes: UInt64

    init(_ number: (Int32) throws -> UInt64) throws {
        func property(_ which: UInt32) throws -> UInt64 { try number(Int32(which)) }
        parameters = try property(BOLMO_MODEL_PARAMETERS.rawValue)
        hiddenSize = try Int(property(BOLMO_MODEL_HIDDEN_SIZE.rawValue))
        encoderLayers = try Int(property(BOLMO_MODEL_ENCODER_LAYERS.rawValue))
        globalLayers = try Int(property(BOLMO_MODEL_GLOBAL_LAYERS.rawValue))
        decoderLayers = try Int(property(BOLMO_MODEL_DECODER_LAYERS.rawValue))
        suffixRows = try Int(property(BOLMO_MODEL_SUFFIX_ROWS.rawValue))
        logits = try Int(property(BOLMO_MODEL_LOGITS.rawValue))
        stateBytes = try property(BOLMO_MODEL_STATE_BYTES.rawValue)
        patchBytes = try property(BOLMO_MODEL_PATCH_BYTES.rawValue)
        latePatchBytes = try property(BOLMO_MODEL_LATE_PATCH_BYTES.rawValue)
        workBytes = try property(BOLMO_MODEL_WORK_BYTES.rawValue)
    }
}
