import CBolmo
import Foundation

/// An open device, for any number of models.
///
/// A model opens the best device by itself if it isn't given an engine. Create one to choose the adapter, or to load
/// several models on the same device.
///
/// ```swift
/// let engine = try await Engine(adapter: "cpu", threads: 4)
/// let model = try await Model(folder: url, engine: engine)
/// ```
public final class Engine: Sendable {
    let handle: Handle
    /// The adapter that the engine uses.
    public let adapter: Adapter

    /// Opens a device.
    ///
    /// - Parameters:
    ///   - adapter: A part of the adapter's name, driver or backend, its number in ``Adapter/list(choice:)``, "cpu",
    ///     "software", or "auto". "auto" and an empty text prefer a discrete GPU, then an integrated one, then a virtual
    ///     one, then the CPU. "cpu" is the library's own device, which needs no driver; "software" is a driver that
    ///     emulates a GPU on the CPU, for tests.
    ///   - threads: How many threads compute on the CPU device, 1 to 256; 0 for one on each physical core.
    ///   - maxBindingBytes: A limit on bindings, at least 65536; 0 for the adapter's own limit.
    /// - Throws: ``BolmoError`` with `notFound` if no adapter matches, `unsupported` if it cannot be opened,
    ///   `outOfMemory`, `io` if no thread can be started.
    public init(adapter: String = "", threads: Int = 0, maxBindingBytes: UInt64 = 0) async throws {
        handle = try await blocking("engine") {
            let options = try Handle("the options", delete: bolmo_engine_options_delete) {
                bolmo_engine_options_create($0)
            }
            return try options.use { raw in
                try check(withBytes(of: adapter) { bolmo_engine_options_set_adapter(raw, $0, $1) })
                try check(bolmo_engine_options_set_threads(raw, size(threads, "threads")))
                try check(bolmo_engine_options_set_max_binding_bytes(raw, maxBindingBytes))
                return try Handle("the engine", delete: bolmo_engine_delete) { bolmo_engine_create(raw, $0) }
            }
        }
        self.adapter = try handle.use { raw in
            try Adapter(
                text: { which in try readText { bolmo_engine_text(raw, which, $0, $1) } },
                number: { which in try read(0) { bolmo_engine_number(raw, which, $0) } })
        }
    }

    /// Releases the device and all its memory at once, even if it is in use: every later call that needs the device,
    /// with the engine, its models or their sessions, throws `deviceLost`.
    public func destroyDevice() throws {
        try handle.use { try check(bolmo_engine_destroy_device($0)) }
    }

    /// Closes the engine. The device is closed when its last model and session are closed too. Closing it again does
    /// nothing.
    public func close() { handle.close() }
}
