import CBolmo
import Foundation

/// The probability of a text.
public final class Score: Sendable {
    /// A tensor of the forward pass, for n ids, p patches and hidden size D.
    public enum TensorName: Int32, Sendable, Hashable, CaseIterable {
        /// Encoder output after its norm, `[n, D]`.
        case encoderOut = 0
        /// Log-probability that a patch ends, `[n]`.
        case boundaryLogprobs
        /// Input of the global blocks, `[p, D]`.
        case patchEmbeddings
        /// Output of the global blocks, `[p, D]`.
        case globalOut
        /// Decoder output before the final norm, `[n, D]`.
        case decoderOut
        /// Decoder output after the final norm, `[n, D]`.
        case finalHidden
        /// Logits, `[n, 520]`.
        case logits
    }

    /// A matrix, row by row.
    public struct Tensor: Sendable, Hashable {
        /// Number of rows.
        public let rows: Int
        /// Number of columns; 1 for a tensor of one dimension.
        public let columns: Int
        /// `rows * columns` numbers.
        public let values: [Float]
    }

    private let handle: Handle
    /// What the library points to is valid until the score is deleted. This lock keeps it while it is copied.
    private let copying = NSLock()
    /// Bits per byte, of the bytes together with the patch boundaries.
    public let bitsPerByteJoint: Double
    /// Bits per byte, of the bytes alone. The model sees a little of each next byte, so this is not comparable with the
    /// bits per byte of a subword model.
    public let bitsPerByteFolded: Double
    /// Natural log-probability of the bytes together with the patch boundaries.
    public let logLikelihoodJoint: Double
    /// Natural log-probability of the bytes alone.
    public let logLikelihoodFolded: Double
    /// Number of predicted bytes.
    public let bytes: Int
    /// Number of patches that end inside the text.
    public let patches: Int
    /// Whether each byte or id ends a patch.
    public let boundaries: [Bool]

    init(_ handle: Handle) throws {
        func number(_ which: UInt32) throws -> Double {
            try read(0) { bolmo_score_number(handle.raw, Int32(which), $0) }
        }
        self.handle = handle
        bitsPerByteJoint = try number(BOLMO_SCORE_BITS_PER_BYTE_JOINT.rawValue)
        bitsPerByteFolded = try number(BOLMO_SCORE_BITS_PER_BYTE_FOLDED.rawValue)
        logLikelihoodJoint = try number(BOLMO_SCORE_LOG_LIKELIHOOD_JOINT.rawValue)
        logLikelihoodFolded = try number(BOLMO_SCORE_LOG_LIKELIHOOD_FOLDED.rawValue)
        bytes = try Int(number(BOLMO_SCORE_BYTES.rawValue))
        patches = try Int(number(BOLMO_SCORE_PATCHES.rawValue))
        boundaries = try readItems { bolmo_score_boundaries(handle.raw, $0, $1) }.map { $0 != 0 }
    }

    /// The log-probability of each predicted byte or id, ``bytes`` of them.
    public var logprobs: Logprobs {
        get throws { try copy { raw in try Logprobs { bolmo_score_logprobs(raw, $0, $1, $2) } } }
    }

    /// Copies a tensor.
    ///
    /// - Throws: ``BolmoError`` with `notFound` if the score was made without `tensors: true`.
    public func tensor(_ name: TensorName) throws -> Tensor {
        try copy { raw in
            var data: UnsafePointer<Float>?
            var rows = 0
            var columns = 0
            try check(bolmo_score_tensor(raw, name.rawValue, &data, &rows, &columns))
            let values = Array(UnsafeBufferPointer(start: data, count: rows * columns))
            return Tensor(rows: rows, columns: columns, values: values)
        }
    }

    /// Frees the tensors. The numbers stay. Closing it again does nothing.
    public func close() { copying.withLock { handle.close() } }

    private func copy<R>(_ body: (OpaquePointer) throws -> R) throws -> R {
        try copying.withLock { try handle.use(body) }
    }
}

extension Model {
    /// Scores a text. It is preceded by the id that begins a text and followed by a newline as lookahead; neither is
    /// counted.
    ///
    /// - Parameters:
    ///   - text: The text.
    ///   - boundaries: Whether each byte ends a patch, instead of the model's decision.
    ///   - tensors: Whether to keep every intermediate tensor, which takes memory for about 600 + 6 D numbers per byte.
    ///   - progress: Receives the bytes done and the total.
    /// - Throws: ``BolmoError``; `CancellationError` if the task is cancelled.
    public func score(
        _ text: String, boundaries: [Bool]? = nil, tensors: Bool = false, progress: ProgressHandler? = nil
    ) async throws -> Score {
        try await score(Array(text.utf8), boundaries: boundaries, tensors: tensors, progress: progress)
    }

    /// Scores bytes, which need not be UTF-8. Otherwise as for a text.
    public func score(
        _ bytes: [UInt8], boundaries: [Bool]? = nil, tensors: Bool = false, progress: ProgressHandler? = nil
    ) async throws -> Score {
        try await score(boundaries, tensors, progress) { bolmo_model_score($0, bytes, bytes.count, $1, $2) }
    }

    /// Scores plain ids (0, 1, 4 to 259) as they are, at least two. The first id is not predicted; the last one never
    /// ends a patch.
    public func score(
        ids: [UInt32], boundaries: [Bool]? = nil, tensors: Bool = false, progress: ProgressHandler? = nil
    ) async throws -> Score {
        try await score(boundaries, tensors, progress) { bolmo_model_score_ids($0, ids, ids.count, $1, $2) }
    }

    private func score(
        _ boundaries: [Bool]?, _ tensors: Bool, _ progress: ProgressHandler?,
        _ call: @escaping @Sendable (OpaquePointer, OpaquePointer, UnsafeMutablePointer<OpaquePointer?>) -> Int32
    ) async throws -> Score {
        let context = ProgressContext(progress)
        return try await blocking("scoring", cancel: { context.cancel() }) { [handle] in
            let options = try Handle("the options", delete: bolmo_score_options_delete) {
                bolmo_score_options_create($0)
            }
            if let boundaries {
                guard !boundaries.isEmpty else {
                    throw BolmoError(
                        .invalidArgument,
                        "boundaries: expected a flag for each byte or id, found none; nil lets the model decide")
                }
                let flags = boundaries.map { UInt8($0 ? 1 : 0) }
                try check(bolmo_score_options_set_boundaries(options.raw, flags, flags.count))
            }
            try check(bolmo_score_options_set_tensors(options.raw, tensors))
            return try context.use { callback, user in
                try check(bolmo_score_options_set_progress(options.raw, callback, user))
                return try handle.use { model in
                    try Score(Handle("the score", delete: bolmo_score_delete) { call(model, options.raw, $0) })
                }
            }
        }
    }
}
