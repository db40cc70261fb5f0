/**
 * @file bolmo.h
 * @brief The Bolmo runtime in C: byte-level language models inside your program, on the GPU at hand or on the CPU.
 *
 * Generated from the Rust sources by `make header`; edit those instead.
 *
 * A Bolmo model reads and writes bytes, and groups them into patches by itself. The library runs such a model on any
 * GPU that Vulkan, Metal or Direct3D 12 reaches, or on the CPU without any driver. It needs nothing else at run time.
 *
 * ## Groups, in the order of this file
 *
 * | group | for |
 * |---|---|
 * | status | errors and their messages |
 * | library | version, log |
 * | text | bytes that the library allocated; whole characters for display |
 * | adapters | the GPUs of this machine, and its CPU |
 * | engine | an open device |
 * | checkpoint | the files of a model: a folder, memory or a reader of your own; memory needed before loading |
 * | model | weights on the device |
 * | session | one sequence: append text, clone, rewind, save, cancel |
 * | constraint | regular expressions and JSON schemas that the output must match |
 * | options, generate | generating with a callback |
 * | batch | generating on several sessions together |
 * | sampler | generating step by step |
 * | score | the probability of a text |
 * | merge | adding a subword model's post-training to a Bolmo model made from it |
 * | training | training byte-level models from subword models |
 *
 * ## Ownership
 *
 * - Handles that functions such as `_create`, `_open`, `_load` and `_clone` write through a pointer belong to you:
 *   delete each one with its type's `_delete`. A handle keeps alive what it needs, so handles may be deleted in any
 *   order: an engine may be deleted before its models.
 * - Handles are numbers in the shape of pointers. Deleting NULL, or a handle that was deleted, does nothing. Using a
 *   deleted handle, or one of another type, returns BOLMO_INVALID_ARGUMENT.
 * - Arguments are copied, or read during the call only. The memory and the readers of a checkpoint are the exception;
 *   their functions say so.
 * - Pointers that the library returns belong to a handle, and are valid as long as the function's comment says.
 * - A process may end without deleting its handles. Don't unload the library before all of them are deleted.
 *
 * ## Threads
 *
 * Every function may be called from any thread. Engines, checkpoints, models, batches and results may be used by
 * several threads at once. Sessions, options, samplers, matchers, assemblers and trainers may be used by one thread at
 * a time; a second thread gets BOLMO_BUSY and nothing breaks. Any thread may ask meanwhile how far a session is.
 * Functions return when their work is done. Callbacks run on the thread that called the function; the log callback may
 * run on any thread. A callback may call the library, except with the objects that the running function uses. It must
 * not throw C++ exceptions or use longjmp.
 *
 * On the CPU, the library computes on threads of its own, which block all signals and end with the last engine, its
 * models and their sessions.
 *
 * ## Apps in the background
 *
 * On iOS and Android an app in the background must not use the GPU: the system ends the work or the app. Call
 * bolmo_engine_suspend before the app leaves the foreground. When it returns, nothing is in flight, and nothing is
 * submitted before bolmo_engine_resume. Calls in progress pause, can be cancelled, and go on afterwards as if nothing
 * had happened; new calls that need the device return BOLMO_SUSPENDED and change nothing. bolmo_session_snapshot needs
 * the device, so save sessions first if the app may be ended. If the system took the device away meanwhile,
 * bolmo_engine_resume and the paused calls return BOLMO_DEVICE_LOST. Where the system asks for memory, call
 * bolmo_engine_trim, suspended or not.
 *
 * ## Forks
 *
 * An engine, its models and their sessions belong to the process that created the engine. In a child of fork(), calls
 * that need the device return BOLMO_DEVICE_LOST. The handles may be deleted there; what they hold on the device stays
 * until the child ends. The child may create an engine of its own on the CPU; whether a graphics driver can be used
 * after a fork depends on the driver. No thread may be inside a library call while another one forks.
 *
 * ## Little memory
 *
 * Where memory is missing, functions return BOLMO_OUT_OF_MEMORY, or BOLMO_IO if no thread can be started. Two limits
 * remain. If not even a few KiB are left, Rust's runtime aborts the process. And graphics drivers crash with little
 * address space, as under `ulimit -v`, so none is loaded if less than 1536 MiB plus 64 MiB per core (at most 32 cores)
 * is left; a driver may still crash with more, if the model fills it. The CPU device has no such limit.
 *
 * ## Errors
 *
 * Functions that can fail return a bolmo_status. They write results through pointers, and only on success;
 * bolmo_generate_batch, whose sessions have a status each, is the exception. There is no global initialization and no
 * shutdown. The library prints nothing; a graphics driver may print warnings of its own to standard error.
 *
 * ## Text
 *
 * Bytes and text are passed as a pointer and a size, in both directions. Sizes count bytes, without a NUL. Where the
 * library's own text also ends with a NUL, the function's comment says so. NULL is allowed where the size is 0.
 *
 * ## A complete program
 *
 * @code{.c}
 * #include <bolmo.h>
 * #include <stdio.h>
 * #include <string.h>
 *
 * static int32_t print(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     FILE *output = user_data;
 *     (void)ids;
 *     return fwrite(data, 1, size, output) != size || fflush(output) != 0;
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
