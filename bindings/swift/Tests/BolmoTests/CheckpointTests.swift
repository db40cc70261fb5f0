@testable import Bolmo
import Foundation
import XCTest

/// Opening and loading: from a folder, from data, from memory, through a reader.
final class CheckpointTests: BolmoTestCase {
    func testAFolderSaysWhatItNeeds() async throws {
        let checkpoint = try await Checkpoint(folder: demoModel)
        XCTAssertGreaterThan(checkpoint.info.parameters, 1_000_000)
        XCTAssertEqual(checkpoint.info.logits, ByteID.count)
        XCTAssertEqual(checkpoint.warnings, [])
        XCTAssertGreaterThan(checkpoint.info.workBytes, 0)
        let sizes = try Format.allCases.map { try checkpoint.deviceBytes($0) }
        XCTAssertEqual(sizes, sizes.sorted(by: >))
        let config = try JSONSerialization.jsonObject(with: checkpoint.configJSON) as? [String: Any]
        XCTAssertEqual(config?["hidden_size"] as? Int, checkpoint.info.hiddenSize)
        let engine = try await Engine(adapter: adapterName)
        for format in Format.allCases {
            let updates = Locked<[ProgressUpdate]>([])
            let model = try await Model(folder: demoModel, format: format, engine: engine) { update in
                updates.withLock { $0.append(update) }
            }
            XCTAssertEqual(model.deviceBytes, try checkpoint.deviceBytes(format))
            XCTAssertEqual(model.mappedBytes, try checkpoint.mappedBytes(on: model.engine, format))
            XCTAssertEqual(model.info.parameters, checkpoint.info.parameters)
            XCTAssertEqual(model.info.suffixRows, checkpoint.info.suffixRows)
            XCTAssertEqual(model.info.patchBytes, checkpoint.info.patchBytes)
            XCTAssertLessThanOrEqual(model.info.workBytes, checkpoint.info.workBytes)
            let all = updates.withLock { $0 }
            XCTAssertEqual(all.last?.fraction, 1)
            XCTAssertEqual(all.map(\.done), all.map(\.done).sorted())
        }
        let parts = try await Model(
            folder: demoModel, format: .q8, partFormats: [.local: .f32, .embeddings: .f16], engine: engine)
        XCTAssertGreaterThan(parts.deviceBytes, try checkpoint.deviceBytes(.q8))
        let scaled = try await Model(
            folder: demoModel, ropeTheta: 1e6, ropeScaling: "linear:factor=2", engine: engine)
        XCTAssertNotEqual(scaled.fingerprint, parts.fingerprint)
    }

    private func parts() throws -> (config: Data, tokenizer: Data, weights: Data) {
        func file(_ name: String) throws -> Data { try Data(contentsOf: trainedModel.appendingPathComponent(name)) }
        return try (file("config.json"), file("tokenizer.json"), file("model.safetensors"))
    }

    func testEverySourceGivesTheSameModel() async throws {
        let engine = try await Engine(adapter: adapterName)
        let expected = try await Model(folder: trainedModel, engine: engine)
        let (config, tokenizer, weights) = try parts()
        let released = Locked(0)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: weights.count, alignment: 16)
        weights.copyBytes(to: memory)
        let address = UInt(bitPattern: memory.baseAddress)
        let reads = Locked(0)
        let sources: [WeightFile] = [
            .data("weights", weights),
            // A slice, whose indices don't begin with 0.
            .data("weights", (Data(count: 5) + weights)[5...]),
            .memory("weights", UnsafeRawBufferPointer(memory)) {
                released.withLock { $0 += 1 }
                UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
            },
            .reader("weights", size: UInt64(weights.count)) { offset, buffer in
                reads.withLock { $0 += 1 }
                let part = weights[Int(offset)...].prefix(min(buffer.count, 10_000))
                buffer.copyBytes(from: part)
                return part.count
            },
        ]
        for (i, source) in sources.enumerated() {
            let checkpoint = try await Checkpoint(config: config, tokenizer: tokenizer, weights: [source])
            let model = try await Model(checkpoint: checkpoint, engine: engine)
            XCTAssertEqual(model.fingerprint, expected.fingerprint, "source \(i)")
            let found = try await session(model).generation(GenerateOptions(maxBytes: 10))
            let wanted = try await session(expected).generation(GenerateOptions(maxBytes: 10))
            XCTAssertEqual(found, wanted)
        }
        let free = await eventually { released.withLock { $0 } == 1 }
        XCTAssert(free, "the memory was not released")
        XCTAssertGreaterThan(reads.withLock { $0 }, 10)
    }

    func testWhatAReaderThrowsLeavesTheCall() async throws {
        struct Gone: Error {}
        let (config, tokenizer, weights) = try parts()
        let engine = try await Engine(adapter: adapterName)
        for failsAt in [0, 100_000] {
            let file = WeightFile.reader("weights", size: UInt64(weights.count)) { offset, buffer in
                if Int(offset) >= failsAt { throw Gone() }
                let part = weights[Int(offset)...].prefix(buffer.count)
                buffer.copyBytes(from: part)
                return part.count
            }
            do {
                let checkpoint = try await Checkpoint(config: config, tokenizer: tokenizer, weights: [file])
                _ = try await Model(checkpoint: checkpoint, engine: engine)
                XCTFail("loaded")
            } catch is Gone {}
        }
        let wrong = WeightFile.reader("weights", size: UInt64(weights.count)) { _, buffer in buffer.count + 1 }
        await refuses(.io, saying: "weights") { _ = try await Checkpoint(config: config, weights: [wrong]) }
        await refuses(.badCheckpoint) { _ = try await Checkpoint(config: Data("{}".utf8), weights: []) }
        let none = try await Checkpoint(config: config, weights: [.data("weights", weights)])
        await refuses(.invalidArgument, saying: "tokenizer.json") {
            _ = try await Model(checkpoint: none, engine: engine)
        }
    }

    func testMemoryIsReleasedOnceWhateverFails() async throws {
        let (config, tokenizer, weights) = try parts()
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: weights.count, alignment: 16)
        defer { memory.deallocate() }
        weights.copyBytes(to: memory)
        let released = Locked<[Int]>([])
        func file(_ number: Int) -> WeightFile {
            .memory("weights \(number)", UnsafeRawBufferPointer(memory)) { released.withLock { $0.append(number) } }
        }
        func isReleased(_ numbers: [Int]) async {
            let all = await eventually { released.withLock { $0.count } >= numbers.count }
            XCTAssert(all, "released: \(released.withLock { $0 })")
            XCTAssertEqual(released.exchange([]).sorted(), numbers)
        }
        // Before the first one is added.
        let files = [file(0), file(1)]
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            _ = try await Checkpoint(config: config, tokenizer: tokenizer, weights: files)
        }
        task.cancel()
        do {
            try await task.value
            XCTFail("opened")
        } catch is CancellationError {}
        await isReleased([0, 1])
        // While they are added, and when all are.
        let none = WeightFile.memory("", UnsafeRawBufferPointer(start: nil, count: 0)) {
            released.withLock { $0.append(9) }
        }
        for config in [config, Data(), Data("{}".utf8)] {
            let kind = try await errorKind {
                try await Checkpoint(config: config, tokenizer: Data(), weights: [file(0), none, file(2)])
            }
            XCTAssertNotNil(kind)
            await isReleased([0, 2, 9])
        }
        let checkpoint = try await Checkpoint(config: config, tokenizer: tokenizer, weights: [file(0)])
        XCTAssertEqual(released.withLock { $0 }, [])
        checkpoint.close()
        await isReleased([0])
    }

    /// Two loads that read the same file at once, and fail: both have the reader's error.
    func testReadersFailInSeveralLoads() async throws {
        struct Gone: Error {}
        let (config, tokenizer, weights) = try parts()
        let engine = try await Engine(adapter: adapterName)
        let loads = Locked(0)
        let arrived = Locked(0)
        let file = WeightFile.reader("weights", size: UInt64(weights.count)) { offset, buffer in
            if loads.withLock({ $0 }) > 0 {
                // Both have come before one of them fails.
                arrived.withLock { $0 += 1 }
                for _ in 0..<5000 where arrived.withLock({ $0 }) % 2 == 1 { usleep(1000) }
                throw Gone()
            }
            let part = weights[Int(offset)...].prefix(buffer.count)
            buffer.copyBytes(from: part)
            return part.count
        }
        let checkpoint = try await Checkpoint(config: config, tokenizer: tokenizer, weights: [file])
        _ = loads.exchange(2)
        for _ in 0..<10 {
            let loading = (0..<2).map { _ in Task { try await Model(checkpoint: checkpoint, engine: engine) } }
            for load in loading {
                do {
                    _ = try await load.value
                    XCTFail("loaded")
                } catch is Gone {}
            }
        }
    }
}
