import Bolmo
import Foundation
import XCTest

/// Generations equal those of the reference implementation and of the command.
final class GoldenTests: BolmoTestCase {
    private struct Golden {
        let prompt: [UInt32]
        /// The id for the prompt's last byte, then those of the generation.
        let emitted: [UInt16]
        /// How many of them are not too close to call.
        let reliable: Int
    }

    private func golden() throws -> [Golden] {
        let table = repository.appendingPathComponent("ffi/tests/c/generations.txt")
        let lines = try String(contentsOf: table, encoding: .utf8).split(separator: "\n").map { line in
            line.split(separator: " ").compactMap { UInt32($0) }
        }
        return stride(from: 0, to: lines.count, by: 3).map { i in
            XCTAssertEqual(Int(lines[i][0]), lines[i + 1].count)
            XCTAssertEqual(Int(lines[i][1]), lines[i + 2].count)
            return Golden(
                prompt: lines[i + 1], emitted: lines[i + 2].map { UInt16($0) }, reliable: Int(lines[i][2]))
        }
    }

    func testGreedyIdsEqualTheReference() async throws {
        let model = try await loadTrained()
        let cases = try golden()
        XCTAssertGreaterThanOrEqual(cases.count, 3)
        for (i, golden) in cases.enumerated() {
            let session = try await model.session(bos: false)
            try await session.append(ids: golden.prompt)
            let options = GenerateOptions(maxBytes: golden.emitted.count - 1)
            let streamed = try await collect(session.generate(options))
            let last = await session.lastGeneration
            let result = try XCTUnwrap(last)
            let decided = try await session.ids(from: golden.prompt.count - 1)[0]
            XCTAssertEqual(
                ([decided] + result.ids).prefix(golden.reliable), golden.emitted.prefix(golden.reliable),
                "generation \(i)")
            XCTAssertEqual(streamed.bytes, result.bytes)
            XCTAssertEqual(streamed.ids, Array(result.ids.prefix(streamed.ids.count)))
            XCTAssertEqual(streamed.text, result.text)
            XCTAssertGreaterThan(streamed.pieces, 1)

            // The whole result, without a stream, is the same.
            let other = try await model.session(bos: false)
            try await other.append(ids: golden.prompt)
            let whole = try await other.generation(options)
            XCTAssertEqual(whole, result)
        }
    }

    /// BOLMO_EXPECTED names what `bolmo generate PROMPT --model examples/demo-model --max-bytes 120 --json` writes.
    func testTextEqualsTheCommand() async throws {
        struct Expected: Decodable {
            let bytes_base64: Data
            let ids: [UInt16]
            let prompt_ids: [UInt32]
            let patches: Int
            let stop: String
        }
        guard let path = ProcessInfo.processInfo.environment["BOLMO_EXPECTED"] else {
            throw XCTSkip("BOLMO_EXPECTED names no file with the command's text")
        }
        let expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        XCTAssertGreaterThan(expected.bytes_base64.count, 20)
        XCTAssertEqual(expected.prompt_ids.first, UInt32(ByteID.end))
        let prompt = expected.prompt_ids.dropFirst().compactMap { ByteID.byte(UInt16($0)) }
        let session = try await load(demoModel).session()
        try await session.append(prompt)
        let streamed = try await collect(session.generate(maxBytes: 120))
        XCTAssertEqual(Data(streamed.bytes), expected.bytes_base64)
        let last = await session.lastGeneration
        let result = try XCTUnwrap(last)
        XCTAssertEqual(result.ids, expected.ids)
        XCTAssertEqual(result.patches, expected.patches)
        XCTAssertEqual(result.stop.description, expected.stop)
    }

    func testSamplingRepeatsWithItsSeed() async throws {
        let model = try await loadTrained()
        var texts: [[UInt8]] = []
        for seed: UInt64 in [7, 7, 8] {
            let session = try await session(model)
            let options = GenerateOptions(
                maxBytes: 60, temperature: 0.9, topK: 50, topP: 0.98, minP: 0.001, repetitionPenalty: 1.1,
                repetitionWindow: 30, seed: seed, endBias: -10, byteBias: [UInt8(ascii: "e"): -0.5])
            texts.append(try await collect(session.generate(options)).bytes)
        }
        XCTAssertEqual(texts[0], texts[1])
        XCTAssertNotEqual(texts[0], texts[2])
    }

    func testStopStringsAndBoundaryBias() async throws {
        let model = try await loadTrained()
        let plain = try await session(model).generation(GenerateOptions(maxBytes: 60, endBias: -1000))
        XCTAssertEqual(plain.stop, .budget)
        XCTAssertEqual(plain.bytes.count, 60)
        let stop = String(decoding: plain.bytes[20..<23], as: UTF8.self)
        let first = try XCTUnwrap(plain.text.range(of: stop))
        for options in [
            GenerateOptions(maxBytes: 60, stop: [stop], endBias: -1000),
            GenerateOptions(maxBytes: 60, endBias: -1000, stopBytes: [Array(stop.utf8)]),
        ] {
            let session = try await session(model)
            let streamed = try await collect(session.generate(options))
            let last = await session.lastGeneration
            XCTAssertEqual(last?.stop, .stopString)
            XCTAssertEqual(streamed.text, String(plain.text[..<first.lowerBound]))
        }
        let shortPatches = GenerateOptions(maxBytes: 60, boundaryBias: 1000, endBias: -1000)
        let short = try await session(model).generation(shortPatches)
        XCTAssertEqual(short.patches, 60)
        let longPatches = GenerateOptions(maxBytes: 60, boundaryBias: -1000, endBias: -1000)
        let long = try await session(model).generation(longPatches)
        XCTAssertEqual(long.patches, 0)
        let end = try await session(model).generation(GenerateOptions(endBias: 1000))
        XCTAssertEqual(end.stop, .end)
        XCTAssert(end.ids.last.map(ByteID.endsText) ?? false)
    }
}
