import CBolmo
import Foundation

/// Version of the native library, such as "0.1.0".
public var version: String { String(cString: bolmo_version()) }

/// Version of the native library's ABI. It grows when something is added.
public var abiVersion: Int { Int(bolmo_abi_version()) }

/// Number of native objects that exist: 0 when a program has closed or released all of its own.
public var handleCount: Int { bolmo_handle_count() }

/// How much is logged.
public enum LogLevel: Int32, Sendable, Hashable, CaseIterable, Comparable {
    /// Nothing.
    case off = 0
    /// Failures, including those that no call can throw.
    case error
    /// Problems that don't stop the work.
    case warn
    /// Progress of the work.
    case info
    /// Details for finding a fault.
    case debug
    /// Everything, including the graphics library's own messages.
    case trace

    /// Whether the left level logs less.
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// Passes log messages up to `level` to `handler`, instead of an earlier handler. `nil` turns logging off, which is
/// the default.
///
/// The handler is called from any thread, also from several at once. It must not call the library. When the function
/// returns, the earlier handler is no longer running.
public func setLogHandler(_ level: LogLevel, _ handler: (@Sendable (LogLevel, String) -> Void)?) throws {
    try Library.check()
    try settingLogHandler.withLock {
        let earlier = logHandler.exchange(handler)
        do {
            try check(bolmo_set_log_callback(level.rawValue, handler == nil ? nil : onLogLine, nil))
        } catch {
            _ = logHandler.exchange(earlier)
            throw error
        }
    }
}

/// Held while the handler and the native side's level change together.
private let settingLogHandler = NSLock()

/// The handler of the log. The C callback looks it up, so that it can't be called after its release.
private let logHandler = Locked<(@Sendable (LogLevel, String) -> Void)?>(nil)

private func onLogLine(level: Int32, text: UnsafePointer<CChar>?, size: Int, user: UnsafeMutableRawPointer?) {
    guard let handler = logHandler.withLock({ $0 }) else { return }
    handler(LogLevel(rawValue: level) ?? .error, string(text, size))
}

/// The native library that this process has loaded.
enum Library {
    /// Throws if the library lacks something that the header declares.
    static func check() throws { try compatible.get() }

    private static let compatible = compare(found: bolmo_abi_version(), wanted: UInt32(BOLMO_ABI_VERSION))

    /// Compares the library's ABI version with the one of the header that this package was compiled with.
    static func compare(found: UInt32, wanted: UInt32) -> Result<Void, BolmoError> {
        if found >= wanted { return .success(()) }
        return .failure(BolmoError(.unsupported, """
            the native library \(file) is too old: it has ABI version \(found), and this package was compiled for \
            version \(wanted); install the library of the package's version, or set the search path of libraries to it
            """))
    }

    /// The file that the library was loaded from: the program itself if it is linked into it.
    static var file: String {
        guard let symbol = dlsym(dlopen(nil, RTLD_LAZY), "bolmo_abi_version") else { return "libbolmo" }
        #if canImport(Darwin)
        var info = Dl_info()
        return dladdr(symbol, &info) != 0 ? String(cString: info.dli_fname) : "libbolmo"
        #else
        // Glibc's dladdr is not for Swift. A line has the range of addresses first and the file last.
        guard let maps = fopen("/proc/self/maps", "r") else { return "libbolmo" }
        defer { fclose(maps) }
        var buffer = [CChar](repeating: 0, count: 8192)
        while fgets(&buffer, Int32(buffer.count), maps) != nil {
            let line = buffer.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
            let range = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
            if range.count == 2, (range[0]..<range[1]).contains(UInt(bitPattern: symbol)) {
                return String(line.drop { $0 != "/" }.dropLast())
            }
        }
        return "libbolmo"
        #endif
    }
}
