import CBolmo

/// The ids of the model: 4 to 259 are the bytes, 1 begins and ends a text. 260 more says that a patch ends there.
public enum ByteID {
    /// Difference between a fused id, with which a patch ends, and its plain id.
    public static let fusedOffset = UInt16(BOLMO_FUSED_OFFSET)
    /// The plain id of byte 0.
    public static let byteOffset = UInt16(BOLMO_BYTE_OFFSET)
    /// The plain id that begins a text, and with which the model ends one.
    public static let end = UInt16(BOLMO_END_ID)
    /// Number of ids, plain and fused, which is the number of logits per step.
    public static let count = Int(BOLMO_LOGITS)
    /// Number of candidates for the next step: the 256 bytes, and the end of the text.
    public static let candidates = Int(BOLMO_CANDIDATES)

    /// The id without what it says about a patch.
    public static func plain(_ id: UInt16) -> UInt16 { id >= fusedOffset ? id - fusedOffset : id }
    /// Whether a patch ends with this id.
    public static func endsPatch(_ id: UInt16) -> Bool { id >= fusedOffset }
    /// Whether the text ends with this id.
    public static func endsText(_ id: UInt16) -> Bool { plain(id) == end }
    /// The byte of an id, or `nil` if it isn't one of a byte.
    public static func byte(_ id: UInt16) -> UInt8? {
        let plain = plain(id)
        return plain < byteOffset ? nil : UInt8(exactly: plain - byteOffset)
    }
    /// The plain id of a byte.
    public static func id(_ byte: UInt8) -> UInt16 { UInt16(byte) + byteOffset }
}

/// A chunk of output, usually the bytes of one patch. Bytes that may begin a stop string are held back.
public struct Piece: Sendable, Hashable {
    /// The bytes as the model chose them.
    public let bytes: [UInt8]
    /// The characters that are complete with these bytes: an incomplete one waits for the next piece. Invalid UTF-8
    /// becomes U+FFFD. If the output stops inside a character, a last piece without bytes has the U+FFFD for it.
    public let text: String
    /// The id of each byte, fused where it ends a patch.
    public let ids: [UInt16]
    /// Whether a patch ends with the last byte.
    public var endsPatch: Bool { ids.last.map(ByteID.endsPatch) ?? false }

    /// Copies what a C callback has received.
    init(_ data: UnsafePointer<UInt8>?, _ size: Int, _ ids: UnsafePointer<UInt16>?, _ assembler: TextAssembler) throws {
        bytes = Array(UnsafeBufferPointer(start: data, count: size))
        text = try assembler.push(UnsafeRawBufferPointer(start: data, count: size))
        self.ids = Array(UnsafeBufferPointer(start: ids, count: size))
    }

    /// A piece without bytes.
    init(text: String) {
        bytes = []
        self.text = text
        ids = []
    }
}
