import Foundation
import XCTest

@testable import Bolmo

/// The repository that the tests read models and tables from.
let repository: URL = {
    if let root = ProcessInfo.processInfo.environment["BOLMO_ROOT"] { return URL(fileURLWithPath: root) }
    var folder = URL(fileURLWithPath: #filePath)
    for _ in 0..<5 { folder.deleteLastPathComponent() }
    return folder
}()

/// A small trained model with golden generations, or another one, to measure how it is cancelled.
let trainedModel = URL(
    fileURLWithPath: ProcessInfo.processInfo.environment["BOLMO_TEST_MODEL"]
        ?? "tests/golden/infer/models/nano_trained",
    relativeTo: repository
).absoluteURL
/// The model that the command contains.
let demoModel = repository.appendingPathComponent("examples/demo-model")

/// The adapter that BOLMO_ADAPTER names, else the CPU device.
let adapterName = ProcessInfo.processInfo.environment["BOLMO_ADAPTER"] ?? "cpu"
/// By how much BOLMO_SLOW_FACTOR stretches time limits, for sanitizers and busy machines.
let slowFactor = Double(ProcessInfo.processInfo.environment["BOLMO_SLOW_FACTOR"] ?? "") ?? 1

/// Tests that leave no native object behind.
class BolmoTestCase: XCTestCase {
    override func tearDown() async throws {
        // Native threads release what they hold a moment after the last call has returned.
        let tidy = await eventually { handleCount == 0 }
        XCTAssert(tidy, "\(handleCount) native objects are left")
    }

    /// The trained model on the adapter under test.
    func loadTrained(format: Format? = nil) async throws -> Model {
        try await load(trainedModel, format: format)
    }

    func load(_ folder: URL, format: Format? = nil) async throws -> Model {
        let engine = try await Engine(adapter: adapterName)
        defer { engine.close() }
        return try await Model(folder: folder, format: format, engine: engine)
    }

    /// A session with a text.
    func session(_ model: Model, _ text: String = "def ") async throws -> Session {
        let session = try await model.session()
        try await session.append(text)
        return session
    }

    /// Checks that an operation throws a ``BolmoError``.
    func refuses(
        _ kind: BolmoError.Kind, saying part: String = "", file: StaticString = #filePath, line: UInt = #line,
        _ body: () async throws -> Void
    ) async {
        do {
            try await body()
            XCTFail("no error: expected \(kind)", file: file, line: line)
        } catch let error as BolmoError {
            XCTAssertEqual(error.kind, kind, error.message, file: file, line: line)
            XCTAssertFalse(error.message.isEmpty, file: file, line: line)
            if !part.isEmpty {
                XCTAssert(error.message.contains(part), "\(error.message): expected \(part)", file: file, line: line)
            }
        } catch {
            XCTFail("expected \(kind), found \(error)", file: file, line: line)
        }
    }
}

/// Waits until a condition holds, at most a few seconds. Returns whether it does.
func eventually(_ condition: () async throws -> Bool) async rethrows -> Bool {
    for _ in 0..<Int(500 * slowFactor) {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(10))
    }
    return try await condition()
}

/// The kind of the ``BolmoError`` that an operation throws; `nil` if it throws none.
func errorKind<R>(_ body: () async throws -> R) async rethrows -> BolmoError.Kind? {
    do {
        _ = try await body()
        return nil
    } catch let error as BolmoError {
        return error.kind
    }
}

/// An operation has not ended.
struct Hangs: Error {}

/// What an operation returns that must not wait for ever. It goes on in its task if it takes too long.
func soon<R: Sendable>(_ body: @escaping @Sendable () async throws -> R) async throws -> R {
    let result = Locked<Result<R, any Error>?>(nil)
    Task {
        let found: Result<R, any Error>
        do { found = .success(try await body()) } catch { found = .failure(error) }
        result.withLock { $0 = found }
    }
    for _ in 0..<2 where await eventually({ result.withLock { $0 != nil } }) { break }
    return try result.withLock { $0 ?? .failure(Hangs()) }.get()
}

/// Milliseconds since some fixed time.
func milliseconds() -> Double { Double(DispatchTime.now().uptimeNanoseconds) / 1e6 }

/// A temporary folder, which the body may fill.
func withTemporaryFolder(_ body: (URL) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("bolmo-\(UUID())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try await body(folder)
}

/// Bytes and ids of a stream.
struct Collected: Equatable {
    var bytes: [UInt8] = []
    var ids: [UInt16] = []
    var text = ""
    var pieces = 0

    mutating func add(_ piece: Piece) {
        bytes += piece.bytes
        ids += piece.ids
        text += piece.text
        pieces += 1
    }
}

func collect(_ stream: AsyncThrowingStream<Piece, any Error>) async throws -> Collected {
    var collected = Collected()
    for try await piece in stream { collected.add(piece) }
    return collected
}
