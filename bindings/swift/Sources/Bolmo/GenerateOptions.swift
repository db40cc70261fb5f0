import CBolmo

/// Options for generating. The defaults are 256 bytes, each the most probable one.
///
/// Values out of range are refused by the call that gets the options, with ``BolmoError`` of kind `invalidArgument`.
public struct GenerateOptions: Sendable {
    /// Maximum number of bytes, at least 1.
    public var maxBytes: Int
    /// Divides the log-probabilities of the bytes. 0 always chooses the most probable id.
    public var temperature: Float
    /// Samples from this many most probable bytes only; 0 turns this off.
    public var topK: Int
    /// Samples from the most probable bytes whose probabilities add up to this only; 1 turns this off.
    public var topP: Float
    /// Samples only from bytes whose probability is at least this part of the most probable one's; 0 turns this off.
    public var minP: Float
    /// Multiplies the log-probability of bytes that are among the last ``repetitionWindow`` ids. Above 1 discourages
    /// repetition; 1 turns this off.
    public var repetitionPenalty: Float
    /// How many ids the penalty looks back.
    public var repetitionWindow: Int
    /// Seed of the random numbers. The same seed draws the same numbers on every platform.
    public var seed: UInt64
    /// Texts at which the generation ends. They are not part of the generated text.
    public var stop: [String]
    /// What the text must match.
    public var constraint: Constraint?
    /// Is added to the logits of all ids that end a patch: above 0 makes patches shorter, below 0 longer.
    public var boundaryBias: Float
    /// Is added to the logits of the end of the text: above 0 ends earlier.
    public var endBias: Float
    /// Is added to the logits of single bytes.
    public var byteBias: [UInt8: Float]
    /// Byte strings at which the generation ends, for those that are not UTF-8.
    public var stopBytes: [[UInt8]]
    /// Whether to keep the log-probability of each id, ``Generation/logprobs``, which takes longer.
    public var logprobs: Bool

    /// Creates options.
    public init(
        maxBytes: Int = 256, temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0,
        repetitionPenalty: Float = 1, repetitionWindow: Int = 64, seed: UInt64 = 0, stop: [String] = [],
        constraint: Constraint? = nil, boundaryBias: Float = 0, endBias: Float = 0, byteBias: [UInt8: Float] = [:],
        stopBytes: [[UInt8]] = [], logprobs: Bool = false
    ) {
        self.maxBytes = maxBytes
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.repetitionWindow = repetitionWindow
        self.seed = seed
        self.stop = stop
        self.constraint = constraint
        self.boundaryBias = boundaryBias
        self.endBias = endBias
        self.byteBias = byteBias
        self.stopBytes = stopBytes
        self.logprobs = logprobs
    }

    /// Makes the native options.
    func native() throws -> Handle {
        let handle = try Handle("the options", delete: bolmo_generate_options_delete) {
            bolmo_generate_options_create($0)
        }
        let raw = handle.raw
        try check(bolmo_generate_options_set_max_bytes(raw, size(maxBytes, "maxBytes")))
        try check(bolmo_generate_options_set_temperature(raw, temperature))
        try check(bolmo_generate_options_set_top_k(raw, size(topK, "topK")))
        try check(bolmo_generate_options_set_top_p(raw, topP))
        try check(bolmo_generate_options_set_min_p(raw, minP))
        try check(
            bolmo_generate_options_set_repetition_penalty(
                raw, repetitionPenalty, size(repetitionWindow, "repetitionWindow")))
        try check(bolmo_generate_options_set_seed(raw, seed))
        try check(bolmo_generate_options_set_boundary_bias(raw, boundaryBias))
        try check(bolmo_generate_options_set_end_bias(raw, endBias))
        for (byte, bias) in byteBias { try check(bolmo_generate_options_set_byte_bias(raw, byte, bias)) }
        for text in stop { try check(withBytes(of: text) { bolmo_generate_options_add_stop(raw, $0, $1) }) }
        for bytes in stopBytes { try check(bolmo_generate_options_add_stop(raw, bytes, bytes.count)) }
        try check(bolmo_generate_options_set_logprobs(raw, logprobs))
        if let constraint {
            try constraint.handle.use { try check(bolmo_generate_options_set_constraint(raw, $0)) }
        }
        return handle
    }
}
