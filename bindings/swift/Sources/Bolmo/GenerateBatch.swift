import CBolmo
import Dispatch

extension Model {
    /// Generates on several sessions together until all have ended, and returns a result for each of them.
    ///
    /// Each session generates the same text as it would alone. Use a ``Batch`` if sessions come and go. If the task is
    /// cancelled meanwhile, the results have the bytes so far, and the reason `cancelled`.
    ///
    /// - Parameters:
    ///   - sessions: The sessions, usually of this model: those of one model share work.
    ///   - options: Options for each session; a single one is for all of them.
    ///   - onPiece: Receives each piece with the number of its session, on the thread that generates, and returns
    ///     whether that session goes on.
    /// - Throws: ``BolmoError`` with `invalidArgument` if the numbers of sessions and options differ; `busy` or
    ///   `closed` if a session can't be used. What fails in one generation is its result, and doesn't affect the
    ///   others.
    public func generateBatch(
        _ sessions: [Session], options: [GenerateOptions] = [GenerateOptions()],
        onPiece: (@Sendable (Int, Piece) -> Bool)? = nil
    ) async throws -> [Result<Generation, BolmoError>] {
        guard options.count == sessions.count || options.count == 1 else {
            throw BolmoError(
                .invalidArgument, "there are \(options.count) options for \(sessions.count) sessions: expected as many")
        }
        let members = BatchMembers(sessions)
        try await members.begin()
        let sink: BatchSink
        do {
            sink = try BatchSink(sessions, options, onPiece)
        } catch {
            members.end()
            throw error
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                DispatchQueue(label: "Bolmo batch").async {
                    let result = Result { try sink.run() }
                    members.end()
                    continuation.resume(with: result)
                }
            }
        } onCancel: {
            members.cancel()
        }
    }
}

/// The sessions of a batch while it uses them.
private final class BatchMembers: Sendable {
    private let calls: [(gate: CallGate, call: Call)]

    init(_ sessions: [Session]) {
        // In one order everywhere, so that two batches never wait for each other; each session once.
        let named = sessions.map { (ObjectIdentifier($0.gate), $0.gate) }
        calls = Dictionary(named) { first, _ in first }.sorted { $0.key < $1.key }.map { ($0.value, Call()) }
    }

    func begin() async throws {
        try Task.checkCancellation()
        for (i, member) in calls.enumerated() {
            do {
                try await member.gate.begin(member.call)
            } catch {
                for (gate, call) in calls[..<i] { gate.end(call) }
                throw error
            }
        }
    }

    func cancel() { for (gate, call) in calls { gate.cancel(call) } }
    func end() { for (gate, call) in calls { gate.end(call) } }
}

/// Turns the bytes of a native batch into pieces.
private final class BatchSink: Sendable {
    private let sessions: [Session]
    private let options: [(native: Handle, logprobs: Bool)]
    private let assemblers: [TextAssembler]
    private let onPiece: (@Sendable (Int, Piece) -> Bool)?

    init(_ sessions: [Session], _ options: [GenerateOptions], _ onPiece: (@Sendable (Int, Piece) -> Bool)?) throws {
        self.sessions = sessions
        let made = try options.map { (native: try $0.native(), logprobs: $0.logprobs) }
        self.options = sessions.indices.map { made[made.count == 1 ? 0 : $0] }
        assemblers = try sessions.map { _ in try TextAssembler() }
        self.onPiece = onPiece
    }

    func run() throws -> [Result<Generation, BolmoError>] {
        let handles: [OpaquePointer?] = sessions.map(\.gate.handle.raw)
        let natives: [OpaquePointer?] = options.map(\.native.raw)
        var generations = [OpaquePointer?](repeating: nil, count: sessions.count)
        var statuses = [Int32](repeating: 0, count: sessions.count)
        let status = withExtendedLifetime(self) {
            bolmo_generate_batch(
                handles, natives, handles.count, onPiece == nil ? nil : onBatchBytes,
                Unmanaged.passUnretained(self).toOpaque(), &generations, &statuses)
        }
        // The message is about the first failure. Without any failed session it is one of the call itself.
        let first = statuses.firstIndex { $0 != 0 }
        let error = Result { try check(status) }
        if first == nil { try error.get() }
        defer { for generation in generations { bolmo_generation_delete(generation) } }
        return try sessions.indices.map { i in
            if let generation = generations[i] {
                let generation = try Generation(generation, logprobs: options[i].logprobs)
                sessions[i].note(generation)
                return .success(generation)
            }
            if i == first, case .failure(let error as BolmoError) = error { return .failure(error) }
            let kind = BolmoError.Kind(status: statuses[i])
            return .failure(BolmoError(kind, "the generation of session \(i) failed: \(kind)"))
        }
    }

    fileprivate func take(
        _ index: Int, _ data: UnsafePointer<UInt8>?, _ size: Int, _ ids: UnsafePointer<UInt16>?
    ) -> Int32 {
        guard let onPiece else { return 0 }
        if data == nil {
            if let rest = try? assemblers[index].finish(), !rest.isEmpty { _ = onPiece(index, Piece(text: rest)) }
            return 0
        }
        guard let piece = try? Piece(data, size, ids, assemblers[index]) else { return 1 }
        return onPiece(index, piece) ? 0 : 1
    }
}

private func onBatchBytes(
    index: Int, data: UnsafePointer<UInt8>?, size: Int, ids: UnsafePointer<UInt16>?, user: UnsafeMutableRawPointer?
) -> Int32 {
    guard let user else { return 1 }
    return Unmanaged<BatchSink>.fromOpaque(user).takeUnretainedValue().take(index, data, size, ids)
}
