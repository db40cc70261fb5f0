import CBolmo
import Foundation

/// A safetensors file of a checkpoint that is not a folder.
public struct WeightFile: Sendable {
    /// Reads up to the buffer's size at an offset into the buffer. Returns how many bytes it has read, 0 at the end.
    public typealias Read = @Sendable (_ offset: UInt64, _ buffer: UnsafeMutableRawBufferPointer) throws -> Int

    enum Source: Sendable {
        case reader(size: UInt64, Read)
        case memory(Memory, release: @Sendable () -> Void)
    }

    /// Bytes at an address that somebody keeps valid.
    struct Memory: @unchecked Sendable {
        let bytes: UnsafeRawBufferPointer
    }

    let name: String
    let source: Source

    /// A file as `Data`, which may be mapped. `name` is used in messages.
    public static func data(_ name: String, _ data: Data) -> Self {
        // Data has no address that stays valid after a closure, so it is read through a reader.
        reader(name, size: UInt64(data.count)) { offset, buffer in
            guard offset < UInt64(data.count) else { return 0 }
            return data.withUnsafeBytes { bytes in
                let part = bytes[Int(offset)...].prefix(buffer.count)
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: part))
                return part.count
            }
        }
    }

    /// A file in memory that is used in place. It must stay valid and unchanged until `release` is called: once for
    /// each checkpoint that the file is passed to, when that has been closed, or when it could not be opened.
    public static func memory(
        _ name: String, _ bytes: UnsafeRawBufferPointer, release: @escaping @Sendable () -> Void
    ) -> Self {
        Self(name: name, source: .memory(Memory(bytes: bytes), release: release))
    }

    /// A file of `size` bytes that a function reads, such as an asset or a part of an archive. It must not change. The
    /// function is called on any thread, also on several at once.
    public static func reader(_ name: String, size: UInt64, read: @escaping Read) -> Self {
        Self(name: name, source: .reader(size: size, read))
    }
}

/// A weight file on the way to the library, which keeps it until it calls `release`.
final class Reader: Sendable {
    private let file: WeightFile
    private let isAdded = Locked(false)
    /// How often the reader has thrown, and what it has thrown last.
    private let failures = Locked<(count: Int, last: (any Error)?)>((0, nil))

    init(_ file: WeightFile) { self.file = file }

    /// Adds the file to a builder.
    func add(to builder: OpaquePointer) throws {
        let kept = Unmanaged.passRetained(self)
        let status = withBytes(of: file.name) { name, nameSize in
            switch file.source {
            case .memory(let memory, _):
                bolmo_checkpoint_builder_add_memory(
                    builder, name, nameSize, memory.bytes.baseAddress, memory.bytes.count, onRelease, kept.toOpaque())
            case .reader(let size, _):
                bolmo_checkpoint_builder_add_reader(
                    builder, name, nameSize, size, onRead, onRelease, kept.toOpaque())
            }
        }
        do {
            try check(status)
            _ = isAdded.exchange(true)
        } catch {
            kept.release()
            throw error
        }
    }

    /// Releases the file if the library has never had it.
    func releaseUnlessAdded() {
        if !isAdded.exchange(true) { release() }
    }

    /// Runs a call that reads files. If a reader has thrown meanwhile, its error leaves the call. Several calls may use
    /// a reader at once, each on several threads: all that fail then have an error of this reader.
    static func naming<R>(_ readers: [Reader], _ body: () throws -> R) throws -> R {
        let before = readers.map { $0.failures.withLock { $0.count } }
        do {
            return try body()
        } catch let error as BolmoError where error.kind == .io {
            for (reader, before) in zip(readers, before) {
                let failures = reader.failures.withLock { $0 }
                if failures.count > before, let last = failures.last { throw last }
            }
            throw error
        }
    }

    fileprivate func read(_ offset: UInt64, _ buffer: UnsafeMutableRawBufferPointer) -> Int64 {
        guard case .reader(_, let read) = file.source else { return -1 }
        do {
            let count = try read(offset, buffer)
            guard (0...buffer.count).contains(count) else {
                throw BolmoError(.io, "\(file.name): the reader returned \(count) of at most \(buffer.count) bytes")
            }
            return Int64(count)
        } catch {
            failures.withLock { $0 = ($0.count + 1, error) }
            return -1
        }
    }

    fileprivate func release() {
        if case .memory(_, let release) = file.source { release() }
    }
}

private func onRead(user: UnsafeMutableRawPointer?, offset: UInt64, out: UnsafeMutablePointer<UInt8>?, size: Int)
    -> Int64
{
    guard let user else { return -1 }
    let buffer = UnsafeMutableRawBufferPointer(start: out, count: size)
    return Unmanaged<Reader>.fromOpaque(user).takeUnretainedValue().read(offset, buffer)
}

private func onRelease(user: UnsafeMutableRawPointer?) {
    guard let user else { return }
    Unmanaged<Reader>.fromOpaque(user).takeRetainedValue().release()
}
