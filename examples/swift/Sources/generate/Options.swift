import Bolmo

/// What the command line asks for.
struct Options {
    static let usage = """
        usage: generate --model FOLDER PROMPT [--max-bytes N] [--temperature T] [--seed N]
               [--format f32|f16|q8|q4] [--subwords FILE] [--adapter NAME]
        """

    /// Why a command line is refused.
    struct UsageError: Error {
        let message: String
    }

    var model = ""
    var prompt: String?
    var maxBytes = 256
    var temperature: Float = 0
    var seed: UInt64 = 0
    var load = LoadOptions()
    var adapter = ""

    init(_ arguments: some Collection<String>) throws {
        var rest = arguments.makeIterator()
        while let argument = rest.next() {
            guard argument.hasPrefix("--") else {
                if prompt != nil { throw UsageError(message: "there is a second prompt: \(argument)") }
                prompt = argument
                continue
            }
            guard let value = rest.next() else { throw UsageError(message: "\(argument) needs a value") }
            switch argument {
            case "--model": model = value
            case "--max-bytes": maxBytes = try Self.number(value, for: argument)
            case "--temperature": temperature = try Self.number(value, for: argument)
            case "--seed": seed = try Self.number(value, for: argument)
            case "--format":
                guard let format = Format.allCases.first(where: { "\($0)" == value }) else {
                    throw UsageError(message: "--format needs f32, f16, q8 or q4, not \(value)")
                }
                load.format = format
            case "--subwords": load.tokenizer = .path(value)
            case "--adapter": adapter = value
            default: throw UsageError(message: "there is no option \(argument)")
            }
        }
        if model.isEmpty { throw UsageError(message: "--model is missing") }
        if prompt == nil { throw UsageError(message: "the prompt is missing") }
    }

    /// Parses a number, whose range the library checks.
    private static func number<N: LosslessStringConvertible>(_ text: String, for option: String) throws -> N {
        guard let number = N(text) else { throw UsageError(message: "\(option) needs a number, not \(text)") }
        return number
    }
}
