import Foundation

/// Hands elements from a native thread to a task, one at a time.
///
/// The producer waits in ``deliver(_:)`` until the consumer asks for the next element. So it is never ahead, and if the
/// consumer leaves, the native side has produced nothing that the consumer hasn't seen.
final class Handoff<Element: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    // All of these are guarded by the condition's lock.
    private var started = false
    private var waiter: CheckedContinuation<Element?, any Error>?
    private var abandoned = false
    private var interrupted = false
    private var ended = false
    private var failure: (any Error)?
    private var cancelNative: (@Sendable () -> Void)?
    /// What was delivered after an interruption and not read yet.
    private var rest: [Element] = []

    /// Whether the caller is the first one, which must start the producer.
    func start() -> Bool {
        locked {
            defer { started = true }
            return !started
        }
    }

    /// Sets how the native call is cancelled when the consumer leaves. Returns whether the consumer is still there.
    func begin(cancel: @escaping @Sendable () -> Void) -> Bool {
        locked {
            // Nobody would drop it afterwards.
            if !abandoned { cancelNative = cancel }
            return !abandoned
        }
    }

    /// The next element, or `nil` at the end or if the task is cancelled.
    func next() async throws -> Element? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<Element?, any Error>? = locked {
                    if abandoned { return .success(nil) }
                    if !rest.isEmpty { return .success(rest.removeFirst()) }
                    if ended {
                        defer { failure = nil }
                        return failure.map { .failure($0) } ?? .success(nil)
                    }
                    if waiter != nil {
                        return .failure(BolmoError(.busy, "another task is reading this stream"))
                    }
                    waiter = continuation
                    condition.broadcast()
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            abandon()
        }
    }

    /// Hands an element over, and waits until the next one is wanted. Returns whether it is. After an interruption it
    /// keeps the element for the consumer, and doesn't wait.
    func deliver(_ element: Element) -> Bool {
        _ = waitForConsumer()
        let waiter: CheckedContinuation<Element?, any Error>? = locked {
            if self.waiter == nil && !abandoned { rest.append(element) }
            defer { self.waiter = nil }
            return self.waiter
        }
        // Without a waiter the consumer has left, or comes later.
        waiter?.resume(returning: element)
        return waitForConsumer() && !isInterrupted
    }

    private var isInterrupted: Bool { locked { interrupted } }

    private func waitForConsumer() -> Bool {
        locked {
            while waiter == nil && !abandoned && !interrupted { condition.wait() }
            return waiter != nil
        }
    }

    /// Ends the stream, with an error or without.
    func finish(_ error: (any Error)?) {
        let waiter: CheckedContinuation<Element?, any Error>? = locked {
            if ended { return nil }
            ended = true
            cancelNative = nil
            defer { self.waiter = nil }
            if self.waiter == nil { failure = error }
            return self.waiter
        }
        if let error { waiter?.resume(throwing: error) } else { waiter?.resume(returning: nil) }
    }

    /// The consumer leaves: it gets no more elements, and the native call is cancelled.
    func abandon() {
        let (waiter, cancel) = locked {
            defer {
                self.waiter = nil
                cancelNative = nil
            }
            abandoned = true
            rest = []
            condition.broadcast()
            return (self.waiter, cancelNative)
        }
        cancel?()
        waiter?.resume(returning: nil)
    }

    /// The native call is being cancelled by others: the producer no longer waits. The consumer gets what it still
    /// delivers, and its end.
    func interrupt() {
        locked {
            interrupted = true
            condition.broadcast()
        }
    }

    private func locked<R>(_ body: () -> R) -> R {
        condition.lock()
        defer { condition.unlock() }
        return body()
    }
}
