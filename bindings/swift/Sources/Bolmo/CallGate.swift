import Foundation

/// One call of an object that serves one call at a time.
final class Call: Sendable {
    /// Ends what the native side waits for in Swift code, besides the native cancellation.
    let interrupt: @Sendable () -> Void
    /// Whether the cancellation has begun.
    fileprivate let cancelled = Locked(false)

    init(interrupt: @escaping @Sendable () -> Void = {}) { self.interrupt = interrupt }
}

/// Lets one call at a time use a native object, and cancels it.
///
/// A cancellation reaches the call that it is meant for and no other one: the native request is made only while the
/// call is the current one, and withdrawn at its end.
final class CallGate: Sendable {
    private struct State {
        var current: Call?
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    let handle: Handle
    private let cancelNative: @Sendable (OpaquePointer?) -> Int32
    private let resetNative: @Sendable (OpaquePointer?) -> Int32
    private let state = Locked(State())
    private let name: String

    init(
        _ handle: Handle, name: String, cancel: @escaping @Sendable (OpaquePointer?) -> Int32,
        reset: @escaping @Sendable (OpaquePointer?) -> Int32
    ) {
        self.handle = handle
        self.name = name
        cancelNative = cancel
        resetNative = reset
    }

    /// Begins a call. Waits while a cancelled one ends.
    ///
    /// - Throws: ``BolmoError`` with `busy` if another call is running, `closed`.
    func begin(_ call: Call, isolation: isolated (any Actor)? = #isolation) async throws {
        while try !begun(call) {
            await withCheckedContinuation { continuation in
                let ended = state.withLock { state in
                    if state.current != nil { state.waiting.append(continuation) }
                    return state.current == nil
                }
                if ended { continuation.resume() }
            }
        }
    }

    private func begun(_ call: Call) throws -> Bool {
        try handle.refuseIfClosed()
        return try state.withLock { state in
            guard let current = state.current else {
                state.current = call
                return true
            }
            if current.cancelled.withLock({ $0 }) { return false }
            throw BolmoError(.busy, """
                \(name) is busy with a generation: read its stream to the end, or leave the loop over it, before the \
                next call
                """)
        }
    }

    /// Ends a call: withdraws a cancellation that came too late for it, and lets the next call begin.
    func end(_ call: Call) {
        let waiting = state.withLock { state in
            guard state.current === call else { return [CheckedContinuation<Void, Never>]() }
            if call.cancelled.withLock({ $0 }) { _ = resetNative(handle.raw) }
            state.current = nil
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Cancels a call, or whichever is running. Does nothing if it has ended.
    func cancel(_ call: Call? = nil) {
        let cancelled: Call? = state.withLock { state in
            guard let current = state.current, call == nil || call === current else { return nil }
            if !current.cancelled.exchange(true) { _ = cancelNative(handle.raw) }
            return current
        }
        cancelled?.interrupt()
    }

    /// Runs a call that blocks, and cancels it if the task is cancelled.
    func run<R>(isolation: isolated (any Actor)? = #isolation, _ body: (OpaquePointer) throws -> R) async throws -> R {
        try Task.checkCancellation()
        let call = Call()
        try await begin(call)
        defer { end(call) }
        do {
            return try await withTaskCancellationHandler {
                try handle.use(body)
            } onCancel: {
                cancel(call)
            }
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
