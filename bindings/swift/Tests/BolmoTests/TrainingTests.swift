@testable import Bolmo
import Foundation
import XCTest

/// Training and merging, in small.
final class TrainingTests: BolmoTestCase {
    private static let sentences = "The cat sat on the mat.\nA dog ran to the door.\n"
    private let text = String(repeating: sentences, count: 60)
    private let config = """
        seed = 7
        [model]
        [data]
        [batch]
        rows = 4
        subwords = 16
        [optimiser]
        steps = 6
        rate = 1e-2
        [every]
        evaluate_batches = 2
        """

    private func trainer(_ engine: Engine, _ folder: URL, resume: Bool = false) async throws -> Trainer {
        try await Trainer(
            engine: engine, kind: .subword, config: config,
            overrides: [
                "out=\(folder.appendingPathComponent("run").path)",
                "data.tokenizer=\(repository.appendingPathComponent("tests/golden/infer/subword_tokenizer").path)",
                "model.new={ hidden_size = 32, layers = 1, heads = 2, intermediate_size = 64 }",
            ], texts: [text], heldOut: [Self.sentences], resume: resume)
    }

    func testTraining() async throws {
        let engine = try await Engine(adapter: adapterName)
        try await withTemporaryFolder { folder in
            let trainer = try await trainer(engine, folder)
            let losses = Locked<[String]>([])
            try await trainer.step(2) { metrics in
                losses.withLock { $0.append(metrics) }
                return true
            }
            for metrics in losses.withLock({ $0 }) {
                XCTAssertNotNil(try JSONSerialization.jsonObject(with: Data(metrics.utf8)) as? [String: Any])
            }
            XCTAssertEqual(losses.withLock { $0.count }, 2)
            await refuses(.cancelled) { try await trainer.step(2) { _ in false } }
            await refuses(.invalidArgument, saying: "count") { try await trainer.step(-1) }
            let steps = try await trainer.steps
            XCTAssertEqual(steps, 3)
            let evaluated = try await trainer.evaluate()
            XCTAssertNotNil(try JSONSerialization.jsonObject(with: Data(evaluated.utf8)) as? [String: Any])
            try await trainer.save()
            await refuses(.busy) { _ = try await self.trainer(engine, folder, resume: true) }
            let cancelled = Task {
                try await trainer.step(100) { _ in
                    withUnsafeCurrentTask { $0?.cancel() }
                    return true
                }
            }
            cancelled.cancel()
            do {
                try await cancelled.value
                XCTFail("trained")
            } catch is CancellationError {}
            trainer.cancel()
            trainer.close()
            trainer.close()
            await refuses(.closed) { try await trainer.step(1) }

            let resumed = try await self.trainer(engine, folder, resume: true)
            let before = try await resumed.steps
            XCTAssertEqual(before, 3)
            try await resumed.step(100)
            let after = try await resumed.steps
            XCTAssertEqual(after, 6)
            let output = folder.appendingPathComponent("exported")
            try await resumed.export(to: output)
            XCTAssert(FileManager.default.fileExists(atPath: output.appendingPathComponent("config.json").path))
            await refuses(.invalidArgument) {
                _ = try await Trainer(engine: engine, kind: .stage1, config: "no such key = 1")
            }
            resumed.close()
            await refuses(.invalidArgument) { _ = try await self.trainer(engine, folder) }
        }
    }

    /// The trained model's own blocks as base, and the same with other norms as what was trained from it.
    func testMerging() async throws {
        try await withTemporaryFolder { folder in
            let base = try subwordModel(folder.appendingPathComponent("base"))
            let post = try subwordModel(folder.appendingPathComponent("post")) { $0 ^= 0x40 }
            let output = folder.appendingPathComponent("merged")
            let updates = Locked(0)
            let report = try await merge(
                bolmo: trainedModel, base: base, postTrained: post, output: output, alpha: 0.5
            ) { _ in updates.withLock { $0 += 1 } }
            let json = try XCTUnwrap(JSONSerialization.jsonObject(with: report) as? [String: Any])
            XCTAssertEqual(json["alpha"] as? Double, 0.5)
            XCTAssertGreaterThan(updates.withLock { $0 }, 0)
            let engine = try await Engine(adapter: adapterName)
            let merged = try await Model(folder: output, engine: engine)
            let original = try await Model(folder: trainedModel, engine: engine)
            XCTAssertNotEqual(merged.fingerprint, original.fingerprint)
            await refuses(.invalidArgument) {
                try await merge(bolmo: trainedModel, base: base, postTrained: post, output: output)
            }
            await refuses(.invalidArgument, saying: "alpha") {
                try await merge(
                    bolmo: trainedModel, base: base, postTrained: post,
                    output: folder.appendingPathComponent("x"), alpha: .nan)
            }
            await refuses(.notFound) {
                try await merge(
                    bolmo: trainedModel, base: folder.appendingPathComponent("none"), postTrained: post,
                    output: folder.appendingPathComponent("x"), embeddings: true)
            }
        }
    }

    /// Writes the trained model's blocks as a subword model, with a change of the final norm's first number.
    private func subwordModel(_ folder: URL, change: (inout UInt8) -> Void = { _ in }) throws -> URL {
        try FileManager.default.copyItem(at: trainedModel, to: folder)
        let config = folder.appendingPathComponent("config.json")
        let text = try String(contentsOf: config, encoding: .utf8)
        try text.replacingOccurrences(of: #""model_type": "bolmo""#, with: #""model_type": "olmo2""#)
            .write(to: config, atomically: true, encoding: .utf8)
        let file = folder.appendingPathComponent("model.safetensors")
        var weights = try Data(contentsOf: file)
        let size = weights.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        let header = try XCTUnwrap(JSONSerialization.jsonObject(with: weights[8..<8 + size]) as? [String: Any])
        let norm = try XCTUnwrap(header["model.norm.weight"] as? [String: Any])
        let offsets = try XCTUnwrap(norm["data_offsets"] as? [Int])
        // The lowest byte but one of a little-endian f32.
        change(&weights[8 + size + offsets[0] + 2])
        // The subword model's embeddings are what the suffix table was made from; the C tests rename it alike.
        let old = #""model.local_encoder.subword_embedding.weight""#
        let new = #""model.embed_tokens.weight""#.padding(toLength: old.count, withPad: " ", startingAt: 0)
        if let place = weights.range(of: Data(old.utf8)) { weights.replaceSubrange(place, with: Data(new.utf8)) }
        try weights.write(to: file)
        return folder
    }
}
