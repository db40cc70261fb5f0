@testable import Bolmo
import Foundation
import XCTest

/// Apps in the background: nothing is submitted, and everything goes on afterwards.
final class SuspendTests: BolmoTestCase {
    private let options = GenerateOptions(maxBytes: 60, endBias: -1000)

    func testAGenerationPausesAndGoesOn() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let expected = try await session(model).generation(options)
        let session = try await session(model)
        let other = try await self.session(model)
        let length = try other.length
        let pieces = Locked(0)
        let task = Task { [options] in
            var bytes: [UInt8] = []
            for try await piece in session.generate(options) {
                bytes += piece.bytes
                pieces.withLock { $0 += 1 }
            }
            return bytes
        }
        let started = await eventually { pieces.withLock { $0 } > 1 }
        XCTAssert(started)
        try await engine.suspend()
        try await engine.suspend()
        // What has been produced may still arrive; then nothing does.
        try await Task.sleep(for: .milliseconds(50))
        let before = pieces.withLock { $0 }
        try await Task.sleep(for: .milliseconds(100))
        XCTAssertEqual(pieces.withLock { $0 }, before)
        await refuses(.suspended) { try await other.append("x") }
        await refuses(.suspended) { _ = try await other.generation() }
        XCTAssertEqual(try other.length, length)
        try engine.resume()
        try engine.resume()
        let bytes = try await task.value
        XCTAssertEqual(bytes, expected.bytes)
        try await other.append("x")
    }

    func testCancellingWhileSuspended() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: demoModel, engine: engine)
        let session = try await model.session()
        let begun = XCTestExpectation(description: "the first chunk")
        begun.assertForOverFulfill = false
        let task = Task {
            try await session.append(String(repeating: "a b c d ", count: 50_000)) { _ in begun.fulfill() }
        }
        await fulfillment(of: [begun], timeout: 60 * slowFactor)
        try await engine.suspend()
        task.cancel()
        do {
            try await task.value
            XCTFail("appended")
        } catch is CancellationError {}
        try engine.resume()
        try await session.append("x")
    }

    func testLowMemory() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let expected = try await session(model).generation(options)
        let session = try await session(model)
        let released = try await engine.trim()
        XCTAssertGreaterThan(released, 0)
        let generation = try await session.generation(options)
        XCTAssertEqual(generation, expected)
    }

    func testADeviceThatIsLostMeanwhile() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let session = try await session(model)
        let snapshot = try await session.snapshot()
        let expected = try await session.generation(options)
        try await engine.suspend()
        try engine.destroyDevice()
        await refuses(.deviceLost) { try engine.resume() }
        await refuses(.deviceLost) { _ = try await session.generation() }
        let again = try await loadTrained().restore(snapshot)
        let generation = try await again.generation(options)
        XCTAssertEqual(generation, expected)
    }

    func testTheKernelCache() async throws {
        try await withTemporaryFolder { folder in
            let cache = folder.appendingPathComponent("kernels")
            for _ in 0..<2 {
                let engine = try await Engine(adapter: adapterName, kernelCache: cache)
                let model = try await Model(folder: trainedModel, engine: engine)
                let generation = try await session(model).generation(options)
                XCTAssertEqual(generation.bytes.count, 60)
                // The CPU device compiles nothing. Vulkan drivers give their kernels away; others may not.
                func files() -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: cache.path)) ?? [] }
                if engine.adapter.kind == "cpu" { XCTAssertEqual(files(), []) }
                if engine.adapter.backend == "vulkan" {
                    let isFilled = await eventually { !files().isEmpty }
                    XCTAssert(isFilled, "the cache of kernels is empty")
                }
            }
        }
        await refuses(.invalidArgument) {
            _ = try await Engine(adapter: adapterName, kernelCache: XCTUnwrap(URL(string: "https://example.com")))
        }
    }

    func testALowPowerAdapter() async throws {
        let engine = try await Engine(adapter: "low-power")
        XCTAssert(engine.adapter.isUsable)
    }

    func testACancelledTaskSuspendsAndTrims() async throws {
        let engine = try await Engine(adapter: adapterName)
        let session = try await session(Model(folder: trainedModel, engine: engine))
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            try await engine.suspend()
            try await engine.trim()
        }
        task.cancel()
        try await task.value
        await refuses(.suspended) { try await session.append("x") }
        try engine.resume()
        try await session.append("x")
    }

    /// As in the observer of a notification.
    func testSuspendingOnAThread() async throws {
        let engine = try await Engine(adapter: adapterName)
        let session = try await session(Model(folder: trainedModel, engine: engine))
        let failure = await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                continuation.resume(returning: Result { try engine.suspendAndWait() })
            }
        }
        try failure.get()
        await refuses(.suspended) { try await session.append("x") }
        try engine.resume()
        try await session.append("x")
        engine.close()
        XCTAssertThrowsError(try engine.suspendAndWait())
    }

    /// Sessions that begin while the engine is being suspended wait on threads of their own, so that the task that
    /// resumes it can run.
    func testNewSessionsLeaveTheThreadsOfTasks() async throws {
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: trainedModel, engine: engine)
        let isOver = Locked(false)
        let creating = (0..<4 * ProcessInfo.processInfo.activeProcessorCount).map { _ in
            Task {
                while !isOver.withLock({ $0 }) {
                    let kind = try await errorKind { try await model.session() }
                    if kind == .suspended { try await Task.sleep(for: .milliseconds(1)) }
                    else if let kind { throw BolmoError(kind, "a session") }
                }
            }
        }
        let rescued = Locked(0)
        for round in 0..<40 {
            let isResumed = Locked(false)
            // Weak, because the queue keeps this until its time has come, and the test would wait for the engine's end.
            DispatchQueue.global().asyncAfter(deadline: .now() + 3 * slowFactor) { [weak engine] in
                guard let engine, !isResumed.withLock({ $0 }) else { return }
                rescued.withLock { $0 += 1 }
                try? engine.resume()
            }
            try await Task.sleep(for: .microseconds(500 * round))
            try await engine.suspend()
            try await Task.sleep(for: .milliseconds(2))
            _ = isResumed.exchange(true)
            try engine.resume()
            if rescued.withLock({ $0 }) > 0 { break }
        }
        _ = isOver.exchange(true)
        for task in creating { try await task.value }
        XCTAssertEqual(rescued.withLock { $0 }, 0, "no thread was left for the task that resumes the engine")
    }
}
