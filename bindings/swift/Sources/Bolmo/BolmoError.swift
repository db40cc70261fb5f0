import CBolmo
import Foundation

/// An error of the library: its kind, and a sentence that says what is wrong and what to do.
///
/// Cancelled tasks get a `CancellationError` instead, as everywhere in Swift.
public struct BolmoError: Error, Sendable, Hashable {
    /// What went wrong.
    public enum Kind: Sendable, Hashable {
        /// An argument is out of range or contradicts another one.
        case invalidArgument
        /// A file, an adapter or an item that was asked for does not exist.
        case notFound
        /// A checkpoint, a tokenizer or a snapshot is damaged or contradicts itself.
        case badCheckpoint
        /// The input is well formed, but this version, model or adapter does not support it.
        case unsupported
        /// The device or the host has too little memory.
        case outOfMemory
        /// The device was lost: create the engine again, and load the model on it again.
        case deviceLost
        /// The call was cancelled by other means than its task, such as ``Session/cancel()``.
        case cancelled
        /// The object is in use by another call.
        case busy
        /// Reading or writing failed.
        case io
        /// A bug in the library; please report it.
        case internalError
        /// The engine is suspended: resume it, then repeat the call.
        case suspended
        /// The object was closed.
        case closed
        /// A status that this version of the package doesn't know.
        case unknown(Int32)
    }

    /// What went wrong.
    public let kind: Kind
    /// One sentence: what is wrong, what was expected, what to do.
    public let message: String

    /// Creates an error.
    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }
}

extension BolmoError: CustomStringConvertible, LocalizedError {
    /// The kind and the message.
    public var description: String { "\(kind): \(message)" }
    /// The message.
    public var errorDescription: String? { message }
}

extension BolmoError.Kind: CustomStringConvertible {
    /// The library's name of the kind, such as "bad checkpoint".
    public var description: String {
        switch self {
        case .closed: "closed"
        case .unknown(let status): "status \(status)"
        default: String(cString: bolmo_status_name(status))
        }
    }

    /// The kind of each status, in the order of the C header.
    private static let known: [(kind: Self, status: UInt32)] = [
        (.invalidArgument, BOLMO_INVALID_ARGUMENT.rawValue), (.notFound, BOLMO_NOT_FOUND.rawValue),
        (.badCheckpoint, BOLMO_BAD_CHECKPOINT.rawValue), (.unsupported, BOLMO_UNSUPPORTED.rawValue),
        (.outOfMemory, BOLMO_OUT_OF_MEMORY.rawValue), (.deviceLost, BOLMO_DEVICE_LOST.rawValue),
        (.cancelled, BOLMO_CANCELLED.rawValue), (.busy, BOLMO_BUSY.rawValue), (.io, BOLMO_IO.rawValue),
        (.internalError, BOLMO_INTERNAL.rawValue), (.suspended, BOLMO_SUSPENDED.rawValue),
    ]

    /// The kind of a status.
    init(status: Int32) {
        self = Self.known.first { Int32($0.status) == status }?.kind ?? .unknown(status)
    }

    private var status: Int32 { Self.known.first { $0.kind == self }.map { Int32($0.status) } ?? -1 }
}

/// Throws the error of a call that has just returned `status` on this thread.
func check(_ status: Int32) throws {
    guard status != 0 else { return }
    throw BolmoError(BolmoError.Kind(status: status), String(cString: bolmo_last_error_message()))
}
