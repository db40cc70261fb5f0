import CBolmo
import Dispatch
import Foundation

/// What happens in a batch, to the session with a number.
public enum BatchEvent: Sendable {
    /// A piece was produced.
    case piece(index: Int, Piece)
    /// The generation has ended. Its session may be used again at once.
    case ended(index: Int, Result<Generation, BolmoError>)
}

/// Generations on several sessions together, which shares the work and takes less time than one after the other.
///
/// Each session generates the same text as it would alone. Those of one model share work, unless they have a constraint
/// or keep log-probabilities. Sessions come and go while the batch runs:
///
/// ```swift
/// let batch = try Batch()
/// for session in sessions { _ = try await batch.add(session, GenerateOptions(maxBytes: 100)) }
/// for try await event in batch.run() {
///     switch event {
///     case .piece(let index, let piece): texts[index, default: ""] += piece.text
///     case .ended(let index, let result): print(index, try result.get().stop)
///     }
/// }
/// ```
///
/// From ``add(_:_:)`` until its generation has ended, a session is in use: other calls with it throw `busy`.
/// ``Session/cancel()`` ends its generation only.
public final class Batch: Sendable {
    private struct State {
        var members: [Int: Member] = [:]
        /// The stream of the run that has begun and not ended.
        var running: Handoff<BatchEvent>?
        /// Whether nobody reads the stream of that run any more.
        var isLeft = false
        /// Who waits for the end of that run.
        var waiting: [CheckedContinuation<Void, Never>] = []

        /// Removes all members.
        mutating func takeMembers() -> [Member] {
            defer { members = [:] }
            return Array(members.values)
        }
    }

    /// A session in the batch.
    private struct Member {
        let session: Session
        let call: Call
        let assembler: TextAssembler
        let logprobs: Bool

        func leave() { session.gate.end(call) }

        /// Cancels the generation, whose events nobody reads any more.
        func abandon() {
            call.readerHasLeft()
            session.gate.cancel(call)
        }
    }

    private let handle: Handle
    private let state = Locked(State())
    /// Held while the native batch is deleted, which frees the sessions that wait in it.
    private let deleting = NSLock()

    /// Creates a batch without sessions.
    public init() throws {
        handle = try Handle("the batch", delete: bolmo_batch_delete) { bolmo_batch_create($0) }
    }

    deinit { close() }

    /// Adds a session. May be called at any time: while the batch runs, the session joins before the next byte, else it
    /// waits for ``run()``.
    ///
    /// - Returns: The session's number in the batch: 0 for the first one, and one more for each further one.
    /// - Throws: ``BolmoError`` with `busy` if the session is in a batch or its stream is being read.
    @discardableResult
    public func add(_ session: Session, _ options: GenerateOptions = GenerateOptions()) async throws -> Int {
        let native = try options.native()
        let assembler = try TextAssembler()
        let call = Call(.member)
        try Task.checkCancellation()
        try await session.gate.begin(call)
        do {
            while true {
                await waitForLeftRun()
                let index = try join(session, call, native, assembler, logprobs: options.logprobs)
                if let index { return index }
            }
        } catch {
            session.gate.end(call)
            throw error
        }
    }

    /// Makes a session a member. Returns its number, or `nil` while a run that was left has not ended.
    private func join(
        _ session: Session, _ call: Call, _ native: Handle, _ assembler: TextAssembler, logprobs: Bool
    ) throws -> Int? {
        // The callback finds the member, even if it comes before this returns.
        try state.withLock { state in
            if state.isLeft { return nil }
            let index = try handle.use { batch in
                try session.gate.handle.use { session in
                    try native.use { options in try read(0) { bolmo_batch_add(batch, session, options, $0) } }
                }
            }
            state.members[index] = Member(session: session, call: call, assembler: assembler, logprobs: logprobs)
            return index
        }
    }

    /// Waits for the end of a run that nobody reads any more, which takes one submission to the device.
    private func waitForLeftRun() async {
        await withCheckedContinuation { continuation in
            let waits = state.withLock { state in
                if state.isLeft { state.waiting.append(continuation) }
                return state.isLeft
            }
            if !waits { continuation.resume() }
        }
    }

    /// Generates until the generations of all sessions in the batch have ended, including those that are added
    /// meanwhile.
    ///
    /// The generations wait for the reader, all together. A loop that is left, or whose task is cancelled, cancels
    /// those that have not ended; ``add(_:_:)`` and the next run wait for that. A generation that fails does not affect
    /// the others. A session that is added after the last one has ended waits for the next run.
    public func run() -> AsyncThrowingStream<BatchEvent, any Error> {
        let reader = StreamReader<BatchEvent> { [self] handoff in try await start(handoff) }
        return AsyncThrowingStream { try await reader.next() }
    }

    private func start(_ handoff: Handoff<BatchEvent>) async throws {
        while true {
            await waitForLeftRun()
            try handle.refuseIfClosed()
            let begins = try state.withLock { state in
                if state.isLeft { return false }
                if state.running != nil { throw BolmoError(.busy, "the batch is running already") }
                state.running = handoff
                return true
            }
            if begins { break }
        }
        if !handoff.begin(cancel: { [self] in leave(handoff) }) { leave(handoff) }
        let run = Run(self, handoff)
        DispatchQueue(label: "Bolmo batch").async { [self] in
            var failure: (any Error)?
            do {
                try handle.use { batch in
                    try withExtendedLifetime(run) {
                        try check(bolmo_batch_run(batch, onBatch, Unmanaged.passUnretained(run).toOpaque()))
                    }
                }
                try handle.refuseIfClosed()
            } catch {
                failure = error
            }
            ended()
            handoff.finish(failure)
        }
    }

    /// The reader of a run has left.
    private func leave(_ handoff: Handoff<BatchEvent>) {
        let members = state.withLock { state -> [Member] in
            guard state.running === handoff else { return [] }
            state.isLeft = true
            return Array(state.members.values)
        }
        for member in members { member.abandon() }
    }

    /// The run has ended. If the batch was closed meanwhile, there is none that could end what is left in it.
    private func ended() {
        let (members, waiting) = state.withLock { state in
            defer { state.waiting = [] }
            state.running = nil
            state.isLeft = false
            return (handle.isClosed ? state.takeMembers() : [], state.waiting)
        }
        letGo(members)
        for continuation in waiting { continuation.resume() }
    }

    /// Cancels what is running and closes the batch. Sessions that wait in it are unchanged. Closing it again does
    /// nothing.
    public func close() {
        handle.markClosed()
        // Who sees the other one's change lets the members go: this, or the run when it ends.
        let (members, running) = state.withLock { state in
            (state.running == nil ? state.takeMembers() : Array(state.members.values), state.running)
        }
        for member in members { member.abandon() }
        running?.interrupt()
        if running == nil { letGo(members) } else { delete() }
    }

    private func letGo(_ members: [Member]) {
        if handle.isClosed { delete() }
        for member in members { member.leave() }
    }

    private func delete() { deleting.withLock { handle.close() } }

    /// A run of the batch, which the C callback gets.
    fileprivate final class Run: Sendable {
        private let batch: Batch
        private let handoff: Handoff<BatchEvent>

        init(_ batch: Batch, _ handoff: Handoff<BatchEvent>) {
            self.batch = batch
            self.handoff = handoff
        }

        func take(_ index: Int, _ data: UnsafePointer<UInt8>?, _ size: Int, _ ids: UnsafePointer<UInt16>?) -> Int32 {
            guard let member = batch.state.withLock({ $0.members[index] }) else { return 1 }
            guard data != nil else {
                end(index, member)
                return 0
            }
            guard let piece = try? Piece(data, size, ids, member.assembler) else { return 1 }
            return handoff.deliver(.piece(index: index, piece)) ? 0 : 1
        }

        private func end(_ index: Int, _ member: Member) {
            let result = Result { try generation(index, member) }.mapError { error in
                error as? BolmoError ?? BolmoError(.internalError, "\(error)")
            }
            _ = batch.state.withLock { $0.members.removeValue(forKey: index) }
            if case .success(let generation) = result { member.session.note(generation) }
            member.leave()
            if let rest = try? member.assembler.finish(), !rest.isEmpty {
                _ = handoff.deliver(.piece(index: index, Piece(text: rest)))
            }
            _ = handoff.deliver(.ended(index: index, result))
        }

        private func generation(_ index: Int, _ member: Member) throws -> Generation {
            let handle = try batch.handle.use { batch in
                try Handle("the generation", delete: bolmo_generation_delete) {
                    bolmo_batch_generation(batch, index, $0)
                }
            }
            return try handle.use { try Generation($0, logprobs: member.logprobs) }
        }
    }
}

private func onBatch(
    index: Int, data: UnsafePointer<UInt8>?, size: Int, ids: UnsafePointer<UInt16>?, user: UnsafeMutableRawPointer?
) -> Int32 {
    guard let user else { return 1 }
    return Unmanaged<Batch.Run>.fromOpaque(user).takeUnretainedValue().take(index, data, size, ids)
}
