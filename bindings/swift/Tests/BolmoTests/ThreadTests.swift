@testable import Bolmo
import Foundation
import XCTest

/// Many tasks, one model.
final class ThreadTests: BolmoTestCase {
    func testEightTasksOverOneModel() async throws {
        let model = try await loadTrained()
        let expected = try await collect(session(model).generate(maxBytes: 40, endBias: -1000))
        let found = try await withThrowingTaskGroup(of: Collected.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let session = try await model.session()
                    try await session.append("def ")
                    return try await collect(session.generate(maxBytes: 40, endBias: -1000))
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        XCTAssertEqual(found, Array(repeating: expected, count: 8))
    }

    /// More native calls at once than there are threads for tasks: these must still run.
    func testNativeCallsDoNotBlockOtherTasks() async throws {
        let model = try await load(demoModel)
        let text = String(repeating: "a b c d ", count: 20000)
        let count = 2 * ProcessInfo.processInfo.activeProcessorCount + 2
        var sessions: [Session] = []
        for _ in 0..<count { sessions.append(try await model.session()) }
        let begun = XCTestExpectation(description: "all calls are running")
        begun.expectedFulfillmentCount = count
        let calls = sessions.map { session in
            let first = Locked(true)
            return Task {
                try await session.append(text) { _ in if first.exchange(false) { begun.fulfill() } }
            }
        }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        // All of the pool's threads would be blocked here if calls ran on them.
        for _ in 0..<10 { await Task { await Task.yield() }.value }
        for call in calls { call.cancel() }
        for call in calls { _ = await call.result }
    }

    func testCallsOfOneSessionWaitForEachOther() async throws {
        let session = try await session(loadTrained())
        let before = try session.length
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { for _ in 0..<10 { try await session.append("ab") } }
            }
            try await group.waitForAll()
        }
        let length = try session.length
        XCTAssertEqual(length, before + 160)
    }

    func testACancelledCallDoesNotWaitForTheOthers() async throws {
        let session = try await load(demoModel).session()
        let text = String(repeating: "a b c d ", count: 20000)
        let begun = XCTestExpectation(description: "the first chunk")
        begun.assertForOverFulfill = false
        let first = Task { try await session.append(text) { _ in begun.fulfill() } }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        let second = Task { try await session.append("x") }
        try await Task.sleep(for: .milliseconds(30))
        second.cancel()
        do {
            try await second.value
            XCTFail("appended")
        } catch is CancellationError {}
        XCTAssertEqual(first.isCancelled, false)
        first.cancel()
        _ = await first.result
    }

    func testAStreamMakesItsSessionBusy() async throws {
        let model = try await loadTrained()
        let session = try await session(model)
        var checked = false
        for try await _ in session.generate(maxBytes: 20, endBias: -1000) where !checked {
            checked = true
            await refuses(.busy, saying: "stream") { try await session.append("x") }
            await refuses(.busy) { for try await _ in session.generate() {} }
            await refuses(.busy) { _ = try await session.clone() }
        }
        XCTAssert(checked)
        try await session.append("x")
    }

    func testASlowReaderSlowsTheGenerationDown() async throws {
        let session = try await session(loadTrained())
        let before = try session.length
        var iterator = session.generate(maxBytes: 1000, endBias: -1000).makeAsyncIterator()
        let piece = try await iterator.next()
        try await Task.sleep(for: .milliseconds(200))
        session.cancel()
        while try await iterator.next() != nil {}
        let held = try await session.ids(from: before)
        XCTAssertEqual(held, piece?.ids)
    }

    func testTwoReadersOfOneStream() async throws {
        let session = try await session(loadTrained())
        let stream = session.generate(maxBytes: 60, endBias: -1000)
        // Each element goes to one of them; a reader that comes while the other one waits gets an error.
        let counts = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<2 {
                group.addTask {
                    var bytes = 0
                    var iterator = stream.makeAsyncIterator()
                    while true {
                        do {
                            guard let piece = try await iterator.next() else { return bytes }
                            bytes += piece.bytes.count
                        } catch let error as BolmoError where error.kind == .busy {
                            await Task.yield()
                        } catch {
                            XCTFail("\(error)")
                            return bytes
                        }
                    }
                }
            }
            return await group.reduce(0, +)
        }
        XCTAssertEqual(counts, 60)
    }

    func testALoopMayBeIsolatedToTheSession() async throws {
        let session = try await session(loadTrained())
        let text = try await session.story()
        XCTAssertEqual(text.utf8.count, 20)
    }
}

extension Session {
    fileprivate func story() async throws -> String {
        var text = ""
        for try await piece in generate(maxBytes: 20, endBias: -1000) {
            preconditionIsolated()
            text += piece.text
        }
        return text
    }
}
