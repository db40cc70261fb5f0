import CBolmo
import Foundation

/// The files of a model, opened and checked but not loaded yet.
///
/// Opening reads headers only, so that a program can tell how much memory a model needs before it loads it:
///
/// ```swift
/// let checkpoint = try await Checkpoint(folder: url)
/// let format: Format = try checkpoint.deviceBytes(.f16) < budget ? .f16 : .q4
/// let model = try await Model(checkpoint: checkpoint, options: LoadOptions(format: format))
/// ```
public final class Checkpoint: Sendable {
    let handle: Handle
    private let readers: [Reader]
    /// Sizes of the model.
    public let info: ModelInfo
    /// What is odd about the files but was accepted, one sentence each.
    public let warnings: [String]
    /// The name under which the source model's tokenizer was published; empty if the checkpoint doesn't say.
    public let tokenizerSource: String
    /// The configuration as the library understands it: JSON with the keys of `config.json`.
    public let configJSON: Data

    /// Opens a folder with `config.json` and safetensors files. A `tokenizer.json` in it is used as the source model's.
    /// The files must not change until the checkpoint is closed; models from it no longer need them.
    ///
    /// - Throws: ``BolmoError`` with `notFound` if there is no such folder, or no `config.json` or weights in it;
    ///   `badCheckpoint` or `unsupported` with a message that names the file and the tensor or key.
    public convenience init(folder: URL) async throws {
        try await self.init(folder: path(of: folder))
    }

    /// Opens the folder at a path. Otherwise as with a URL.
    public convenience init(folder path: String) async throws {
        let handle = try await blocking("checkpoint") { try Self.open(path) }
        try self.init(handle, readers: [])
    }

    /// Opens a checkpoint from its parts.
    ///
    /// - Parameters:
    ///   - config: The contents of `config.json`.
    ///   - tokenizer: The contents of the source model's `tokenizer.json`; models without a suffix table don't need it.
    ///   - tokenizerConfig: The contents of the `tokenizer_config.json` beside it.
    ///   - weights: The safetensors files.
    /// - Throws: ``BolmoError``; or what a reader of ``WeightFile`` has thrown.
    public convenience init(
        config: Data, tokenizer: Data? = nil, tokenizerConfig: Data? = nil, weights: [WeightFile]
    ) async throws {
        let readers = weights.map(Reader.init)
        do {
            let handle = try await blocking("checkpoint") {
                try Self.build(config, tokenizer, tokenizerConfig, readers)
            }
            try self.init(handle, readers: readers)
        } catch {
            for reader in readers { reader.releaseUnlessAdded() }
            throw error
        }
    }

    private init(_ handle: Handle, readers: [Reader]) throws {
        self.handle = handle
        self.readers = readers
        let raw = handle.raw
        info = try ModelInfo { which in try read(0) { bolmo_checkpoint_number(raw, which, $0) } }
        warnings = try (0..<read(0) { bolmo_checkpoint_warning_count(raw, $0) }).map { index in
            try readText { bolmo_checkpoint_warning(raw, index, $0, $1) }
        }
        tokenizerSource = try readText { bolmo_checkpoint_tokenizer_source(raw, $0, $1) }
        configJSON = try readBytes { bolmo_checkpoint_config_json(raw, $0) }
    }

    static func open(_ path: String) throws -> Handle {
        try withBytes(of: path) { path, size in
            try Handle("the checkpoint", delete: bolmo_checkpoint_delete) { bolmo_checkpoint_open(path, size, $0) }
        }
    }

    private static func build(_ config: Data, _ tokenizer: Data?, _ tokenizerConfig: Data?, _ readers: [Reader]) throws
        -> Handle
    {
        let builder = try Handle("the builder", delete: bolmo_checkpoint_builder_delete) {
            bolmo_checkpoint_builder_create($0)
        }
        return try builder.use { raw in
            try check(withBytes(of: config) { bolmo_checkpoint_builder_set_config(raw, $0, $1) })
            if let tokenizer {
                try withBytes(of: tokenizer) { json, size in
                    try withBytes(of: tokenizerConfig) { config, configSize in
                        try check(bolmo_checkpoint_builder_set_tokenizer(raw, json, size, config, configSize))
                    }
                }
            }
            for reader in readers { try reader.add(to: raw) }
            return try Reader.naming(readers) {
                try Handle("the checkpoint", delete: bolmo_checkpoint_delete) {
                    bolmo_checkpoint_builder_open(raw, $0)
                }
            }
        }
    }

    /// Device memory that the weights will take in a format, in bytes. For weights that are stored quantized, their own
    /// formats count. Needed in addition: ``sessionBytes(patches:)`` for each session, and ``ModelInfo/workBytes``.
    public func deviceBytes(_ format: Format = .f32) throws -> UInt64 {
        try handle.use { raw in try read(0) { bolmo_checkpoint_device_bytes(raw, format.rawValue, $0) } }
    }

    /// How many of these bytes need no memory of their own on an engine: on the CPU device, large tensors that are
    /// stored in the format are used where the file is mapped, and processes share them. 0 on other devices.
    public func mappedBytes(on engine: Engine, _ format: Format = .f32) throws -> UInt64 {
        try handle.use { raw in
            try engine.handle.use { engine in
                try read(0) { bolmo_checkpoint_mapped_bytes(raw, engine, format.rawValue, $0) }
            }
        }
    }

    /// Device memory that a session takes at most while it grows to a number of patches, in bytes, on any device. A
    /// patch has about 4 bytes of text; the model decides.
    public func sessionBytes(patches: Int) throws -> UInt64 {
        let patches = try size(patches, "patches")
        return try handle.use { raw in try read(0) { bolmo_checkpoint_session_bytes(raw, patches, $0) } }
    }

    /// Runs a call that reads the weights. What a reader throws leaves the call as it is.
    func reading<R>(_ body: (OpaquePointer) throws -> R) throws -> R {
        try Reader.naming(readers) { try handle.use(body) }
    }

    /// Closes the checkpoint. Models that were loaded from it stay. Closing it again does nothing.
    public func close() { handle.close() }
}
