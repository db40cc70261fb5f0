import Bolmo
import Foundation
import XCTest

/// Closing at any time, and not at all.
final class CloseTests: BolmoTestCase {
    private let endless = GenerateOptions(maxBytes: 100_000, endBias: -1000)

    func testClosingTwice() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let session = try await session(model)
        let checkpoint = try await session.checkpoint()
        let constraint = try Constraint.regex("a+")
        let matcher = try constraint.matcher()
        let sampler = try Sampler()
        let score = try await model.score("abc")
        let files = try await Checkpoint(folder: trainedModel)
        for _ in 0..<2 {
            session.close()
            checkpoint.close()
            constraint.close()
            matcher.close()
            sampler.close()
            score.close()
            files.close()
            model.close()
            engine.close()
        }
        XCTAssertEqual(handleCount, 0)
        await refuses(.closed, saying: "session") { try await session.append("x") }
        await refuses(.closed, saying: "session") { _ = try session.length }
        await refuses(.closed, saying: "session") { _ = try await session.generation() }
        await refuses(.closed, saying: "session") { for try await _ in session.generate() {} }
        await refuses(.closed, saying: "model") { _ = try await model.session() }
        await refuses(.closed, saying: "model") { _ = try await model.score("x") }
        await refuses(.closed, saying: "model") { _ = try await model.restore(Data()) }
        await refuses(.closed, saying: "engine") { _ = try await Model(folder: trainedModel, engine: engine) }
        await refuses(.closed, saying: "constraint") { _ = try constraint.matches("a") }
        await refuses(.closed, saying: "matcher") { _ = try matcher.allowed() }
        await refuses(.closed, saying: "score") { _ = try score.tensor(.logits) }
        await refuses(.closed, saying: "checkpoint") { _ = try files.deviceBytes() }
        session.cancel()
    }

    func testClosingTheModelLeavesItsSessions() async throws {
        let model = try await loadTrained()
        let session = try await session(model)
        model.close()
        let generation = try await session.generation(GenerateOptions(maxBytes: 5, endBias: -1000))
        XCTAssertEqual(generation.bytes.count, 5)
        session.close()
    }

    func testClosingWithinTheLoop() async throws {
        let session = try await session(loadTrained())
        var pieces = 0
        await refuses(.closed) {
            for try await _ in session.generate(endless) {
                pieces += 1
                if pieces == 2 { session.close() }
            }
        }
        XCTAssertGreaterThanOrEqual(pieces, 2)
        await refuses(.closed) { try await session.append("x") }
    }

    func testClosingWithinCallbacks() async throws {
        let model = try await loadTrained()
        let first = try await session(model)
        // The generation ends and keeps its bytes.
        let generation = try await first.generation(endless) { _ in
            first.close()
            return true
        }
        XCTAssertEqual(generation.stop, .cancelled)
        let second = try await session(model)
        await refuses(.closed) {
            try await second.append(String(repeating: "a b c d ", count: 5000)) { _ in second.close() }
        }
        let third = try await Model(folder: trainedModel, engine: Engine(adapter: adapterName)) { _ in model.close() }
        third.close()
    }

    func testClosingFromAnotherTask() async throws {
        let model = try await load(demoModel)
        for delay in [5, 20, 60] {
            let session = try await session(model)
            let task = Task { [endless] in for try await _ in session.generate(endless) {} }
            try await Task.sleep(for: .milliseconds(delay))
            session.close()
            await refuses(.closed) { try await task.value }
            let other = try await self.session(model)
            let appending = Task { try await other.append(String(repeating: "a b c d ", count: 50000)) }
            try await Task.sleep(for: .milliseconds(delay))
            other.close()
            await refuses(.closed) { try await appending.value }
        }
    }

    func testClosingWhileTheGenerationWaitsForItsReader() async throws {
        let session = try await session(loadTrained())
        var iterator = session.generate(endless).makeAsyncIterator()
        _ = try await iterator.next()
        try await Task.sleep(for: .milliseconds(50))
        session.close()
        await refuses(.closed) { while try await iterator.next() != nil {} }
        let end = try await iterator.next()
        XCTAssertNil(end)
    }

    func testNothingIsClosed() async throws {
        do {
            let session = try await session(loadTrained())
            let checkpoint = try await session.checkpoint()
            let clone = try await session.clone()
            try await clone.rewind(to: checkpoint)
            for try await _ in clone.generate(endless) { break }
            _ = try Constraint.regex("a").matcher().clone()
            XCTAssertGreaterThan(handleCount, 0)
        }
        let freed = await eventually { handleCount == 0 }
        XCTAssert(freed, "\(handleCount) native objects are left")
    }

    func testTheSessionLivesAsLongAsItsStream() async throws {
        let stream = try await session(loadTrained()).generate(maxBytes: 20, endBias: -1000)
        let collected = try await collect(stream)
        XCTAssertEqual(collected.bytes.count, 20)
    }

    func testTwoHundredGenerationsLeaveNothing() async throws {
        let model = try await loadTrained()
        func generate() async throws {
            let session = try await session(model)
            for try await piece in session.generate(maxBytes: 12, temperature: 0.5) where piece.endsPatch {}
            _ = try await session.snapshot()
        }
        for _ in 0..<50 { try await generate() }
        let handles = handleCount
        let resident = residentBytes()
        for _ in 0..<200 { try await generate() }
        let flat = await eventually { handleCount <= handles }
        XCTAssert(flat, "\(handleCount) native objects, \(handles) before")
        let growth = residentBytes() - resident
        print("200 generations: \(growth / 1024) KiB more resident memory")
        XCTAssertLessThan(Double(growth), Double(8 << 20) * slowFactor)
    }

    private func residentBytes() -> Int {
        #if os(Linux)
        let pages = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")[1]
        return (pages.flatMap { Int($0) } ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
        #else
        return 0
        #endif
    }
}

