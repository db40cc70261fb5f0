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
    ///   - adapter: A part of the adapter's name, driver or backend, its number in ``Adapter/list(choice:)``,
    ///     "low-power", "cpu", "software", or "auto". "auto" and an empty text prefer a discrete GPU, then an
    ///     integrated one, then a virtual one, then the CPU. "low-power" prefers an integrated GPU, then the CPU. "cpu"
    ///     is the library's own device, which needs no driver; "software" is a driver that emulates a GPU on the CPU,
    ///     for tests.
    ///   - threads: How many threads compute on the CPU device, 1 to 256; 0 for one on each physical core.
    ///   - maxBindingBytes: A limit on bindings, at least 65536; 0 for the adapter's own limit.
    ///   - kernelCache: A folder that caches compiled kernels, so that models load faster from the second time on,
    ///     where the driver supports it. It is created when it is needed.
    ///   - products: Arithmetic of products on the CPU device. Other adapters have ``Products/f32`` alone.
    ///   - inPlaceBytes: The size in bytes from which on the CPU device uses a tensor where the checkpoint's file is
    ///     mapped, if it is stored in the wanted format; 0 for the library's choice. `UInt64.max` copies all tensors,
    ///     for files that other programs may write to.
    /// - Throws: ``BolmoError`` with `notFound` if no adapter matches, `unsupported` if it cannot be opened,
    ///   `outOfMemory`, `io` if no thread can be started.
    public init(
        adapter: String = "", threads: Int = 0, maxBindingBytes: UInt64 = 0, kernelCache: URL? = nil,
        products: Products = .f32, inPlaceBytes: UInt64 = 0
    ) async throws {
        handle = try await blocking("engine") {
            let options = try Handle("the options", delete: bolmo_engine_options_delete) {
                bolmo_engine_options_create($0)
            }
            return try options.use { raw in
                try check(withBytes(of: adapter) { bolmo_engine_options_set_adapter(raw, $0, $1) })
                try check(bolmo_engine_options_set_threads(raw, size(threads, "threads")))
                try check(bolmo_engine_options_set_max_binding_bytes(raw, maxBindingBytes))
                try check(bolmo_engine_options_set_products(raw, products.rawValue))
                try check(bolmo_engine_options_set_in_place_bytes(raw, inPlaceBytes))
                if let kernelCache {
                    try check(withBytes(of: path(of: kernelCache)) {
                        bolmo_engine_options_set_kernel_cache(raw, $0, $1)
                    })
                }
                return try Handle("the engine", delete: bolmo_engine_delete) { bolmo_engine_create(raw, $0) }
            }
        }
        self.adapter = try handle.use { raw in
            try Adapter(
                text: { which in try readText { bolmo_engine_text(raw, which, $0, $1) } },
                number: { which in try read(0) { bolmo_engine_number(raw, which, $0) } })
        }
    }

    /// Suspends the engine, as an app must before it goes to the background.
    ///
    /// When this returns, the device is idle, and nothing is submitted to it until ``resume()``. Calls in progress
    /// pause, and go on afterwards as if nothing had happened; cancelling ends them at once. Calls that begin meanwhile
    /// and need the device throw `suspended` and change nothing. Snapshots need the device, so save sessions first if
    /// the app may be ended. Suspending twice is the same as once. A cancelled task suspends, too.
    ///
    /// - Throws: ``BolmoError`` with `deviceLost`.
    public func suspend() async throws {
        try await blockingRegardless("suspending") { [self] in try suspendAndWait() }
    }

    /// Suspends the engine as ``suspend()`` does, and blocks the thread until the device is idle, which takes one
    /// submission. For observers of the system's notifications: a task that they start may run when it is too late.
    ///
    /// - Throws: ``BolmoError`` with `deviceLost`.
    public func suspendAndWait() throws {
        try handle.use { try check(bolmo_engine_suspend($0)) }
    }

    /// Resumes a suspended engine. Does nothing if it is not suspended.
    ///
    /// - Throws: ``BolmoError`` with `deviceLost` if the device was lost meanwhile: create the engine and load the
    ///   model again; sessions can be restored from snapshots.
    public func resume() throws {
        try handle.use { try check(bolmo_engine_resume($0)) }
    }

    /// Releases memory that can be made again, for when the system runs short of it. What is in use is released when
    /// the call that uses it ends. A suspended engine may be trimmed. A cancelled task trims, too.
    ///
    /// - Returns: The number of bytes by which the device's memory has shrunk.
    @discardableResult
    public func trim() async throws -> UInt64 {
        try await blockingRegardless("trimming") { [handle] in
            try handle.use { raw in try read(0) { bolmo_engine_trim(raw, $0) } }
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
