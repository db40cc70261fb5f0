import CBolmo

/// Makes whole characters from chunks of bytes, for display.
///
/// A chunk of a model's output may end inside a character. The assembler holds incomplete characters back until the
/// rest has arrived. Invalid UTF-8 becomes U+FFFD. ``Piece/text`` comes from one.
public final class TextAssembler: Sendable {
    private let handle: Locked<Handle>

    /// Creates an assembler at the start of a text.
    public init() throws {
        handle = try Locked(Handle("the assembler", delete: bolmo_utf8_delete) { bolmo_utf8_create($0) })
    }

    /// Takes the next bytes and returns the text that is complete by now, which may be empty.
    public func push(_ bytes: some Collection<UInt8>) throws -> String {
        let text = try bytes.withContiguousStorageIfAvailable { try push(UnsafeRawBufferPointer($0)) }
        return try text ?? Array(bytes).withUnsafeBytes { try push($0) }
    }

    /// Ends the text: returns U+FFFD if it stops inside a character, else an empty text. The assembler can then be used
    /// for another text.
    public func finish() throws -> String {
        try handle.withLock { handle in try readText { bolmo_utf8_finish(handle.raw, $0, $1) } }
    }

    func push(_ bytes: UnsafeRawBufferPointer) throws -> String {
        try handle.withLock { handle in
            try readText { bolmo_utf8_push(handle.raw, bytes.baseAddress, bytes.count, $0, $1) }
        }
    }
}
