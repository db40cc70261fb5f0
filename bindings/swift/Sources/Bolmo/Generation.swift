import CBolmo

/// Why a generation ended.
public enum StopReason: Sendable, Hashable, CustomStringConvertible {
    /// The maximum number of bytes was reached.
    case budget
    /// The model ended the text.
    case end
    /// A stop string occurred.
    case stopString
    /// The task was cancelled, its loop was left, or ``Session/cancel()`` was called.
    case cancelled
    /// The text matches the constraint, and no further byte can follow.
    case complete
    /// A reason that this version of the package doesn't know.
    case unknown(Int32)

    init(_ number: Int32) {
        switch UInt32(bitPattern: number) {
        case BOLMO_STOP_BUDGET.rawValue: self = .budget
        case BOLMO_STOP_END.rawValue: self = .end
        case BOLMO_STOP_STRING.rawValue: self = .stopString
        case BOLMO_STOP_CANCELLED.rawValue: self = .cancelled
        case BOLMO_STOP_COMPLETE.rawValue: self = .complete
        default: self = .unknown(number)
        }
    }

    private var number: Int32 {
        switch self {
        case .budget: Int32(BOLMO_STOP_BUDGET.rawValue)
        case .end: Int32(BOLMO_STOP_END.rawValue)
        case .stopString: Int32(BOLMO_STOP_STRING.rawValue)
        case .cancelled: Int32(BOLMO_STOP_CANCELLED.rawValue)
        case .complete: Int32(BOLMO_STOP_COMPLETE.rawValue)
        case .unknown(let number): number
        }
    }

    /// The library's name of the reason, such as "budget".
    public var description: String { String(cString: bolmo_stop_name(number)) }
}

/// Natural logarithms of probabilities, under the model's own distribution over its ids: without temperature, biases,
/// penalty or constraint. Minus infinity for what the model rules out.
public struct Logprobs: Sendable, Hashable {
    /// Of each id: of the byte together with whether a patch ends there.
    public let joint: [Float]
    /// Of each byte alone, plain and fused id summed.
    public let folded: [Float]

    init(_ call: (Int32, UnsafeMutablePointer<UnsafePointer<Float>?>, UnsafeMutablePointer<Int>) -> Int32) throws {
        joint = try readItems { call(Int32(BOLMO_LOGPROB_JOINT.rawValue), $0, $1) }
        folded = try readItems { call(Int32(BOLMO_LOGPROB_FOLDED.rawValue), $0, $1) }
    }
}

/// The result of a generation.
public struct Generation: Sendable, Hashable {
    /// The text, without a stop string.
    public let bytes: [UInt8]
    /// The text, in which invalid UTF-8 becomes U+FFFD.
    public var text: String { String(decoding: bytes, as: UTF8.self) }
    /// Why the generation ended.
    public let stop: StopReason
    /// The ids as they were chosen, fused where a byte ends a patch. They include those of a stop string, and a final
    /// ``ByteID/end``, plain or fused, if the model ended the text.
    public let ids: [UInt16]
    /// Number of patches that the chosen ids ended.
    public let patches: Int
    /// Whether the whole text matches the constraint. It does, unless the generation was cancelled, was cut by a stop
    /// string or had a budget below the shortest match. False without a constraint.
    public let matched: Bool
    /// The log-probability of each of the ``ids``, if ``GenerateOptions/logprobs`` asked for them.
    public let logprobs: Logprobs?

    /// Copies a native generation.
    init(_ raw: OpaquePointer, logprobs: Bool) throws {
        bytes = try readItems { bolmo_generation_bytes(raw, $0, $1) }
        stop = try StopReason(read(0) { bolmo_generation_stop(raw, $0) })
        ids = try readItems { bolmo_generation_ids(raw, $0, $1) }
        patches = try read(0) { bolmo_generation_patches(raw, $0) }
        matched = try read(false) { bolmo_generation_matched(raw, $0) }
        self.logprobs = logprobs ? try Logprobs { bolmo_generation_logprobs(raw, $0, $1, $2) } : nil
    }
}
