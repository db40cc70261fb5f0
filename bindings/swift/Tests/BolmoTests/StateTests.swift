import Bolmo
import Foundation
import XCTest

/// Checkpoints, snapshots, clones and steps.
final class StateTests: BolmoTestCase {
    private let options = GenerateOptions(maxBytes: 30, endBias: -1000)

    func testRewindRepeatsAGeneration() async throws {
        let session = try await session(loadTrained())
        let length = try await session.length
        let mark = try await session.checkpoint()
        let first = try await session.generation(options)
        let patches = try await session.patches
        XCTAssertGreaterThan(patches, 0)
        try await session.rewind(to: mark)
        let rewound = try await session.length
        XCTAssertEqual(rewound, length)
        let second = try await session.generation(options)
        XCTAssertEqual(first, second)
    }

    func testSnapshotsContinueElsewhere() async throws {
        let model = try await loadTrained()
        let session = try await session(model)
        let snapshot = try await session.snapshot()
        XCTAssertGreaterThan(snapshot.count, 100)
        let expected = try await session.generation(options)
        let restored = try await model.restore(snapshot)
        let found = try await restored.generation(options)
        XCTAssertEqual(found, expected)
        let again = try await loadTrained()
        XCTAssertEqual(again.fingerprint, model.fingerprint)
        let elsewhere = try await again.restore(snapshot).generation(options)
        XCTAssertEqual(elsewhere, expected)
        let bytes = try await session.deviceBytes
        XCTAssertGreaterThan(bytes, 0)
    }

    func testClonesAreIndependent() async throws {
        let session = try await session(loadTrained())
        let clone = try await session.clone()
        let first = try await session.generation(options)
        try await clone.append("other text")
        let ids = try await clone.ids()
        XCTAssertEqual(ids.dropFirst(5).map(ByteID.plain), "other text".utf8.map(ByteID.id))
        let other = try await clone.generation(options)
        XCTAssertNotEqual(first, other)
    }

    func testStepsEqualAGeneration() async throws {
        let model = try await loadTrained()
        for options in [options, GenerateOptions(maxBytes: 30, temperature: 0.8, seed: 5, endBias: -1000)] {
            let expected = try await session(model).generation(options)
            let session = try await session(model)
            let sampler = try Sampler(options)
            var ids: [UInt16] = []
            while ids.count < options.maxBytes {
                let logits = try await session.logits()
                XCTAssertEqual(logits.count, ByteID.count)
                let id = try await session.choose(with: sampler, from: logits)
                try await session.push(id)
                ids.append(id)
            }
            XCTAssertEqual(ids, expected.ids)
        }
    }

    func testStepsFollowAMatcher() async throws {
        let session = try await session(loadTrained())
        let matcher = try Constraint.regex("[0-9]{3}-[a-c]+x").matcher()
        let sampler = try Sampler()
        var bytes: [UInt8] = []
        for remaining in stride(from: 12, to: 0, by: -1) {
            let allowed = try matcher.allowed(remaining: remaining)
            let id = try await session.choose(with: sampler, from: session.logits(), allowed: allowed)
            guard let byte = ByteID.byte(id) else { break }
            try matcher.advance([byte])
            try await session.push(id)
            bytes.append(byte)
        }
        XCTAssert(try matcher.isMatch)
        XCTAssert(try Constraint.regex("[0-9]{3}-[a-c]+x").matches(bytes))
    }

    func testConstraints() async throws {
        let constraint = try Constraint.regex("(yes|no), because [a-z ]{5,20}\\.")
        XCTAssertEqual(try constraint.shortest, "no, because ".count + 6)
        XCTAssert(try constraint.matches("yes, because it rains."))
        XCTAssertFalse(try constraint.matches("yes, because"))
        let matcher = try constraint.matcher()
        XCTAssertEqual(Set(try allowedBytes(matcher)), Set("yn".utf8))
        try matcher.advance("y")
        let clone = try matcher.clone()
        XCTAssertEqual(try allowedBytes(clone), [UInt8(ascii: "e")])
        await refuses(.invalidArgument) { try clone.advance("o") }
        try clone.advance("es, because it rains.")
        XCTAssert(try clone.isMatch)
        XCTAssertFalse(try matcher.isMatch)

        let model = try await loadTrained()
        let schema = """
            {"type": "object", "properties": {"name": {"enum": ["Mia", "Tom"]}, "age": {"type": "integer"}},
             "required": ["name", "age"], "additionalProperties": false}
            """
        struct Person: Decodable { let name: String, age: Int }
        let json = try Constraint.jsonSchema(schema)
        let session = try await session(model)
        let written = try await collect(session.generate(maxBytes: 60, constraint: json))
        let person = try JSONDecoder().decode(Person.self, from: Data(written.bytes))
        XCTAssert(["Mia", "Tom"].contains(person.name))
        XCTAssertEqual(session.lastGeneration?.matched, true)
        XCTAssert(try json.matches(written.text))
    }

    private func allowedBytes(_ matcher: Matcher) throws -> [UInt8] {
        let flags = try matcher.allowed()
        XCTAssertEqual(flags.count, ByteID.candidates)
        return (0..<256).filter { flags[$0] != 0 }.map { UInt8($0) }
    }
}
