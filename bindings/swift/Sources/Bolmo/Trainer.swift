import CBolmo
import Foundation

/// A training run on a device: of a subword model, or of one of the two stages that make a byte-level model from one.
///
/// A text in TOML describes model, data and schedule. The program runs the steps, a few at a time, and saves and
/// exports when it wants to:
///
/// ```swift
/// let trainer = try await Trainer(engine: engine, kind: .stage1, config: toml, texts: [text])
/// try await trainer.step(100) { metrics in
///     print(metrics)
///     return true
/// }
/// try await trainer.export(to: folder)
/// ```
public actor Trainer {
    /// Kinds of training.
    public enum Kind: Int32, Sendable, Hashable, CaseIterable {
        /// Training of a subword model: a new one, or one from a folder.
        case subword = 0
        /// First stage of byteifying: the local parts learn to imitate a subword model, whose blocks are frozen.
        case stage1
        /// Second stage of byteifying: all parts learn, end to end.
        case stage2
    }

    nonisolated private let gate: CallGate
    nonisolated private let executor = QueueExecutor("Bolmo trainer")

    /// The queue that the trainer's calls run on.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Reads data and model, and prepares the run. Its folder is locked until the trainer is closed.
    ///
    /// - Parameters:
    ///   - engine: The device.
    ///   - kind: What is trained.
    ///   - config: The configuration, in TOML. Its paths are relative to the current folder.
    ///   - overrides: Values that replace or add to the configuration's, as `key=value` with a dotted key.
    ///   - texts: Texts to train on, besides the files that `data.train` names.
    ///   - heldOut: Texts to evaluate on. Without any, a part of the training documents is held out.
    ///   - resume: Whether the run continues from the last snapshot in its folder.
    /// - Throws: ``BolmoError`` with `invalidArgument` for an unknown key or an invalid value, or if the folder
    ///   contains a run that is not to be resumed; `busy` if another trainer uses the folder; `notFound`,
    ///   `badCheckpoint`, `io` with a message that names the file; `outOfMemory`, `unsupported`.
    public init(
        engine: Engine, kind: Kind, config: String, overrides: [String] = [], texts: [String] = [],
        heldOut: [String] = [], resume: Bool = false
    ) async throws {
        let handle = try await blocking("trainer") {
            let options = try Handle("the options", delete: bolmo_trainer_options_delete) {
                bolmo_trainer_options_create($0)
            }
            let raw = options.raw
            try check(bolmo_trainer_options_set_kind(raw, kind.rawValue))
            try check(withBytes(of: config) { bolmo_trainer_options_set_config(raw, $0, $1) })
            for pair in overrides {
                try check(withBytes(of: pair) { bolmo_trainer_options_set_override(raw, $0, $1) })
            }
            for text in texts { try check(withBytes(of: text) { bolmo_trainer_options_add_text(raw, $0, $1) }) }
            for text in heldOut {
                try check(withBytes(of: text) { bolmo_trainer_options_add_held_out_text(raw, $0, $1) })
            }
            try check(bolmo_trainer_options_set_resume(raw, resume ? 1 : 0))
            return try engine.handle.use { engine in
                try Handle("the trainer", delete: bolmo_trainer_delete) { bolmo_trainer_create(engine, raw, $0) }
            }
        }
        gate = CallGate(
            handle, name: "the trainer", cancel: { bolmo_trainer_cancel($0) },
            reset: { bolmo_trainer_reset_cancel($0) })
    }

    private nonisolated func run<R: Sendable>(
        _ body: @escaping @Sendable (OpaquePointer) throws -> R
    ) async throws -> R {
        try await gate.run { try await self.native(body) }
    }

    private func native<R>(_ body: (OpaquePointer) throws -> R) throws -> R { try gate.handle.use(body) }

    /// Runs steps, or as many as are left. Nothing is written to the run's folder.
    ///
    /// - Parameters:
    ///   - count: How many steps.
    ///   - onMetrics: Receives the metrics of each step, one JSON object, and returns whether to go on.
    /// - Throws: `CancellationError` if the task is cancelled, and ``BolmoError`` with `cancelled` if the callback
    ///   stops the run with steps left: another call continues from there. After any other failure, continue from the
    ///   last snapshot with a new trainer.
    public nonisolated func step(_ count: Int, onMetrics: (@Sendable (String) -> Bool)? = nil) async throws {
        let count = try UInt64(size(count, "count"))
        let context = MetricsContext(onMetrics)
        try await run { raw in
            let user = Unmanaged.passUnretained(context).toOpaque()
            let status = withExtendedLifetime(context) {
                bolmo_trainer_step(raw, count, onMetrics == nil ? nil : onStep, user)
            }
            try check(status)
        }
    }

    /// Number of completed steps, including those before the run was resumed.
    public nonisolated var steps: Int {
        get async throws { try await run { raw in try Int(read(0) { bolmo_trainer_steps(raw, $0) }) } }
    }

    /// Evaluates the model on the held-out text. The metrics are one JSON object.
    public nonisolated func evaluate() async throws -> String {
        try await run { raw in
            String(decoding: try readBytes { bolmo_trainer_evaluate(raw, $0) }, as: UTF8.self)
        }
    }

    /// Writes a snapshot to the folder `snapshots` of the run, from which a resumed run continues.
    public nonisolated func save() async throws {
        try await run { try check(bolmo_trainer_save($0)) }
    }

    /// Writes the model as a folder in the Hugging Face layout, and replaces a model that is there.
    public nonisolated func export(to folder: URL) async throws {
        let path = try path(of: folder)
        try await run { raw in try check(withBytes(of: path) { bolmo_trainer_export(raw, $0, $1) }) }
    }

    /// Stops ``step(_:onMetrics:)``, if it is running, after the current step. May be called from anywhere.
    public nonisolated func cancel() { gate.cancel() }

    /// Cancels the running call, if there is one, and closes the trainer. Closing it again does nothing.
    public nonisolated func close() { gate.close() }
}

/// What the C callback of a step needs.
private final class MetricsContext: Sendable {
    let handler: (@Sendable (String) -> Bool)?

    init(_ handler: (@Sendable (String) -> Bool)?) { self.handler = handler }
}

private func onStep(metrics: UnsafePointer<CChar>?, size: Int, user: UnsafeMutableRawPointer?) -> Int32 {
    guard let user else { return 1 }
    let context = Unmanaged<MetricsContext>.fromOpaque(user).takeUnretainedValue()
    return context.handler?(string(metrics, size)) ?? true ? 0 : 1
}
