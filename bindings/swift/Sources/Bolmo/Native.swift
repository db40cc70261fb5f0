import CBolmo
import Foundation

/// A value that one thread at a time reads and writes.
final class Locked<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func withLock<R>(_ body: (inout Value) throws -> R) rethrows -> R {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }

    func exchange(_ new: Value) -> Value {
        withLock { value in
            defer { value = new }
            return value
        }
    }
}

/// Owns a native handle and deletes it, at the latest with itself.
///
/// The library checks handles, so that closing one while another thread uses it is safe.
final class Handle: @unchecked Sendable {
    /// The handle, for calls that accept deleted ones.
    let raw: OpaquePointer
    private let name: String
    private let delete: @Sendable (OpaquePointer?) -> Void
    private let closed = Locked(false)

    /// Creates the handle by a function that writes it through a pointer. `name` says what it is, as in "the session".
    init(
        _ name: String, delete: @escaping @Sendable (OpaquePointer?) -> Void,
        create: (UnsafeMutablePointer<OpaquePointer?>) throws -> Int32
    ) throws {
        try Library.check()
        var raw: OpaquePointer?
        try check(create(&raw))
        guard let raw else { throw BolmoError(.internalError, "the library returned no handle for \(name)") }
        self.raw = raw
        self.name = name
        self.delete = delete
    }

    deinit { delete(raw) }

    /// Deletes the handle. Closing it again does nothing.
    func close() {
        markClosed()
        // Deleting a deleted handle does nothing.
        delete(raw)
    }

    /// Refuses calls from here on.
    func markClosed() { _ = closed.exchange(true) }

    /// Passes the handle to calls, whose errors say if it has been closed.
    func use<R>(_ body: (OpaquePointer) throws -> R) throws -> R {
        try refuseIfClosed()
        do {
            return try withExtendedLifetime(self) { try body(raw) }
        } catch let error as BolmoError where error.kind == .invalidArgument || error.kind == .cancelled {
            // Closing makes the native handle invalid, and cancels what is running.
            try refuseIfClosed()
            throw error
        }
    }

    /// Whether the handle has been closed.
    var isClosed: Bool { closed.withLock { $0 } }

    /// Throws if the handle has been closed.
    func refuseIfClosed() throws {
        if isClosed { throw closedError }
    }

    /// The error of calls with a closed handle.
    var closedError: BolmoError { BolmoError(.closed, "\(name) has been closed") }
}

/// Calls a function that writes a value through a pointer.
func read<Value>(_ initial: Value, _ call: (UnsafeMutablePointer<Value>) -> Int32) throws -> Value {
    var value = initial
    try check(call(&value))
    return value
}

/// Calls a function that writes a pointer to items and their number, and copies the items.
func readItems<Item>(_ call: (UnsafeMutablePointer<UnsafePointer<Item>?>, UnsafeMutablePointer<Int>) -> Int32)
    throws -> [Item]
{
    var items: UnsafePointer<Item>?
    var count = 0
    try check(call(&items, &count))
    return Array(UnsafeBufferPointer(start: items, count: count))
}

/// Calls a function that writes a pointer to a text and its size, and copies the text.
func readText(_ call: (UnsafeMutablePointer<UnsafePointer<CChar>?>, UnsafeMutablePointer<Int>) -> Int32)
    throws -> String
{
    var text: UnsafePointer<CChar>?
    var size = 0
    try check(call(&text, &size))
    return string(text, size)
}

/// Calls a function that writes a handle of bytes, and copies these.
func readBytes(_ call: (UnsafeMutablePointer<OpaquePointer?>) throws -> Int32) throws -> Data {
    let handle = try Handle("the bytes", delete: bolmo_bytes_delete, create: call)
    return try handle.use { raw in
        var data: UnsafePointer<UInt8>?
        var size = 0
        try check(bolmo_bytes_get(raw, &data, &size))
        return Data(UnsafeBufferPointer(start: data, count: size))
    }
}

/// Copies a text of the library.
func string(_ text: UnsafePointer<CChar>?, _ size: Int) -> String {
    String(decoding: UnsafeRawBufferPointer(start: text, count: size), as: UTF8.self)
}

/// Passes the bytes of a text to a call.
func withBytes<R>(of text: String, _ body: (UnsafeRawPointer?, Int) throws -> R) rethrows -> R {
    var text = text
    return try text.withUTF8 { try body($0.baseAddress, $0.count) }
}

/// Passes bytes to a call.
func withBytes<R>(of data: Data, _ body: (UnsafeRawPointer?, Int) throws -> R) rethrows -> R {
    try data.withUnsafeBytes { try body($0.baseAddress, $0.count) }
}

/// Passes optional bytes to a call.
func withBytes<R>(of data: Data?, _ body: (UnsafeRawPointer?, Int) throws -> R) rethrows -> R {
    guard let data else { return try body(nil, 0) }
    return try withBytes(of: data, body)
}

/// The path of a file URL.
func path(of url: URL) throws -> String {
    guard url.isFileURL else {
        throw BolmoError(.invalidArgument, "\(url) is not the URL of a file: expected file:///…")
    }
    return url.path
}

/// A number that must not be negative.
func size(_ value: Int, _ name: String) throws -> Int {
    guard value >= 0 else { throw BolmoError(.invalidArgument, "\(name) is \(value): expected 0 or more") }
    return value
}
