import Bolmo
import Foundation
import UIKit
import os

/// What a check expected and didn't find.
struct Failure: Error {
    let message: String
}

func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw Failure(message: message()) }
}

/// The error that `body` throws.
func failure<R>(_ body: () async throws -> R) async -> (any Error)? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error
    }
}

/// Runs the code of README.md on a model.
@main
struct Check {
    static let options = GenerateOptions(maxBytes: 400)

    static func main() async throws {
        // As a picker returns it: without it, the folder is closed to the app.
        let folder = URL(fileURLWithPath: CommandLine.arguments[1])
        let engine = try await openEngine()
        try await checkPicking(folder, engine)
        URL.picked = [folder]
        try await checkFormats(folder, engine)
        let model = try await loadModel(picked: folder, on: engine)
        try await checkBackground(model)
        try await checkHeat(model)
        try await checkRecovery(folder, model)
        ProcessInfo.savesPower = true
        let saving = try await openEngine()
        try expect(saving.adapter.kind == "integrated GPU" || saving.adapter.kind == "cpu", "\(saving.adapter)")
    }

    static func checkPicking(_ folder: URL, _ engine: Engine) async throws {
        let refused = await failure { try await loadModel(picked: folder, on: engine) }
        try expect(refused is CocoaError, "a folder that was not picked: \(String(describing: refused))")
    }

    static func checkFormats(_ folder: URL, _ engine: Engine) async throws {
        let checkpoint = try await Checkpoint(folder: folder)
        let session = try checkpoint.sessionBytes(patches: 4096) + checkpoint.info.workBytes
        let everything = availableMemory
        defer { availableMemory = everything }
        for format in [Format.f16, .q8, .q4] {
            availableMemory = Int(try checkpoint.deviceBytes(format) + session) + (200 << 20) + 1
            let model = try await loadModel(picked: folder, on: engine)
            let expected = try checkpoint.deviceBytes(format)
            try expect(model.deviceBytes == expected, "\(model.deviceBytes) bytes instead of \(expected) in \(format)")
        }
        availableMemory -= 1
        let refused = await failure { try await loadModel(picked: folder, on: engine) } as? BolmoError
        try expect(refused?.kind == .outOfMemory, "a model that doesn't fit: \(String(describing: refused))")
        try expect(URL.accessed == 0, "\(URL.accessed) folders were not given back")
    }

    static func story(_ model: Model) async throws -> Session {
        let session = try await model.session()
        try await session.append("This is a story about Mia,")
        return session
    }

    /// Posts a notification as UIKit does: the system goes on when the observers have returned.
    @MainActor
    static func post(_ name: Notification.Name) { NotificationCenter.default.post(name: name, object: nil) }

    /// A generation that the background interrupts goes on afterwards, and has the text of one that it doesn't.
    static func checkBackground(_ model: Model) async throws {
        let whole = try await story(model).generation(options).text
        let failures = Failures()
        let lifecycle = await EngineLifecycle(model.engine) { failures.add($0) }
        let session = try await story(model)
        let other = try await story(model)
        let received = Received()
        let generating = Task {
            for try await piece in session.generate(options) { received.add(piece.text) }
        }
        while received.text.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
        await post(UIApplication.didEnterBackgroundNotification)
        let refused = await failure { try await other.append(" who") } as? BolmoError
        try expect(refused?.kind == .suspended, "a call in the background: \(String(describing: refused))")
        // What the device had finished may still arrive.
        try await Task.sleep(for: .milliseconds(100))
        let before = received.text
        try await Task.sleep(for: .milliseconds(200))
        try expect(received.text == before, "the generation went on in the background")
        try expect(before.count < whole.count, "the generation was over before the app went to the background")
        await post(UIApplication.willEnterForegroundNotification)
        try await generating.value
        try expect(received.text == whole, "the text is \(received.text) instead of \(whole)")
        try await other.append(" who")

        await post(UIApplication.didReceiveMemoryWarningNotification)
        let after = try await story(model).generation(options).text
        try expect(after == whole, "the text after low memory is \(after) instead of \(whole)")
        await lifecycle.stop()
        await post(UIApplication.didEnterBackgroundNotification)
        _ = try await story(model)
        try expect(failures.all.isEmpty, "\(failures.all)")
    }

    static func checkHeat(_ model: Model) async throws {
        let session = try await story(model)
        ProcessInfo.heat = .serious
        let cooling = Task {
            try await Task.sleep(for: .milliseconds(700))
            ProcessInfo.heat = .nominal
        }
        let begin = ContinuousClock.now
        try await generateCoolly(session, options) { _ in }
        try await cooling.value
        try expect(ContinuousClock.now - begin >= .milliseconds(700), "the generation didn't wait for cooling")
        try expect(await session.lastGeneration?.stop != .cancelled, "the generation did not go on")

        ProcessInfo.heat = .critical
        defer { ProcessInfo.heat = .nominal }
        var pieces = 0
        try await generateCoolly(story(model), options) { _ in pieces += 1 }
        try expect(pieces == 1, "\(pieces) pieces at a critical temperature")
    }

    static func checkRecovery(_ folder: URL, _ model: Model) async throws {
        let session = try await story(model)
        let saved = try await session.snapshot()
        let expected = try await session.generation(options).text
        try model.engine.destroyDevice()
        let lost = await failure { try await session.append("x") } as? BolmoError
        try expect(lost?.kind == .deviceLost, "a call without a device: \(String(describing: lost))")
        let found = try await recover(saved, from: folder).generation(options).text
        try expect(found == expected, "the restored session writes \(found) instead of \(expected)")
    }
}

/// Text that one task receives and another one looks at.
final class Received: @unchecked Sendable {
    private let lock = NSLock()
    private var parts = ""

    var text: String { lock.withLock { parts } }
    func add(_ part: String) { lock.withLock { parts += part } }
}

/// Errors of observers.
final class Failures: @unchecked Sendable {
    private let lock = NSLock()
    private var errors: [any Error] = []

    var all: [any Error] { lock.withLock { errors } }
    func add(_ error: any Error) { lock.withLock { errors.append(error) } }
}
