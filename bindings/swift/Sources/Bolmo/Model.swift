import CBolmo
import Foundation

/// Weights on a device, for any number of sessions and tasks at once.
///
/// ```swift
/// let model = try await Model(folder: url, format: .q8) { print($0.fraction) }
/// let session = try await model.session()
/// ```
public final class Model: Sendable {
    let handle: Handle
    /// The engine that the model is loaded on.
    public let engine: Engine
    /// Sizes of the model.
    public let info: ModelInfo
    /// Device memory that the weights take, in bytes.
    public let deviceBytes: UInt64
    /// How many of these bytes are used where the checkpoint's files are mapped, and need no memory of their own.
    public let mappedBytes: UInt64
    /// Identifies configuration, weights and format. Snapshots restore only on models with the same fingerprint.
    public let fingerprint: Data
    /// What is odd about the files but was accepted, one sentence each.
    public let warnings: [String]

    /// Loads a folder with `config.json` and safetensors files.
    ///
    /// - Parameters:
    ///   - folder: The URL of the folder.
    ///   - format: Format of matrices; `nil` for the formats in which the checkpoint is stored if it is quantized, else
    ///     f32.
    ///   - partFormats: Formats of single parts.
    ///   - tokenizer: The source model's tokenizer, if the folder doesn't have it.
    ///   - ropeTheta: Base of the rotary frequencies, for checkpoints that lost it.
    ///   - ropeScaling: Scaling of the rotary frequencies, for checkpoints that lost it; see ``LoadOptions``.
    ///   - engine: The device; `nil` opens the best one, which is closed when model and sessions are gone.
    ///   - progress: Receives the bytes of the checkpoint that are loaded and their total.
    /// - Throws: ``BolmoError``; `CancellationError` if the task is cancelled.
    public convenience init(
        folder: URL, format: Format? = nil, partFormats: [ModelPart: Format] = [:], tokenizer: Tokenizer? = nil,
        ropeTheta: Double? = nil, ropeScaling: String? = nil, engine: Engine? = nil, progress: ProgressHandler? = nil
    ) async throws {
        try await self.init(
            folder: path(of: folder), format: format, partFormats: partFormats, tokenizer: tokenizer,
            ropeTheta: ropeTheta, ropeScaling: ropeScaling, engine: engine, progress: progress)
    }

    /// Loads the folder at a path. Otherwise as with a URL.
    public convenience init(
        folder path: String, format: Format? = nil, partFormats: [ModelPart: Format] = [:],
        tokenizer: Tokenizer? = nil, ropeTheta: Double? = nil, ropeScaling: String? = nil, engine: Engine? = nil,
        progress: ProgressHandler? = nil
    ) async throws {
        let options = LoadOptions(
            format: format, partFormats: partFormats, tokenizer: tokenizer, ropeTheta: ropeTheta,
            ropeScaling: ropeScaling)
        try await self.init(folder: path, options: options, engine: engine, progress: progress)
    }

    /// Loads the folder at a path with options. Otherwise as with a URL.
    public convenience init(
        folder path: String, options: LoadOptions, engine: Engine? = nil, progress: ProgressHandler? = nil
    ) async throws {
        let checkpoint = try await Checkpoint(folder: path)
        defer { checkpoint.close() }
        try await self.init(checkpoint: checkpoint, options: options, engine: engine, progress: progress)
    }

    /// Loads a checkpoint that is open already.
    public init(
        checkpoint: Checkpoint, options: LoadOptions = LoadOptions(), engine: Engine? = nil,
        progress: ProgressHandler? = nil
    ) async throws {
        let onEngine = if let engine { engine } else { try await Engine() }
        self.engine = onEngine
        let context = ProgressContext(progress)
        handle = try await blocking("loading", cancel: { context.cancel() }) {
            try options.use(progress: context) { options in
                try onEngine.handle.use { engine in
                    try checkpoint.reading { checkpoint in
                        try Handle("the model", delete: bolmo_model_delete) {
                            bolmo_model_load(engine, checkpoint, options, $0)
                        }
                    }
                }
            }
        }
        let raw = handle.raw
        info = try ModelInfo { which in try read(0) { bolmo_model_number(raw, which, $0) } }
        deviceBytes = try read(0) { bolmo_model_device_bytes(raw, $0) }
        mappedBytes = try read(0) { bolmo_model_mapped_bytes(raw, $0) }
        var fingerprint = [UInt8](repeating: 0, count: Int(BOLMO_FINGERPRINT_SIZE))
        try check(bolmo_model_fingerprint(raw, &fingerprint))
        self.fingerprint = Data(fingerprint)
        warnings = try (0..<read(0) { bolmo_model_warning_count(raw, $0) }).map { index in
            try readText { bolmo_model_warning(raw, index, $0, $1) }
        }
    }

    /// Creates a session. With `bos` it begins with the id that begins a text, which it should, unless the model is to
    /// see its text as an excerpt.
    public func session(bos: Bool = true) async throws -> Session {
        let handle = try await blocking("session") { [handle] in
            try handle.use { model in try Session.handle { bolmo_session_create(model, $0) } }
        }
        let session = Session(handle, model: self)
        // On the session's own queue: it uses the device, and waits while that is suspended.
        if bos { try await session.appendBOS() }
        return session
    }

    /// Device memory that a session takes at most while it grows to a number of patches, in bytes. A clone or a
    /// checkpoint of a session counts as a session of its own.
    public func sessionBytes(patches: Int) throws -> UInt64 {
        let patches = try size(patches, "patches")
        return try handle.use { raw in try read(0) { bolmo_model_session_bytes(raw, patches, $0) } }
    }

    /// Restores a session from ``Session/snapshot()``. It continues as if it had never been interrupted.
    ///
    /// - Throws: ``BolmoError`` with `badCheckpoint` if the data are not a snapshot, or truncated or damaged;
    ///   `invalidArgument` if the snapshot belongs to another model, format or version.
    public func restore(_ snapshot: Data) async throws -> Session {
        let session = try await blocking("restoring") { [handle] in
            try handle.use { model in
                try withBytes(of: snapshot) { data, size in
                    try Session.handle { bolmo_session_restore(model, data, size, $0) }
                }
            }
        }
        return Session(session, model: self)
    }

    /// Closes the model. Its memory is freed when its last session is closed too. The ``engine`` stays open, so that it
    /// can be suspended while sessions use it. Closing the model again does nothing.
    public func close() { handle.close() }
}
