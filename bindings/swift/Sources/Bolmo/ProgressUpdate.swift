import CBolmo

/// Progress of a long call.
public struct ProgressUpdate: Sendable, Hashable {
    /// How much is done.
    public let done: UInt64
    /// How much there is to do.
    public let total: UInt64
    /// The part that is done, from 0 to 1.
    public var fraction: Double { total == 0 ? 1 : Double(done) / Double(total) }
}

/// Receives the progress of a long call, on the thread that does the work: return soon.
public typealias ProgressHandler = @Sendable (ProgressUpdate) -> Void

/// What a C progress callback needs: whom to tell, and whether the task was cancelled.
final class ProgressContext: Sendable {
    private let handler: ProgressHandler?
    private let cancelled = Locked(false)

    init(_ handler: ProgressHandler?) { self.handler = handler }

    func cancel() { _ = cancelled.exchange(true) }

    /// Passes the C callback and its user data to a call.
    func use<R>(_ body: (bolmo_progress_callback?, UnsafeMutableRawPointer?) throws -> R) rethrows -> R {
        try withExtendedLifetime(self) { try body(onProgress, Unmanaged.passUnretained(self).toOpaque()) }
    }

    fileprivate func report(_ done: UInt64, _ total: UInt64) -> Int32 {
        handler?(ProgressUpdate(done: done, total: total))
        return cancelled.withLock { $0 } ? 1 : 0
    }
}

private func onProgress(done: UInt64, total: UInt64, user: UnsafeMutableRawPointer?) -> Int32 {
    guard let user else { return 1 }
    return Unmanaged<ProgressContext>.fromOpaque(user).takeUnretainedValue().report(done, total)
}
