@testable import Bolmo
import Foundation
import XCTest

/// Several sessions generate together what each would generate alone.
final class BatchTests: BolmoTestCase {
    private let prompts = ["def ", "class A:\n", "import os\n", "# a"]
    private let options = [
        GenerateOptions(maxBytes: 24, endBias: -1000),
        GenerateOptions(maxBytes: 40, temperature: 0.8, seed: 3, endBias: -1000),
        GenerateOptions(maxBytes: 9, boundaryBias: -1000, endBias: -1000),
        GenerateOptions(maxBytes: 30, endBias: -1000),
    ]

    private func sessions(_ model: Model) async throws -> [Session] {
        var sessions: [Session] = []
        for prompt in prompts { sessions.append(try await session(model, prompt)) }
        return sessions
    }

    private func alone(_ model: Model) async throws -> [Generation] {
        var generations: [Generation] = []
        for (session, options) in zip(try await sessions(model), options) {
            generations.append(try await session.generation(options))
        }
        return generations
    }

    func testAFixedBatch() async throws {
        let model = try await loadTrained()
        let expected = try await alone(model)
        let sessions = try await sessions(model)
        let texts = Locked<[Int: String]>([:])
        let results = try await model.generateBatch(sessions, options: options) { index, piece in
            texts.withLock { $0[index, default: ""] += piece.text }
            return true
        }
        XCTAssertEqual(try results.map { try $0.get() }, expected)
        for (i, expected) in expected.enumerated() { XCTAssertEqual(texts.withLock { $0[i] }, expected.text) }
        for (session, expected) in zip(sessions, expected) {
            let last = await session.lastGeneration
            XCTAssertEqual(last, expected)
        }

        // One set of options for all, and a callback that ends one of them.
        let more = try await model.generateBatch(sessions, options: [GenerateOptions(maxBytes: 20, endBias: -1000)]) {
            index, _ in index != 2
        }
        for (i, result) in more.enumerated() {
            XCTAssertEqual(try result.get().stop, i == 2 ? .cancelled : .budget)
        }
        let none = try await model.generateBatch([])
        XCTAssertEqual(none.count, 0)
    }

    func testOneFailureDoesNotAffectTheOthers() async throws {
        let model = try await loadTrained()
        let sessions = [try await session(model), try await model.session(bos: false), try await session(model)]
        var results = try await model.generateBatch(sessions, options: [GenerateOptions(maxBytes: 5, endBias: -1000)])
        XCTAssertEqual(try results[0].get().bytes.count, 5)
        XCTAssertEqual(try results[2].get().bytes.count, 5)
        await refuses(.invalidArgument, saying: "text") { _ = try results[1].get() }
        // The same session twice.
        results = try await model.generateBatch([sessions[0], sessions[0]])
        _ = try results[0].get()
        await refuses(.busy) { _ = try results[1].get() }
        await refuses(.invalidArgument, saying: "2 options") {
            _ = try await model.generateBatch([sessions[0]], options: [GenerateOptions(), GenerateOptions()])
        }
        sessions[0].close()
        await refuses(.closed) { _ = try await model.generateBatch(sessions) }
        let after = try await sessions[2].generation(GenerateOptions(maxBytes: 3, endBias: -1000))
        XCTAssertEqual(after.bytes.count, 3)
    }

    func testCancellingAFixedBatch() async throws {
        let model = try await load(demoModel)
        let sessions = [try await session(model), try await session(model)]
        let begun = XCTestExpectation(description: "a piece")
        begun.assertForOverFulfill = false
        let task = Task {
            let endless = GenerateOptions(maxBytes: 100_000, endBias: -1000)
            return try await model.generateBatch(sessions, options: [endless]) { _, _ in
                begun.fulfill()
                return true
            }
        }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        task.cancel()
        let asked = milliseconds()
        for result in try await task.value { XCTAssertEqual(try result.get().stop, .cancelled) }
        let took = milliseconds() - asked
        print("a fixed batch: idle after \(String(format: "%.1f", took)) ms")
        XCTAssertLessThanOrEqual(took, 200 * slowFactor)
        for session in sessions { try await session.append("x") }
    }

    func testSessionsComeAndGo() async throws {
        let model = try await loadTrained()
        let expected = try await alone(model)
        let sessions = try await sessions(model)
        let batch = try Batch()
        var bytes: [Int: [UInt8]] = [:]
        var results: [Int: Generation] = [:]
        for i in 0..<2 {
            let index = try await batch.add(sessions[i], options[i])
            XCTAssertEqual(index, i)
        }
        for try await event in batch.run() {
            switch event {
            case .piece(let index, let piece):
                bytes[index, default: []] += piece.bytes
                if index == 0, bytes[2] == nil, results.isEmpty, bytes[0]?.count ?? 0 < 10 {
                    bytes[2] = []
                    let added = try await batch.add(sessions[2], options[2])
                    XCTAssertEqual(added, 2)
                    await refuses(.busy) { try await sessions[1].append("x") }
                }
            case .ended(let index, let result):
                results[index] = try result.get()
                if index == 2 {
                    // Its session is free at once, and may join again.
                    let length = try await sessions[2].ids().count
                    XCTAssertGreaterThan(length, 9)
                    let added = try await batch.add(sessions[3], options[3])
                    XCTAssertEqual(added, 3)
                }
            }
        }
        XCTAssertEqual(results, Dictionary(uniqueKeysWithValues: expected.enumerated().map { ($0, $1) }))
        for (i, generation) in expected.enumerated() { XCTAssertEqual(bytes[i], generation.bytes) }
        // Nothing to do.
        for try await _ in batch.run() { XCTFail("an event") }
        for session in sessions { try await session.append("x") }
    }

    func testLeavingARun() async throws {
        let model = try await load(demoModel)
        let sessions = [try await session(model), try await session(model)]
        let batch = try Batch()
        for session in sessions { try await batch.add(session, endless) }
        for try await _ in batch.run() { break }
        let left = milliseconds()
        for session in sessions { try await session.append("x") }
        XCTAssertLessThanOrEqual(milliseconds() - left, 300 * slowFactor)
        for session in sessions {
            let last = await session.lastGeneration
            XCTAssertEqual(last?.stop, .cancelled)
        }

        // One of them is cancelled by itself.
        for session in sessions { try await batch.add(session, GenerateOptions(maxBytes: 50, endBias: -1000)) }
        var stops: [Int: StopReason] = [:]
        for try await event in batch.run() {
            switch event {
            case .piece(let index, _): if index == 2 { sessions[0].cancel() }
            case .ended(let index, let result): stops[index] = try result.get().stop
            }
        }
        XCTAssertEqual(stops, [2: .cancelled, 3: .budget])

        // What was added and never ran is unchanged.
        try await batch.add(sessions[0], endless)
        await refuses(.busy) { try await sessions[0].append("x") }
        batch.close()
        batch.close()
        try await sessions[0].append("x")
        await refuses(.closed) { try await batch.add(sessions[0]) }
        await refuses(.closed) { for try await _ in batch.run() {} }
    }

    func testClosingABatchWhileItRuns() async throws {
        let model = try await loadTrained()
        let session = try await session(model)
        let batch = try Batch()
        try await batch.add(session, GenerateOptions(maxBytes: 100_000, endBias: -1000))
        await refuses(.closed) { for try await _ in batch.run() { batch.close() } }
        try await session.append("x")
    }

    private let endless = GenerateOptions(maxBytes: 100_000, endBias: -1000)
    private let short = GenerateOptions(maxBytes: 30, endBias: -1000)

    /// A cancelled member ends when the reader goes on, who therefore must not wait for that.
    func testCallingACancelledMember() async throws {
        let model = try await loadTrained()
        let sessions = [try await session(model), try await session(model)]
        let batch = try Batch()
        try await batch.add(sessions[0], endless)
        try await batch.add(sessions[1], short)
        let (refused, stops) = try await soon {
            var refused: [BolmoError.Kind?] = []
            var stops: [Int: StopReason] = [:]
            for try await event in batch.run() {
                if case .ended(let index, let result) = event { stops[index] = try result.get().stop }
                if !refused.isEmpty { continue }
                sessions[0].cancel()
                refused.append(try await errorKind { try await sessions[0].append("x") })
            }
            return (refused, stops)
        }
        XCTAssertEqual(refused, [.busy])
        XCTAssertEqual(stops, [0: .cancelled, 1: .budget])
        for session in sessions { try await session.append("x") }

        // No run has begun that could end it.
        try await batch.add(sessions[0], endless)
        sessions[0].cancel()
        let kind = try await soon { try await errorKind { try await sessions[0].append("x") } }
        XCTAssertEqual(kind, .busy)
        batch.close()
        try await sessions[0].append("x")
    }

    func testClosingABatchInItsLoopFreesItsSessions() async throws {
        let model = try await loadTrained()
        let sessions = [try await session(model), try await session(model)]
        let batch = try Batch()
        for session in sessions { try await batch.add(session, endless) }
        let kind = try await soon { [short] in
            try await errorKind {
                for try await event in batch.run() {
                    guard case .piece = event else { continue }
                    batch.close()
                    for session in sessions { try await session.append("x") }
                    _ = try await sessions[0].generation(short)
                }
            }
        }
        XCTAssertEqual(kind, .closed)
        for session in sessions { try await session.append("x") }
    }

    /// Whether a run has begun, runs or has just ended when the batch is closed: its sessions are free.
    func testClosingABatchAtAnyTime() async throws {
        let model = try await loadTrained()
        let session = try await session(model)
        let bytes = GenerateOptions(maxBytes: 1, endBias: -1000)
        for delay in 0..<200 {
            let batch = try Batch()
            try await batch.add(session, bytes)
            let begins = Locked(false)
            let running = Task {
                _ = begins.exchange(true)
                return try await errorKind { for try await _ in batch.run() {} }
            }
            while !begins.withLock({ $0 }) { await Task.yield() }
            // Up to a few milliseconds, most of them short: a run begins within microseconds.
            let until = milliseconds() + pow(Double(delay) / 200, 3) * 3
            while milliseconds() < until {}
            batch.close()
            let kind = try await soon { try await running.value }
            XCTAssert(kind == nil || kind == .closed, "\(String(describing: kind))")
            try await soon { try await session.append("x") }
        }
    }

    /// A call that has ended already doesn't end the one after it.
    func testEndingACallTwice() async throws {
        let session = try await session(loadTrained())
        let first = Call(.member)
        let second = Call(.member)
        try await session.gate.begin(first)
        session.gate.end(first)
        try await session.gate.begin(second)
        session.gate.end(first)
        await refuses(.busy, saying: "batch") { try await session.append("x") }
        session.gate.end(second)
        try await session.append("x")
    }

    func testTheNextRunWaitsForOneThatWasLeft() async throws {
        let model = try await loadTrained()
        let sessions = [try await session(model), try await session(model)]
        let batch = try Batch()
        for _ in 0..<10 {
            try await batch.add(sessions[0], endless)
            for try await _ in batch.run() { break }
            // Joins the next run, not the one that ends.
            let added = try await batch.add(sessions[1], short)
            var stops: [Int: StopReason] = [:]
            for try await event in batch.run() {
                if case .ended(let index, let result) = event { stops[index] = try result.get().stop }
            }
            XCTAssertEqual(stops, [added: .budget])
            try await batch.add(sessions[0], endless)
            for try await _ in batch.run() { break }
            for try await _ in batch.run() { XCTFail("an event") }
        }
    }
}
