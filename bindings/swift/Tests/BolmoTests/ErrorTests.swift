@testable import Bolmo
import Foundation
import XCTest

/// Bad input gives an error of the right kind with a message, and nothing worse.
final class ErrorTests: BolmoTestCase {
    func testWhatIsMissing() async throws {
        await refuses(.notFound, saying: "/no/such/folder") { _ = try await Checkpoint(folder: "/no/such/folder") }
        await refuses(.notFound, saying: "/no/such/folder") { _ = try await Model(folder: "/no/such/folder") }
        await refuses(.notFound, saying: "config.json") {
            _ = try await Checkpoint(folder: FileManager.default.temporaryDirectory)
        }
        await refuses(.invalidArgument, saying: "file:///") {
            _ = try await Checkpoint(folder: XCTUnwrap(URL(string: "https://example.com/model")))
        }
        await refuses(.invalidArgument, saying: "NUL") { _ = try await Checkpoint(folder: "a\0b") }
        await refuses(.notFound, saying: "no such adapter") { _ = try await Engine(adapter: "no such adapter") }
        await refuses(.invalidArgument, saying: "threads") { _ = try await Engine(adapter: "cpu", threads: -1) }
        await refuses(.invalidArgument) { _ = try await Engine(adapter: "cpu", threads: 10_000) }
        await refuses(.invalidArgument) { _ = try await Engine(adapter: adapterName, maxBindingBytes: 1) }
    }

    func testDamagedCheckpoints() async throws {
        try await withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("model")
            try FileManager.default.copyItem(at: trainedModel, to: copy)
            let file = copy.appendingPathComponent("model.safetensors")
            let weights = try Data(contentsOf: file)
            for damaged in [weights.prefix(weights.count / 2), weights.prefix(7), Data("[1, 2]".utf8), Data()] {
                try Data(damaged).write(to: file)
                await refuses(.badCheckpoint, saying: "model.safetensors") { _ = try await Checkpoint(folder: copy) }
            }
            try weights.write(to: file)
            try Data("{".utf8).write(to: copy.appendingPathComponent("config.json"))
            await refuses(.badCheckpoint, saying: "config.json") { _ = try await Model(folder: copy) }
        }
    }

    func testTokenizersThatDoNotFit() async throws {
        let engine = try await Engine(adapter: adapterName)
        func load(_ tokenizer: Tokenizer) async throws {
            _ = try await Model(folder: trainedModel, tokenizer: tokenizer, engine: engine)
        }
        await refuses(.badCheckpoint) { try await load(.json(Data("{}".utf8))) }
        await refuses(.badCheckpoint) { try await load(.json(Data(), config: Data("{}".utf8))) }
        await refuses(.notFound, saying: "/no/such/file") { try await load(.path("/no/such/file")) }
        try await load(.path(trainedModel.path))
    }

    func testOptionsOutOfRange() async throws {
        let session = try await session(loadTrained())
        let length = try session.length
        let wrong = [
            GenerateOptions(maxBytes: 0), GenerateOptions(maxBytes: -1), GenerateOptions(temperature: -1),
            GenerateOptions(temperature: .nan), GenerateOptions(temperature: .infinity), GenerateOptions(topK: -1),
            GenerateOptions(topP: -0.1), GenerateOptions(topP: 1.5), GenerateOptions(minP: -1),
            GenerateOptions(minP: 2), GenerateOptions(boundaryBias: .nan), GenerateOptions(endBias: .nan),
            GenerateOptions(repetitionPenalty: 0), GenerateOptions(repetitionPenalty: .nan),
            GenerateOptions(repetitionWindow: .min), GenerateOptions(byteBias: [1: .nan]),
            GenerateOptions(stop: [""]), GenerateOptions(stopBytes: [[]]),
        ]
        for options in wrong {
            await refuses(.invalidArgument) { for try await _ in session.generate(options) { XCTFail("\(options)") } }
            await refuses(.invalidArgument) { _ = try await session.generation(options) }
            await refuses(.invalidArgument) { _ = try options.native() }
        }
        await refuses(.invalidArgument) { _ = try await session.ids(from: -1) }
        await refuses(.invalidArgument) { try await session.append(ids: [2, 500]) }
        await refuses(.invalidArgument) { try await session.push(3) }
        let sampler = try Sampler()
        await refuses(.invalidArgument) { _ = try await session.choose(with: sampler, from: [1, 2]) }
        await refuses(.invalidArgument) {
            _ = try await session.choose(with: sampler, from: session.logits(), allowed: [1])
        }
        let after = try session.length
        XCTAssertEqual(after, length)
        let engine = try await Engine(adapter: adapterName)
        await refuses(.invalidArgument) { _ = try await Model(folder: trainedModel, ropeTheta: 0, engine: engine) }
        await refuses(.invalidArgument) { _ = try await Model(folder: trainedModel, ropeScaling: "x", engine: engine) }
    }

    func testASessionWithoutText() async throws {
        let session = try await loadTrained().session(bos: false)
        await refuses(.invalidArgument) { _ = try await session.logits() }
        await refuses(.invalidArgument) { _ = try await session.generation() }
        await refuses(.invalidArgument) { for try await _ in session.generate() {} }
    }

    func testForeignSnapshotsAndCheckpoints() async throws {
        let model = try await loadTrained()
        let other = try await loadTrained(format: .f16)
        let session = try await session(model)
        let snapshot = try await session.snapshot()
        let mark = try await session.checkpoint()
        await refuses(.invalidArgument) { _ = try await other.restore(snapshot) }
        await refuses(.badCheckpoint) { _ = try await model.restore(Data()) }
        await refuses(.badCheckpoint) { _ = try await model.restore(Data("no snapshot".utf8)) }
        await refuses(.badCheckpoint) { _ = try await model.restore(snapshot.prefix(snapshot.count - 1)) }
        var damaged = snapshot
        damaged[damaged.count / 2] ^= 0x40
        await refuses(.badCheckpoint) { _ = try await model.restore(damaged) }
        await refuses(.invalidArgument, saying: "another model") { try await self.session(other).rewind(to: mark) }
    }

    func testBadConstraints() async throws {
        await refuses(.invalidArgument) { _ = try Constraint.regex("(") }
        await refuses(.invalidArgument) { _ = try Constraint.regex("[^\\s\\S]") }
        await refuses(.unsupported) { _ = try Constraint.regex("(a{1000}){1000}") }
        await refuses(.invalidArgument) { _ = try Constraint.jsonSchema("{") }
        await refuses(.unsupported) { _ = try Constraint.jsonSchema(#"{"unevaluatedItems": {"type": "string"}}"#) }
        let closed = try Constraint.regex("a")
        closed.close()
        await refuses(.closed) { _ = try GenerateOptions(constraint: closed).native() }
    }

    func testALostDevice() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let session = try await session(model)
        try engine.destroyDevice()
        await refuses(.deviceLost) { try await session.append("x") }
        await refuses(.deviceLost) { _ = try await session.generation() }
        await refuses(.deviceLost) { for try await _ in session.generate() {} }
        await refuses(.deviceLost) { _ = try await model.session() }
    }

    func testErrorsSayWhatTheyAre() {
        let error = BolmoError(.badCheckpoint, "config.json is damaged")
        XCTAssertEqual("\(error)", "bad checkpoint: config.json is damaged")
        XCTAssertEqual(error.localizedDescription, "config.json is damaged")
        XCTAssertEqual(BolmoError.Kind(status: 8), .busy)
        XCTAssertEqual(BolmoError.Kind(status: 1000), .unknown(1000))
        XCTAssertEqual("\(BolmoError.Kind.unknown(1000))", "status 1000")
    }

    func testALibraryThatIsTooOld() throws {
        guard case .failure(let error) = Library.compare(found: 4, wanted: 5) else { return XCTFail("accepted") }
        XCTAssertEqual(error.kind, .unsupported)
        for part in ["version 4", "version 5", Library.file] {
            XCTAssert(error.message.contains(part), error.message)
        }
        #if os(Linux)
        XCTAssert(Library.file.contains("libbolmo.so"), Library.file)
        #endif
        XCTAssertNoThrow(try Library.compare(found: 5, wanted: 5).get())
        XCTAssertNoThrow(try Library.compare(found: 6, wanted: 5).get())
        XCTAssertNoThrow(try Library.check())
    }
}
