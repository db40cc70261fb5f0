import CBolmo

/// Turns the bytes of a native generation into pieces.
final class PieceSink: Sendable {
    private let assembler: TextAssembler
    private let onPiece: (@Sendable (Piece) -> Bool)?
    private let failure = Locked<(any Error)?>(nil)

    init(_ onPiece: (@Sendable (Piece) -> Bool)?) throws {
        self.onPiece = onPiece
        assembler = try TextAssembler()
    }

    /// Generates with a session. Returns when it has ended.
    func generate(_ session: OpaquePointer, _ options: GenerateOptions) throws -> Generation {
        let native = try options.native()
        let user = Unmanaged.passUnretained(self).toOpaque()
        let handle = try withExtendedLifetime(self) {
            try Handle("the generation", delete: bolmo_generation_delete) {
                bolmo_session_generate(session, native.raw, onPiece == nil ? nil : onBytes, user, $0)
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
        return try handle.use { try Generation($0, logprobs: options.logprobs) }
    }

    /// Ends the text: if it stops inside a character, there is one more piece.
    func finish() throws {
        let rest = try assembler.finish()
        if !rest.isEmpty { _ = onPiece?(Piece(text: rest)) }
    }

    fileprivate func take(_ data: UnsafePointer<UInt8>?, _ size: Int, _ ids: UnsafePointer<UInt16>?) -> Int32 {
        do {
            return try onPiece?(Piece(data, size, ids, assembler)) ?? true ? 0 : 1
        } catch {
            _ = failure.exchange(error)
            return 1
        }
    }
}

private func onBytes(
    data: UnsafePointer<UInt8>?, size: Int, ids: UnsafePointer<UInt16>?, user: UnsafeMutableRawPointer?
) -> Int32 {
    guard let user else { return 1 }
    return Unmanaged<PieceSink>.fromOpaque(user).takeUnretainedValue().take(data, size, ids)
}

/// What a stream holds: it starts the producer with the first element that is asked for, and stops it when the stream
/// and its iterators are gone.
final class StreamReader<Element: Sendable>: Sendable {
    private let handoff = Handoff<Element>()
    private let start: @Sendable (Handoff<Element>) async throws -> Void

    init(_ start: @escaping @Sendable (Handoff<Element>) async throws -> Void) { self.start = start }

    deinit { handoff.abandon() }

    func next() async throws -> Element? {
        if handoff.start() {
            do {
                try await start(handoff)
            } catch {
                handoff.finish(error)
            }
        }
        return try await handoff.next()
    }
}
