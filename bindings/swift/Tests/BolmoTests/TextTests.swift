@testable import Bolmo
import Foundation
import XCTest

/// Bytes are the truth; text is a view of them that never cuts a character.
final class TextTests: BolmoTestCase {
    func testTheAssemblerHoldsIncompleteCharactersBack() throws {
        let assembler = try TextAssembler()
        let bytes = Array("aé€🙂z".utf8)
        var text = ""
        for byte in bytes {
            let part = try assembler.push([byte])
            XCTAssertFalse(part.contains("\u{FFFD}"))
            text += part
        }
        XCTAssertEqual(text, "aé€🙂z")
        XCTAssertEqual(try assembler.finish(), "")
        XCTAssertEqual(try assembler.push([0xE2, 0x82]), "")
        XCTAssertEqual(try assembler.finish(), "\u{FFFD}")
        XCTAssertEqual(try assembler.push([0xFF, 0x61]), "\u{FFFD}a")
        XCTAssertEqual(try assembler.push(bytes[1...2]), "é")
        XCTAssertEqual(try assembler.push([UInt8]()), "")
    }

    /// A constraint makes the model write what it never would.
    func testPiecesWithInvalidUTF8() async throws {
        let model = try await loadTrained()
        let cases: [(pattern: String, bytes: [UInt8], text: String)] = [
            ("é🙂é", Array("é🙂é".utf8), "é🙂é"),
            (#"(?-u)\xFFa\xC3\xA9\xF0\x9F"#, [0xFF, 0x61, 0xC3, 0xA9, 0xF0, 0x9F], "\u{FFFD}aé\u{FFFD}"),
        ]
        for (pattern, bytes, text) in cases {
            for bias: Float in [1000, -1000, 0] {
                let session = try await session(model)
                let constraint = try Constraint.regex(pattern)
                let collected = try await collect(session.generate(constraint: constraint, boundaryBias: bias))
                XCTAssertEqual(collected.bytes, bytes)
                XCTAssertEqual(collected.text, text)
                let last = await session.lastGeneration
                XCTAssertEqual(last?.text, String(decoding: bytes, as: UTF8.self))
                XCTAssertEqual(last?.stop, .complete)
                XCTAssertEqual(last?.matched, true)
                // The pieces of a callback have the same text.
                let received = Locked("")
                _ = try await self.session(model).generation(
                    GenerateOptions(constraint: constraint, boundaryBias: bias)
                ) { piece in
                    received.withLock { $0 += piece.text }
                    return true
                }
                XCTAssertEqual(received.withLock { $0 }, text)
            }
        }
    }

    func testAnyBytesMayBeAppended() async throws {
        let model = try await loadTrained()
        let bytes: [UInt8] = [0, 0xFF, 0xC3, 0x28, 0x80, 0x0A]
        let array = try await model.session()
        try await array.append(bytes)
        let data = try await model.session()
        try await data.append(Data(bytes))
        let ids = try await model.session(bos: false)
        try await ids.appendBOS()
        try await ids.append(ids: bytes.map { UInt32(ByteID.id($0)) })
        try await array.append("")
        try await array.append([UInt8]())
        var found: [[UInt16]] = []
        for session in [array, data, ids] { found.append(try await session.ids()) }
        XCTAssertEqual(found[0].map(ByteID.plain), [ByteID.end] + bytes.map(ByteID.id))
        XCTAssertEqual(found[0], found[1])
        XCTAssertEqual(found[0], found[2])
        let tail = try await array.ids(from: 5)
        XCTAssertEqual(tail, Array(found[0][5...]))
        let beyond = try await array.ids(from: 100)
        XCTAssertEqual(beyond, [])
    }

    func testIds() {
        for byte in UInt8.min...UInt8.max {
            XCTAssertEqual(ByteID.byte(ByteID.id(byte)), byte)
            XCTAssertEqual(ByteID.byte(ByteID.id(byte) + ByteID.fusedOffset), byte)
        }
        XCTAssertNil(ByteID.byte(ByteID.end))
        XCTAssertNil(ByteID.byte(.max))
        XCTAssert(ByteID.endsText(ByteID.end + ByteID.fusedOffset))
        XCTAssert(ByteID.endsPatch(261))
        XCTAssertFalse(ByteID.endsPatch(259))
    }
}
