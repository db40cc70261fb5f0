@testable import Bolmo
import Foundation
import XCTest

/// Checkpoints, snapshots, clones and steps.
final class StateTests: BolmoTestCase {
    private let options = GenerateOptions(maxBytes: 30, endBias: -1000)

    func testRewindRepeatsAGeneration() async throws {
        let session = try await session(loadTrained())
        let length = try session.length
        let mark = try await session.checkpoint()
        let first = try await session.generation(options)
        let patches = try session.patches
        XCTAssertGreaterThan(patches, 0)
        try await session.rewind(to: mark)
        let rewound = try session.length
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
        let bytes = try session.deviceBytes
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

    func testLogprobsOfAGeneration() async throws {
        let model = try await loadTrained()
        let without = try await session(model).generation(options)
        XCTAssertNil(without.logprobs)
        var options = options
        options.logprobs = true
        let session = try await session(model)
        let generation = try await session.generation(options)
        XCTAssertEqual(generation.ids, without.ids)
        let logprobs = try XCTUnwrap(generation.logprobs)
        XCTAssertEqual(logprobs.joint.count, generation.ids.count)
        // The same numbers come from the logits of single steps.
        let steps = try await self.session(model)
        for (i, id) in generation.ids.enumerated() {
            let logits = try await steps.logits().map(Double.init)
            let most = logits.max() ?? 0
            let sum = most + log(logits.reduce(0) { $0 + exp($1 - most) })
            let plain = Int(ByteID.plain(id))
            XCTAssertEqual(Double(logprobs.joint[i]), logits[Int(id)] - sum, accuracy: 1e-3)
            let both = log(exp(logits[plain] - sum) + exp(logits[plain + Int(ByteID.fusedOffset)] - sum))
            XCTAssertEqual(Double(logprobs.folded[i]), both, accuracy: 1e-3)
            try await steps.push(id)
        }
    }

    func testWhatASessionTakesAndHowFarItIs() async throws {
        let checkpoint = try await Checkpoint(folder: trainedModel)
        let model = try await loadTrained()
        let text = String(repeating: "for x in y: print(x)\n", count: 100)
        let session = try await model.session()
        let progress = try await model.session(bos: false).progress
        XCTAssertEqual(progress.total, 0)
        let lengths = Locked<[Int]>([])
        try await session.append(text) { update in
            // Read while the call is running.
            let length = (try? session.length) ?? -1
            XCTAssertEqual((try? session.progress)?.done, update.done)
            lengths.withLock { $0.append(length) }
        }
        XCTAssertGreaterThan(lengths.withLock { $0.count }, 0)
        XCTAssertEqual(lengths.withLock { $0 }, lengths.withLock { $0.sorted() })
        XCTAssertEqual(lengths.withLock { $0.last }, text.utf8.count + 1)
        let done = try session.progress
        XCTAssertEqual(done, ProgressUpdate(done: UInt64(text.utf8.count), total: UInt64(text.utf8.count)))
        let patches = try session.patches
        let taken = try session.deviceBytes
        XCTAssertLessThanOrEqual(taken, try model.sessionBytes(patches: patches))
        let estimate = try checkpoint.sessionBytes(patches: patches)
        XCTAssertLessThanOrEqual(try model.sessionBytes(patches: patches), estimate)
        XCTAssertLessThan(try model.sessionBytes(patches: 10), try model.sessionBytes(patches: 100_000))
        await refuses(.invalidArgument, saying: "patches") { _ = try model.sessionBytes(patches: -1) }
        // A stream's reader may look at its session, too.
        var pieces = 0
        for try await piece in session.generate(maxBytes: 10, endBias: -1000) {
            pieces += piece.bytes.count
            let at = try session.progress
            XCTAssertEqual(at.total, 10)
            XCTAssertGreaterThanOrEqual(at.done, UInt64(pieces))
        }
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
        let last = await session.lastGeneration
        XCTAssertEqual(last?.matched, true)
        XCTAssert(try json.matches(written.text))
    }

    private func allowedBytes(_ matcher: Matcher) throws -> [UInt8] {
        let flags = try matcher.allowed()
        XCTAssertEqual(flags.count, ByteID.candidates)
        return (0..<256).filter { flags[$0] != 0 }.map { UInt8($0) }
    }

    func testTheEngineOfAClosedModel() async throws {
        let model = try await Model(folder: trainedModel)
        let session = try await session(model)
        model.close()
        try await model.engine.suspend()
        await refuses(.suspended) { try await session.append("x") }
        try model.engine.resume()
        try await session.append("x")
    }
}
