import Foundation

/// Runs the jobs of an actor on a queue of its own. Native calls block their thread, which must not be one of the few
/// threads that all tasks share.
final class QueueExecutor: SerialExecutor {
    private let queue: DispatchQueue

    init(_ label: String) { queue = DispatchQueue(label: label) }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }

    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

    func checkIsolated() { dispatchPrecondition(condition: .onQueue(queue)) }
}

/// Runs a call that blocks on a thread of its own. `cancel` is called if the task is cancelled meanwhile.
func blocking<R: Sendable>(
    _ label: String, cancel: @escaping @Sendable () -> Void = {}, _ body: @escaping @Sendable () throws -> R
) async throws -> R {
    try Task.checkCancellation()
    do {
        return try await withTaskCancellationHandler {
            try await blockingRegardless(label, body)
        } onCancel: {
            cancel()
        }
    } catch let error as BolmoError where error.kind == .cancelled && Task.isCancelled {
        throw CancellationError()
    }
}

/// Runs a call that blocks on a thread of its own, also if the task is cancelled.
func blockingRegardless<R: Sendable>(_ label: String, _ body: @escaping @Sendable () throws -> R) async throws -> R {
    // Handed over under a lock: ThreadSanitizer doesn't see that a continuation which is resumed before it is awaited
    // orders the two threads.
    let result = Locked<Result<R, any Error>?>(nil)
    await withCheckedContinuation { continuation in
        DispatchQueue(label: "Bolmo \(label)").async {
            let made = Result(catching: body)
            result.withLock { $0 = made }
            continuation.resume()
        }
    }
    guard let result = result.exchange(nil) else {
        throw BolmoError(.internalError, "\(label): the call has no result")
    }
    return try result.get()
}
