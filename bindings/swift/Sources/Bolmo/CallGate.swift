import Foundation

/// One call of an object that serves one call at a time.
final class Call: Sendable {
    /// How long a call lasts.
    enum Kind: Sendable {
        /// Until the native side is done.
        case whole
        /// As long as somebody reads its stream, so that waiting for it could last forever. Cancelling ends it.
        case stream
        /// As long as somebody reads the stream of its batch. Cancelling ends it only when that reader goes on.
        case member
    }

    /// Ends what the native side waits for in Swift code, besides the native cancellation.
    let interrupt: @Sendable () -> Void
    private let kind: Kind
    fileprivate let cancelled = Locked(false)
    private let endsByItself: Locked<Bool>

    init(_ kind: Kind = .whole, interrupt: @escaping @Sendable () -> Void = {}) {
        self.kind = kind
        self.interrupt = interrupt
        endsByItself = Locked(kind == .whole)
    }

    /// Whether the call ends soon whatever others do, so that the next one can wait for it.
    fileprivate var isWorthWaitingFor: Bool {
        endsByItself.withLock { $0 } || kind == .stream && cancelled.withLock { $0 }
    }

    /// Whether the call was cancelled, or nobody reads its stream any more, and it ends soon for that reason.
    fileprivate var isEnding: Bool {
        kind == .member ? endsByItself.withLock { $0 } : cancelled.withLock { $0 }
    }

    /// Notes that nobody reads the stream of the call any more.
    func readerHasLeft() { _ = endsByItself.exchange(true) }

    /// What the object is busy with, and what ends that.
    fileprivate var description: String {
        switch kind {
        case .whole: ""
        case .stream:
            """
            a generation, which ends when its stream has been read to the end, or when the loop and the stream are gone
            """
        case .member: "a batch, which ends when its run has read this generation to the end, or when it is closed"
        }
    }
}

/// Lets one call at a time use a native object, and cancels it.
///
/// A cancellation reaches the call that it is meant for and no other one: the native request is made only while the
/// call is the current one, and withdrawn at its end.
final class CallGate: Sendable {
    private struct State {
        var current: Call?
        var waiting: [ObjectIdentifier: CheckedContinuation<Void, Never>] = [:]
    }

    let handle: Handle
    private let name: String
    private let cancelNative: @Sendable (OpaquePointer?) -> Int32
    private let resetNative: @Sendable (OpaquePointer?) -> Int32
    private let state = Locked(State())

    init(
        _ handle: Handle, name: String, cancel: @escaping @Sendable (OpaquePointer?) -> Int32,
        reset: @escaping @Sendable (OpaquePointer?) -> Int32
    ) {
        self.handle = handle
        self.name = name
        cancelNative = cancel
        resetNative = reset
    }

    /// Begins a call. Waits for the running one, unless that lasts as long as somebody reads a stream.
    ///
    /// - Throws: ``BolmoError`` with `busy` or `closed`; `CancellationError` if the task is cancelled while it waits.
    func begin(_ call: Call) async throws {
        while try !begun(call) {
            try Task.checkCancellation()
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let waits = state.withLock { state in
                        if state.current == nil || call.cancelled.withLock({ $0 }) { return false }
                        state.waiting[ObjectIdentifier(call)] = continuation
                        return true
                    }
                    if !waits { continuation.resume() }
                }
            } onCancel: {
                let waiter = state.withLock { state in
                    _ = call.cancelled.exchange(true)
                    return state.waiting.removeValue(forKey: ObjectIdentifier(call))
                }
                waiter?.resume()
            }
        }
    }

    /// Waits for the end of the running call if it was cancelled.
    func waitForCancelled() async {
        // An object of its own, because the waiting are known by their addresses.
        let waiter = Call()
        await withCheckedContinuation { continuation in
            let waits = state.withLock { state in
                guard state.current?.isEnding == true else { return false }
                state.waiting[ObjectIdentifier(waiter)] = continuation
                return true
            }
            if !waits { continuation.resume() }
        }
        withExtendedLifetime(waiter) {}
    }

    private func begun(_ call: Call) throws -> Bool {
        try handle.refuseIfClosed()
        return try state.withLock { state in
            guard let current = state.current else {
                state.current = call
                return true
            }
            if current.isWorthWaitingFor { return false }
            throw BolmoError(.busy, "\(name) is busy with \(current.description)")
        }
    }

    /// Ends a call: withdraws a cancellation that came too late for it, and lets the next call begin. Does nothing if
    /// it has ended.
    func end(_ call: Call) {
        let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            guard state.current === call else { return [] }
            if call.cancelled.withLock({ $0 }) { _ = resetNative(handle.raw) }
            state.current = nil
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Cancels a call, or whichever is running. Does nothing if it has ended.
    func cancel(_ call: Call? = nil) {
        let cancelled: Call? = state.withLock { state in
            guard let current = state.current, call == nil || call === current else { return nil }
            _ = current.cancelled.exchange(true)
            _ = cancelNative(handle.raw)
            return current
        }
        cancelled?.interrupt()
    }

    /// Runs a call when its turn has come, and cancels it if the task is cancelled.
    func run<R: Sendable>(_ body: @Sendable () async throws -> R) async throws -> R {
        try Task.checkCancellation()
        let call = Call()
        try await begin(call)
        defer { end(call) }
        do {
            return try await withTaskCancellationHandler(operation: body) { cancel(call) }
        } catch let error as BolmoError where error.kind == .cancelled && Task.isCancelled {
            throw CancellationError()
        }
    }

    /// Cancels the running call and deletes the native object.
    func close() {
        handle.markClosed()
        cancel()
        handle.close()
    }
}
