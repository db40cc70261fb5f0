import Bolmo
import Dispatch
import Foundation

/// Continues a prompt, and writes bytes as they are generated. Ctrl-C ends it cleanly.
@main
struct Generate {
    static func main() async {
        let options: Options
        do {
            options = try Options(CommandLine.arguments.dropFirst())
        } catch {
            if let error = error as? Options.UsageError { report("error: \(error.message)\n") }
            report(Options.usage + "\n")
            exit(2)
        }
        let work = Task { try await generate(options) }
        // The signal itself is ignored; the source calls its handler on a queue, where everything is allowed.
        signal(SIGINT, SIG_IGN)
        let interrupts = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        interrupts.setEventHandler { work.cancel() }
        interrupts.resume()
        do {
            try await work.value
        } catch is CancellationError {
            report("\ninterrupted\n")
            exit(130)  // the shell's exit status after Ctrl-C
        } catch {
            report("error: \(error.localizedDescription)\n")
            exit(1)
        }
    }

    static func generate(_ options: Options) async throws {
        let engine = try await Engine(adapter: options.adapter)
        let checkpoint = try await Checkpoint(folder: options.model)
        let model = try await Model(
            checkpoint: checkpoint, options: options.load, engine: engine, progress: showProgress)
        let session = try await model.session()
        try await session.append(options.prompt ?? "")
        var bytes = 0
        var patches = 0
        let output = FileHandle.standardOutput
        for try await piece in session.generate(
            maxBytes: options.maxBytes, temperature: options.temperature, seed: options.seed)
        {
            // Not buffered, so that an interruption loses nothing.
            try output.write(contentsOf: piece.bytes)
            bytes += piece.bytes.count
            patches += piece.ids.count(where: ByteID.endsPatch)
        }
        // The loop of a cancelled task ends as if the text had.
        try Task.checkCancellation()
        report("\n\(bytes) bytes, \(patches) patches, \(engine.adapter.name)\n")
    }

    @Sendable static func showProgress(_ update: ProgressUpdate) {
        let end = update.done == update.total ? "\n" : ""
        report("\rloading \(Int(100 * update.fraction)) %\(end)")
    }

    static func report(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
