import CBolmo
import Foundation

/// Adds what a subword model learned after its pretraining to the Bolmo model that was made from it, and writes the
/// result to a folder. No device is used.
///
/// Global blocks and final norm become `bolmo + alpha * (postTrained - base)`; the byte-level parts stay.
///
/// - Parameters:
///   - bolmo: The folder of the Bolmo model.
///   - base: The folder of the subword model that it was made from: OLMo 2 or 3, Qwen 3 or Llama.
///   - postTrained: The folder of a model that was trained from the base model and differs in its weights only.
///   - output: The folder to write, which must be empty or not exist. It appears when it is complete.
///   - alpha: The factor for the difference between the two, a finite number.
///   - embeddings: Whether the suffix table changes too.
///   - progress: Receives the bytes of weight files done and their total.
/// - Returns: A report in JSON: `alpha`, `embeddings`, `files`, `bytes`, the counts `moved` and `kept`, and `tensors`.
/// - Throws: ``BolmoError``; `CancellationError` if the task is cancelled.
@discardableResult
public func merge(
    bolmo: URL, base: URL, postTrained: URL, output: URL, alpha: Float = 1, embeddings: Bool = false,
    progress: ProgressHandler? = nil
) async throws -> Data {
    let context = ProgressContext(progress)
    return try await blocking("merging", cancel: { context.cancel() }) {
        let options = try Handle("the options", delete: bolmo_merge_options_delete) {
            bolmo_merge_options_create($0)
        }
        let raw = options.raw
        try check(withBytes(of: path(of: bolmo)) { bolmo_merge_options_set_bolmo(raw, $0, $1) })
        try check(withBytes(of: path(of: base)) { bolmo_merge_options_set_base(raw, $0, $1) })
        try check(withBytes(of: path(of: postTrained)) { bolmo_merge_options_set_post_trained(raw, $0, $1) })
        try check(bolmo_merge_options_set_alpha(raw, alpha))
        try check(bolmo_merge_options_set_embeddings(raw, embeddings))
        return try context.use { callback, user in
            try check(bolmo_merge_options_set_progress(raw, callback, user))
            return try withBytes(of: path(of: output)) { path, size in
                try readBytes { bolmo_merge(raw, path, size, $0) }
            }
        }
    }
}
