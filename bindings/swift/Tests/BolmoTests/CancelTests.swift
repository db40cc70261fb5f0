@testable import Bolmo
import Foundation
import XCTest

/// Every way to leave a call stops the native side soon, and leaves the session usable.
///
/// "Soon" is one submission to the device: 100 ms on the demo model, or two chunks of a prefill where these take
/// longer, as on a busy machine.
final class CancelTests: BolmoTestCase {
    private static let line = "Mia went to the river and saw a boat. "
    private let longText = String(repeating: line, count: 6000)

    /// A session on the demo model, and the time within which it must be idle after a cancellation.
    private func prepare() async throws -> (Session, Double) {
        let session = try await load(demoModel).session()
        let times = Times()
        try await session.append(String(repeating: Self.line, count: 100)) { _ in times.note() }
        return (session, max(100 * slowFactor, 2 * times.longest))
    }

    private final class Times: Sendable {
        private let state = Locked((last: milliseconds(), longest: 0.0))
        var longest: Double { state.withLock { $0.longest } }
        func note() {
            state.withLock {
                let now = milliseconds()
                $0 = (now, max($0.longest, now - $0.last))
            }
        }
    }

    /// Measures how long the session's next call waits, and uses the session.
    private func checkIdle(_ session: Session, within bound: Double, after what: String) async throws {
        let begin = milliseconds()
        let length = try await session.ids().count
        let took = milliseconds() - begin
        print("\(what): idle after \(String(format: "%.1f", took)) ms (at most \(Int(bound)))")
        XCTAssertLessThanOrEqual(took, bound, what)
        try await session.append("Then ")
        let more = try await session.generation(GenerateOptions(maxBytes: 8, endBias: -1000))
        XCTAssertEqual(more.bytes.count, 8, what)
        let end = try session.length
        XCTAssertEqual(end, length + 5 + 8, what)
    }

    private let endless = GenerateOptions(maxBytes: 100_000, endBias: -1000)

    // MARK: Prefill

    func testTaskCancelStopsAPrefill() async throws {
        let (session, bound) = try await prepare()
        let before = try session.length
        for delay in [30, 90] {
            let begun = XCTestExpectation(description: "the first chunk")
            begun.assertForOverFulfill = false
            let task = Task { [longText] in
                try await session.append(longText) { _ in begun.fulfill() }
            }
            await fulfillment(of: [begun], timeout: 60 * slowFactor)
            try await Task.sleep(for: .milliseconds(delay))
            task.cancel()
            let asked = milliseconds()
            do {
                try await task.value
                XCTFail("the text was appended before it was cancelled")
            } catch is CancellationError {}
            let took = milliseconds() - asked
            print("Task.cancel in a prefill: ended after \(String(format: "%.1f", took)) ms (at most \(Int(bound)))")
            XCTAssertLessThanOrEqual(took, bound)
            try await checkIdle(session, within: bound, after: "Task.cancel in a prefill")
        }
        let length = try session.length
        XCTAssertGreaterThan(length, before)
        XCTAssertLessThan(length, longText.utf8.count)
    }

    func testCancelOfTheSessionStopsAPrefill() async throws {
        let (session, bound) = try await prepare()
        let begun = XCTestExpectation(description: "the first chunk")
        begun.assertForOverFulfill = false
        let appending = Task { [longText] in try await session.append(longText) { _ in begun.fulfill() } }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        let asked = milliseconds()
        session.cancel()
        await refuses(.cancelled) { try await appending.value }
        XCTAssertLessThanOrEqual(milliseconds() - asked, bound)
        try await checkIdle(session, within: bound, after: "cancel() in a prefill")
    }

    func testATimeoutStopsAPrefill() async throws {
        let (session, bound) = try await prepare()
        let text = longText
        let began = milliseconds()
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await session.append(text) }
                group.addTask {
                    try await Task.sleep(for: .milliseconds(80))
                    throw CancellationError()
                }
                defer { group.cancelAll() }
                try await group.next()
            }
            XCTFail("no timeout")
        } catch is CancellationError {
            XCTAssertLessThanOrEqual(milliseconds() - began, 80 + 50 * slowFactor + bound)
        }
        try await checkIdle(session, within: bound, after: "a timeout in a prefill")
    }

    func testACancelledTaskBeginsNothing() async throws {
        let (session, bound) = try await prepare()
        let length = try session.length
        let task = Task { [endless] in
            while !Task.isCancelled { await Task.yield() }
            do {
                try await session.append("lost")
                XCTFail("appended")
            } catch is CancellationError {}
            for try await _ in session.generate(endless) { XCTFail("generated") }
        }
        task.cancel()
        try await task.value
        let after = try session.length
        XCTAssertEqual(after, length)
        try await checkIdle(session, within: bound, after: "a task that was cancelled before")
    }

    // MARK: Generation

    func testTaskCancelStopsAGeneration() async throws {
        let (session, bound) = try await prepare()
        for wait in [0, 50] {
            let begun = XCTestExpectation(description: "a piece")
            begun.assertForOverFulfill = false
            let task = Task { [endless] in
                var pieces = 0
                for try await _ in session.generate(endless) {
                    pieces += 1
                    begun.fulfill()
                }
                XCTAssert(Task.isCancelled)
                return pieces
            }
            await fulfillment(of: [begun], timeout: 60 * slowFactor)
            try await Task.sleep(for: .milliseconds(wait))
            task.cancel()
            let asked = milliseconds()
            let pieces = try await task.value
            XCTAssertGreaterThan(pieces, 0)
            XCTAssertLessThanOrEqual(milliseconds() - asked, bound)
            try await checkIdle(session, within: bound, after: "Task.cancel in a generation")
            // The last generation is the one of the check.
            let last = await session.lastGeneration
            XCTAssertEqual(last?.stop, .budget)
        }
    }

    /// Right after a loop, and not only after the next call.
    func testTheLastGenerationIsThatOfTheLoop() async throws {
        let session = try await session(loadTrained())
        for wanted in 1...20 {
            var received: [UInt8] = []
            for try await piece in session.generate(maxBytes: 1000, endBias: -1000) {
                received += piece.bytes
                if received.count >= wanted { break }
            }
            let last = await session.lastGeneration
            XCTAssertEqual(last?.stop, .cancelled)
            XCTAssertEqual(last?.bytes, received)
        }
        // While nobody cancels a generation, nobody waits for it either.
        let stream = session.generate(maxBytes: 1000, endBias: -1000)
        var pieces = stream.makeAsyncIterator()
        let piece = try await pieces.next()
        XCTAssertNotNil(piece)
        let before = await session.lastGeneration
        XCTAssertEqual(before?.stop, .cancelled)
        session.cancel()
        let after = await session.lastGeneration
        XCTAssertNotEqual(before, after)
    }

    func testBreakStopsAGenerationWhereTheLoopWasLeft() async throws {
        let (session, bound) = try await prepare()
        for count in 1...3 {
            let before = try session.length
            var collected = Collected()
            for try await piece in session.generate(endless) {
                collected.add(piece)
                if collected.pieces == count { break }
            }
            let begin = milliseconds()
            let held = try await session.ids(from: before)
            XCTAssertLessThanOrEqual(milliseconds() - begin, bound)
            XCTAssertEqual(held, collected.ids, "the session holds what the loop has received")
            let last = await session.lastGeneration
            XCTAssertEqual(last?.stop, .cancelled)
            XCTAssertEqual(last?.bytes, collected.bytes)
            try await checkIdle(session, within: bound, after: "break")
        }
    }

    func testAnErrorInTheLoopStopsAGeneration() async throws {
        struct Enough: Error {}
        let (session, bound) = try await prepare()
        do {
            for try await _ in session.generate(endless) { throw Enough() }
            XCTFail("no piece")
        } catch is Enough {}
        try await checkIdle(session, within: bound, after: "an error in the loop")
    }

    func testDroppingTheIteratorStopsAGeneration() async throws {
        let (session, bound) = try await prepare()
        func readOne() async throws {
            var iterator = session.generate(endless).makeAsyncIterator()
            let piece = try await iterator.next()
            XCTAssertNotNil(piece)
        }
        try await readOne()
        try await checkIdle(session, within: bound, after: "dropping the iterator")
        // A stream that nobody reads never begins.
        let length = try session.length
        _ = session.generate(endless)
        let after = try await session.ids().count
        XCTAssertEqual(after, length)
    }

    func testCancelOfTheSessionEndsTheStream() async throws {
        let (session, bound) = try await prepare()
        var pieces = 0
        for try await _ in session.generate(endless) {
            pieces += 1
            if pieces == 2 { session.cancel() }
        }
        let last = await session.lastGeneration
        XCTAssertEqual(last?.stop, .cancelled)
        XCTAssertLessThanOrEqual(pieces, 3)
        try await checkIdle(session, within: bound, after: "cancel() in a generation")
    }

    func testCancellationOfAWholeGenerationKeepsItsBytes() async throws {
        let (session, bound) = try await prepare()
        let begun = XCTestExpectation(description: "a piece")
        begun.assertForOverFulfill = false
        let task = Task { [endless] in
            try await session.generation(endless) { _ in
                begun.fulfill()
                return true
            }
        }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        task.cancel()
        let asked = milliseconds()
        let generation = try await task.value
        XCTAssertLessThanOrEqual(milliseconds() - asked, bound)
        XCTAssertEqual(generation.stop, .cancelled)
        XCTAssertGreaterThan(generation.bytes.count, 0)
        try await checkIdle(session, within: bound, after: "Task.cancel in a whole generation")
        // The callback ends it, too.
        let stopped = try await session.generation(endless) { _ in false }
        XCTAssertEqual(stopped.stop, .cancelled)
    }

    func testALateCancellationDoesNotHitTheNextCall() async throws {
        let session = try await session(loadTrained())
        for _ in 0..<100 {
            let task = Task { try await session.append("x") }
            await Task.yield()
            task.cancel()
            _ = await task.result
            session.cancel()
            try await session.append("y")
            var pieces = 0
            for try await _ in session.generate(maxBytes: 4, endBias: -1000) { pieces += 1 }
            XCTAssertGreaterThan(pieces, 0)
        }
    }

    func testLoadingAndScoringAreCancelled() async throws {
        let engine = try await Engine(adapter: adapterName)
        let begun = XCTestExpectation(description: "progress")
        begun.assertForOverFulfill = false
        let loading = Task {
            try await Model(folder: demoModel, engine: engine) { update in
                if update.done < update.total / 2 {
                    begun.fulfill()
                    Thread.sleep(forTimeInterval: 0.05)
                }
            }
        }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        loading.cancel()
        do {
            _ = try await loading.value
            XCTFail("loaded")
        } catch is CancellationError {}
        let model = try await Model(folder: demoModel, engine: engine)
        let scoring = Task { [longText] in try await model.score(longText) }
        try await Task.sleep(for: .milliseconds(50))
        scoring.cancel()
        do {
            _ = try await scoring.value
            XCTFail("scored")
        } catch is CancellationError {}
    }

    /// Bytes that were held back for a stop string belong to the text of a generation that is cancelled.
    func testCancelGivesTheStreamWhatWasHeldBack() async throws {
        let session = try await session(loadTrained())
        let options = GenerateOptions(
            maxBytes: 200, stop: ["abababx"], constraint: try Constraint.regex("(ab){90}"), boundaryBias: 1000)
        var collected = Collected()
        for try await piece in session.generate(options) {
            collected.add(piece)
            if collected.pieces == 2 { session.cancel() }
        }
        let last = await session.lastGeneration
        let generation = try XCTUnwrap(last)
        XCTAssertEqual(generation.stop, .cancelled)
        XCTAssertGreaterThan(generation.bytes.count, 4)
        XCTAssertEqual(collected.bytes, generation.bytes)
        XCTAssertEqual(collected.ids, Array(generation.ids.prefix(collected.ids.count)))
    }

    func testAStreamInAVariableWaitsUntilThatIsGone() async throws {
        let session = try await session(loadTrained())
        func readOne() async throws {
            let stream = session.generate(endless)
            for try await _ in stream { break }
            await refuses(.busy, saying: "the loop and the stream") { try await session.append("x") }
            withExtendedLifetime(stream) {}
        }
        try await readOne()
        try await session.append("x")
    }
}
