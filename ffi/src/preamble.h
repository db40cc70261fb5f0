/**
 * @file bolmo.h
 * @brief The Bolmo runtime in C: byte-level language models within your program, on the GPU at hand.
 *
 * Made from the Rust sources by `make header`; changes belong there.
 *
 * A Bolmo model reads and writes bytes, and groups them into patches by itself. The library loads such a model onto any GPU that
 * Vulkan, Metal or Direct3D 12 reaches, or onto the CPU through a software driver, and needs nothing else at run time.
 *
 * ## Groups, in the order of this file
 *
 * | group | for |
 * |---|---|
 * | status | errors and their messages |
 * | library | version, log |
 * | text | bytes that the library made; whole characters for display |
 * | adapters | which GPUs there are |
 * | engine | a device, opened |
 * | checkpoint | what a model is made of: a folder, memory, a reader of your own; memory needed before loading |
 * | model | weights on the device |
 * | session | one sequence: append text, clone, rewind, save, cancel |
 * | constraint | regular expressions and JSON schemas that the output must match |
 * | options, generate | generating with a callback |
 * | sampler | generating step by step |
 * | score | how probable a text is |
 * | merge | what a subword model learnt, added to a model made from it |
 * | training | byte-level models from subword ones |
 *
 * ## Ownership
 *
 * - What a `_create`, `_open`, `_load`, `_clone` or another function gives through a pointer to a handle is yours: delete it with the
 *   type's `_delete`. Handles keep alive what they need, so the order is up to you: an engine may be deleted before its models.
 * - Handles are numbers in the shape of pointers. NULL may be deleted. Deleting a handle twice does nothing the second time, and
 *   using one that was deleted, or one of another type, gives BOLMO_INVALID_ARGUMENT.
 * - What you pass in is copied or only read during the call, but for the memory and readers of a checkpoint, which say so.
 * - What you get as a pointer belongs to a handle and is valid as long as the function's comment says.
 * - A process may end with handles left. Don't unload the library before all of them are deleted.
 *
 * ## Threads
 *
 * Everything may be called from any thread. Engines, checkpoints, models and results may be used by several at once; sessions, options,
 * samplers, matchers, assemblers and trainers by one at a time: another one gets BOLMO_BUSY, nothing breaks. Functions return when they are
 * done. Callbacks are called by the thread that is in the function, but for the log's, and may call the library, but for the objects
 * that the function uses. They must not throw C++ exceptions or jump out.
 *
 * ## Errors
 *
 * Functions that can fail return a bolmo_status. Results are written through pointers, and only if all went well. There is no
 * global initialisation and no shutdown. The library prints nothing; graphics drivers may, on standard error.
 *
 * ## Text
 *
 * Bytes and text are a pointer and a size, in both directions. Sizes count bytes, without a NUL. Where a text of the library's own
 * also has a NUL at the end, its comment says so. NULL is fine where the size is 0.
 *
 * ## A complete program
 *
 * @code{.c}
 * #include <bolmo.h>
 * #include <stdio.h>
 * #include <string.h>
 *
 * static int32_t print(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     (void)ids;
 *     return fwrite(data, 1, size, (FILE *)user_data) != size;
 * }
 *
 * int main(int argc, char **argv) {
 *     const char *folder = argc > 1 ? argv[1] : "bolmo-1b", *prompt = "Once upon a time";
 *     bolmo_engine *engine = NULL;
 *     bolmo_checkpoint *checkpoint = NULL;
 *     bolmo_model *model = NULL;
 *     bolmo_session *session = NULL;
 *     int ok = bolmo_engine_create(NULL, &engine) == BOLMO_OK
 *         && bolmo_checkpoint_open(folder, strlen(folder), &checkpoint) == BOLMO_OK
 *         && bolmo_model_load(engine, checkpoint, NULL, &model) == BOLMO_OK
 *         && bolmo_session_create(model, &session) == BOLMO_OK
 *         && bolmo_session_append_bos(session) == BOLMO_OK
 *         && bolmo_session_append(session, prompt, strlen(prompt), NULL, NULL) == BOLMO_OK
 *         && bolmo_session_generate(session, NULL, print, stdout, NULL) == BOLMO_OK;
 *     if (!ok) fprintf(stderr, "error: %s\n", bolmo_last_error_message());
 *     bolmo_session_delete(session);
 *     bolmo_model_delete(model);
 *     bolmo_checkpoint_delete(checkpoint);
 *     bolmo_engine_delete(engine);
 *     return !ok;
 * }
 * @endcode
 */
