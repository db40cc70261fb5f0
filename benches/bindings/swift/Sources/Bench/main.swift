// For each line of standard input, generates from one state, and prints the process's CPU time per byte in seconds.
// usage: Bench MODEL_FOLDER BYTES

import Bolmo
import Foundation

func cpuSeconds() -> Double {
    var now = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
    return Double(now.tv_sec) + 1e-9 * Double(now.tv_nsec)
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let bytes = Int(arguments[2]) else { exit(2) }
let model = try await Model(
    checkpoint: try await Checkpoint(folder: arguments[1]), engine: try await Engine(adapter: "cpu"))
let session = try await model.session()
try await session.append("This is a story about Mia,")
let start = try await session.checkpoint()
while readLine() != nil {
    try await session.rewind(to: start)
    var received = 0
    let begin = cpuSeconds()
    for try await piece in session.generate(maxBytes: bytes, endBias: -1000) { received += piece.bytes.count }
    print(String(format: "%.9f", (cpuSeconds() - begin) / Double(received)))
    fflush(nil)
}
