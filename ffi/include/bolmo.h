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

#ifndef BOLMO_H
#define BOLMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @defgroup status Status
 *
 * Errors: what a status says, and how to get the message.
 *
 * Every function that can fail returns a `bolmo_status`. `BOLMO_OK` is 0. Each thread has a message of its own, about its
 * last call that failed:
 *
 * @code{.c}
 * bolmo_status status = bolmo_engine_create(NULL, &engine);
 * if (status != BOLMO_OK) {
 *     fprintf(stderr, "%s: %s\n", bolmo_status_name(status), bolmo_last_error_message());
 * }
 * @endcode
 *
 * @{
 */

/** What came of a call. Codes keep their meaning; new ones may be added, so treat an unknown one as a failure. */
enum bolmo_status
#ifdef __cplusplus
    : int32_t
#endif
{
    /** It worked. */
    BOLMO_OK = 0,
    /** An argument is NULL, out of its range, or contradicts another one; or a handle was deleted or is of another type. */
    BOLMO_INVALID_ARGUMENT = 1,
    /** A file, an adapter or an item that was asked for does not exist. */
    BOLMO_NOT_FOUND = 2,
    /** A checkpoint, a tokenizer or a snapshot is damaged or contradicts itself. */
    BOLMO_BAD_CHECKPOINT = 3,
    /** The input is well formed, but this version, model or adapter cannot do it. */
    BOLMO_UNSUPPORTED = 4,
    /** The device or the host has not enough memory. */
    BOLMO_OUT_OF_MEMORY = 5,
    /** The device was lost: make the engine again, and load the model again on it. */
    BOLMO_DEVICE_LOST = 6,
    /** It was cancelled, from a callback or another thread. */
    BOLMO_CANCELLED = 7,
    /** The object is in use: by another thread, or by the call that this callback is called from. */
    BOLMO_BUSY = 8,
    /** Reading failed. */
    BOLMO_IO = 9,
    /** A defect of this library; please report it. */
    BOLMO_INTERNAL = 10,
};
#ifndef __cplusplus
typedef int32_t bolmo_status;
#endif

/**
 * What went wrong in the last call of this thread that failed: one sentence, UTF-8, ended by a NUL. Never NULL; empty if none
 * has failed yet. Valid until this thread's next call that fails, or its end; the
 * `_delete` functions never fail.
 */
const char *bolmo_last_error_message(void);

/**
 * The status in words, such as "bad checkpoint", ended by a NUL. Never NULL: "unknown status" for a code that this version
 * doesn't have. Valid forever.
 */
const char *bolmo_status_name(int32_t status);

/** @} */

/**
 * @defgroup library Library
 *
 * The library itself: its version, and what it says while it works.
 *
 * @code{.c}
 * static void log_line(int32_t level, const char *text, size_t size, void *user_data) {
 *     fprintf((FILE *)user_data, "%d %.*s\n", (int)level, (int)size, text);
 * }
 * ...
 * printf("bolmo %s, ABI %u\n", bolmo_version(), (unsigned)bolmo_abi_version());
 * bolmo_set_log_callback(BOLMO_LOG_WARN, log_line, stderr);
 * @endcode
 *
 * @{
 */

/** The version of the ABI that a header describes. It grows when something is added; what is there keeps its meaning. */
#define BOLMO_ABI_VERSION 3

/** How much is logged. */
enum bolmo_log_level
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Nothing. */
    BOLMO_LOG_OFF = 0,
    /** What failed, also where no call can return it. */
    BOLMO_LOG_ERROR = 1,
    /** What is odd and goes on. */
    BOLMO_LOG_WARN = 2,
    /** What is done. */
    BOLMO_LOG_INFO = 3,
    /** Details for those who look for a fault. */
    BOLMO_LOG_DEBUG = 4,
    /** Everything, the graphics library's own words included. */
    BOLMO_LOG_TRACE = 5,
};
#ifndef __cplusplus
typedef int32_t bolmo_log_level;
#endif

/**
 * Takes a line of the log: `text` has `size` bytes of UTF-8, no NUL at the end, and is valid during the call. Called from any
 * thread, also several at once. It must not call the library: functions return BOLMO_BUSY then,
 * and what is deleted stays.
 */
typedef void (*bolmo_log_callback)(int32_t level, const char *text, size_t size, void *user_data);

/**
 * The version of the ABI that this library has, to be compared with BOLMO_ABI_VERSION of the header a program was compiled
 * with: a library with a smaller number lacks something that the header declares.
 */
uint32_t bolmo_abi_version(void);

/** The library's version, such as "0.1.0", ended by a NUL. Valid forever. */
const char *bolmo_version(void);

/**
 * Hands what the library logs, up to `level` (bolmo_log_level), to `callback`; NULL or BOLMO_LOG_OFF ends it. Without a callback
 * nothing is logged anywhere. When the function returns, the callback from before is no longer running.
 */
bolmo_status bolmo_set_log_callback(int32_t level, bolmo_log_callback callback, void *user_data);

/** How many handles have been made and not deleted, of all types: 0 when a program has cleaned up. */
size_t bolmo_handle_count(void);

/** @} */

/**
 * @defgroup text Text
 *
 * Bytes that the library made, and text for display.
 *
 * Models write bytes, and a piece of output may end in the middle of a character. For display, let an assembler hold the
 * beginning back until the rest has come:
 *
 * @code{.c}
 * static int32_t show(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     const char *text;
 *     size_t length;
 *     (void)ids;
 *     if (bolmo_utf8_push((bolmo_utf8 *)user_data, data, size, &text, &length) != BOLMO_OK) return 1;
 *     return fwrite(text, 1, length, stdout) != length;
 * }
 * @endcode
 *
 * @{
 */

/** Bytes that the library made for the caller, such as a snapshot. */
typedef struct bolmo_bytes bolmo_bytes;

/** Whole characters out of bytes that come in pieces. For one thread at a time. */
typedef struct bolmo_utf8 bolmo_utf8;

/** Where the bytes are and how many. `data` stays valid until the handle is deleted. */
bolmo_status bolmo_bytes_get(const bolmo_bytes *bytes, const uint8_t **data, size_t *size);

/** Deletes the bytes. NULL and handles that were deleted are left alone. */
void bolmo_bytes_delete(bolmo_bytes *bytes);

/** An assembler at the start of a text. */
bolmo_status bolmo_utf8_create(bolmo_utf8 **assembler);

/**
 * Takes the next bytes and gives the text that is certain by now, maybe none. Bytes that are no UTF-8 become U+FFFD. `text` has
 * `length` bytes of UTF-8, no NUL at the end, and is valid until the next call with this assembler.
 */
bolmo_status bolmo_utf8_push(bolmo_utf8 *assembler, const void *data, size_t size, const char **text, size_t *length);

/** Ends the text: gives U+FFFD if it stops within a character, otherwise nothing. The assembler can be used anew. */
bolmo_status bolmo_utf8_finish(bolmo_utf8 *assembler, const char **text, size_t *length);

/** Deletes the assembler. NULL and handles that were deleted are left alone. */
void bolmo_utf8_delete(bolmo_utf8 *assembler);

/** @} */

/**
 * @defgroup adapters Adapters
 *
 * Adapters: what could compute on this machine, before anything is opened.
 *
 * @code{.c}
 * bolmo_adapters *adapters;
 * size_t count = 0;
 * if (bolmo_adapters_list("", 0, &adapters) == BOLMO_OK) {
 *     bolmo_adapters_count(adapters, &count);
 *     for (size_t i = 0; i < count; i++) {
 *         const char *name, *reason;
 *         bolmo_adapters_text(adapters, i, BOLMO_ADAPTER_NAME, &name, NULL);
 *         bolmo_adapters_text(adapters, i, BOLMO_ADAPTER_REASON, &reason, NULL);
 *         printf("%zu %s (%s)\n", i, name, reason);
 *     }
 *     bolmo_adapters_delete(adapters);
 * }
 * @endcode
 *
 * @{
 */

/** A text about an adapter. */
enum bolmo_adapter_text
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Its own name. */
    BOLMO_ADAPTER_NAME = 0,
    /** "discrete GPU", "integrated GPU", "virtual GPU", "software" or "other". */
    BOLMO_ADAPTER_KIND = 1,
    /** "vulkan", "metal" or "dx12". */
    BOLMO_ADAPTER_BACKEND = 2,
    /** Driver and version. */
    BOLMO_ADAPTER_DRIVER = 3,
    /** Why it would be used, or why not. */
    BOLMO_ADAPTER_REASON = 4,
};
#ifndef __cplusplus
typedef int32_t bolmo_adapter_text;
#endif

/** A number about an adapter. */
enum bolmo_adapter_number
#ifdef __cplusplus
    : int32_t
#endif
{
    /** 1 for the adapter that the choice falls on, else 0. */
    BOLMO_ADAPTER_CHOSEN = 0,
    /** 1 if the library can compute on it, else 0. */
    BOLMO_ADAPTER_USABLE = 1,
    /** 1 if it computes on the CPU, else 0. */
    BOLMO_ADAPTER_SOFTWARE = 2,
    /** Bytes that one binding may cover. */
    BOLMO_ADAPTER_MAX_BINDING_BYTES = 3,
    /** Bytes of the largest buffer. */
    BOLMO_ADAPTER_MAX_BUFFER_BYTES = 4,
    /** Bytes of workgroup memory. */
    BOLMO_ADAPTER_WORKGROUP_BYTES = 5,
    /** Lanes of the smallest subgroup; 0 if kernels cannot use subgroups. */
    BOLMO_ADAPTER_MIN_SUBGROUP = 6,
    /** Lanes of the largest subgroup; 0 if kernels cannot use subgroups. */
    BOLMO_ADAPTER_MAX_SUBGROUP = 7,
    /** 1 if shaders can compute in f16, else 0. */
    BOLMO_ADAPTER_SHADER_F16 = 8,
};
#ifndef __cplusplus
typedef int32_t bolmo_adapter_number;
#endif

/** The adapters of this machine, as they were when the list was made. */
typedef struct bolmo_adapters bolmo_adapters;

/**
 * Lists the adapters of this machine, and says which one `bolmo_engine_options_set_adapter` with the same choice would use. An
 * empty list is no failure.
 */
bolmo_status bolmo_adapters_list(const void *choice, size_t choice_size, bolmo_adapters **list);

/** How many adapters the list has. */
bolmo_status bolmo_adapters_count(const bolmo_adapters *list, size_t *count);

/**
 * A text (bolmo_adapter_text) about the adapter at `index`: UTF-8, with a NUL at the end. `size`, which may be NULL, gets its bytes
 * without the NUL. Valid until the list is deleted.
 *
 * BOLMO_NOT_FOUND: the list has no such adapter.
 */
bolmo_status bolmo_adapters_text(const bolmo_adapters *list, size_t index, int32_t which, const char **text, size_t *size);

/**
 * A number (bolmo_adapter_number) about the adapter at `index`.
 *
 * BOLMO_NOT_FOUND: the list has no such adapter.
 */
bolmo_status bolmo_adapters_number(const bolmo_adapters *list, size_t index, int32_t which, uint64_t *number);

/** Deletes the list. NULL and handles that were deleted are left alone. */
void bolmo_adapters_delete(bolmo_adapters *list);

/** @} */

/**
 * @defgroup engine Engine
 *
 * Engines: a device, opened once, for any number of models.
 *
 * @code{.c}
 * bolmo_engine_options *options;
 * bolmo_engine *engine;
 * bolmo_engine_options_create(&options);
 * bolmo_engine_options_set_adapter(options, "software", strlen("software"));
 * bolmo_status status = bolmo_engine_create(options, &engine);
 * bolmo_engine_options_delete(options);
 * @endcode
 *
 * @{
 */

/** An opened device. Any number of threads may use it at once. */
typedef struct bolmo_engine bolmo_engine;

/** How to open an engine. */
typedef struct bolmo_engine_options bolmo_engine_options;

/** Options with everything as it is unless set: the best adapter there is. */
bolmo_status bolmo_engine_options_create(bolmo_engine_options **options);

/**
 * Which adapter to use: a part of its name, driver or backend, its number in the list, "software", or "auto" (as is nothing): a
 * discrete GPU, else an integrated one, else a virtual one, else software.
 */
bolmo_status bolmo_engine_options_set_adapter(bolmo_engine_options *options, const void *choice, size_t size);

/**
 * Asks the device for bindings of at most `bytes` (at least 65536), where the adapter offers more; larger matrices are cut. 0, as
 * unless set: what the adapter offers.
 */
bolmo_status bolmo_engine_options_set_max_binding_bytes(bolmo_engine_options *options, uint64_t bytes);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_engine_options_delete(bolmo_engine_options *options);

/**
 * Opens a device. `options` may be NULL; they are read during the call only.
 *
 * BOLMO_NOT_FOUND: no adapter fits; the message lists those there are. BOLMO_UNSUPPORTED: the adapter cannot be opened.
 */
bolmo_status bolmo_engine_create(const bolmo_engine_options *options, bolmo_engine **engine);

/**
 * A text (bolmo_adapter_text) about the engine's adapter: UTF-8, with a NUL at the end. `size`, which may be NULL, gets its bytes
 * without the NUL. Valid until the engine is deleted.
 */
bolmo_status bolmo_engine_text(const bolmo_engine *engine, int32_t which, const char **text, size_t *size);

/** A number (bolmo_adapter_number) about the engine's adapter. */
bolmo_status bolmo_engine_number(const bolmo_engine *engine, int32_t which, uint64_t *number);

/**
 * Gives the device up at once, and all its memory, whatever still uses it: every later call that needs it, with the engine, its models
 * and sessions, returns BOLMO_DEVICE_LOST, as after a loss. The handles are still to be deleted.
 */
bolmo_status bolmo_engine_destroy_device(bolmo_engine *engine);

/**
 * Deletes the engine's handle; the device is closed when its last model is gone too. NULL and handles that were deleted are left
 * alone.
 */
void bolmo_engine_delete(bolmo_engine *engine);

/** @} */

/**
 * @defgroup checkpoint Checkpoint
 *
 * Checkpoints: what a model is made of, opened and checked, not loaded yet.
 *
 * A checkpoint is a folder with `config.json` and safetensors files, or the same parts from memory or from a reader of the
 * program's own. Nearly all models also need the `tokenizer.json` of the subword model that they were made from. Opening reads
 * headers only; weights are read while a model is loaded, and the checkpoint may be deleted after that.
 *
 * @code{.c}
 * bolmo_checkpoint *checkpoint;
 * uint64_t needed;
 * if (bolmo_checkpoint_open(path, strlen(path), &checkpoint) == BOLMO_OK &&
 *     bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F16, &needed) == BOLMO_OK) {
 *     printf("%.1f MB of device memory in f16\n", needed / 1e6);
 * }
 * @endcode
 *
 * From parts, with a reader:
 *
 * @code{.c}
 * static int64_t read_asset(void *user_data, uint64_t offset, uint8_t *out, size_t size) {
 *     return my_asset_read((my_asset *)user_data, offset, out, size); // bytes read, 0 at the end, below 0 on errors
 * }
 * ...
 * bolmo_checkpoint_builder *builder;
 * bolmo_checkpoint_builder_create(&builder);
 * bolmo_checkpoint_builder_set_config(builder, config, config_size);
 * bolmo_checkpoint_builder_set_tokenizer(builder, tokenizer, tokenizer_size, NULL, 0);
 * bolmo_checkpoint_builder_add_reader(builder, "weights", 7, asset_size, read_asset, NULL, asset);
 * bolmo_status status = bolmo_checkpoint_builder_open(builder, &checkpoint);
 * bolmo_checkpoint_builder_delete(builder);
 * @endcode
 *
 * @{
 */

/** How matrices are kept on the device; norms and biases are always f32. */
enum bolmo_format
#ifdef __cplusplus
    : int32_t
#endif
{
    /** 32 bits a weight. */
    BOLMO_F32 = 0,
    /** 16 bits a weight. */
    BOLMO_F16 = 1,
    /** 8 bits a weight, and a scale for 32 of them. */
    BOLMO_Q8 = 2,
    /** 4 bits a weight, and a scale for 32 of them. */
    BOLMO_Q4 = 3,
};
#ifndef __cplusplus
typedef int32_t bolmo_format;
#endif

/** A number about a model. */
enum bolmo_model_property
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Weights, all parts together. */
    BOLMO_MODEL_PARAMETERS = 0,
    /** Width of the residual stream. */
    BOLMO_MODEL_HIDDEN_SIZE = 1,
    /** Local layers in front of the boundary predictor. */
    BOLMO_MODEL_ENCODER_LAYERS = 2,
    /** Global blocks. */
    BOLMO_MODEL_GLOBAL_LAYERS = 3,
    /** Local layers behind the global blocks. */
    BOLMO_MODEL_DECODER_LAYERS = 4,
    /** Rows of the suffix table; 0 for a model without one, which needs no tokenizer.json. */
    BOLMO_MODEL_SUFFIX_ROWS = 5,
    /** Logits of a step: 520. */
    BOLMO_MODEL_LOGITS = 6,
    /** Bytes of device memory that a session holds from the beginning. */
    BOLMO_MODEL_STATE_BYTES = 7,
    /** Bytes of device memory that a session grows by with each patch. */
    BOLMO_MODEL_PATCH_BYTES = 8,
    /** The same beyond the sliding window, if the model has one. */
    BOLMO_MODEL_LATE_PATCH_BYTES = 9,
};
#ifndef __cplusplus
typedef int32_t bolmo_model_property;
#endif

/** A checkpoint that was opened and checked. Any number of threads may use it at once. */
typedef struct bolmo_checkpoint bolmo_checkpoint;

/** The parts of a checkpoint that is no folder. */
typedef struct bolmo_checkpoint_builder bolmo_checkpoint_builder;

/** Says that the library no longer needs what `user_data` stands for. Called once, by the thread whose call let go of it. */
typedef void (*bolmo_release_callback)(void *user_data);

/**
 * Reads up to `size` bytes from `offset` on to `out`. Returns how many were read, 0 at the end of the file, or a number below 0
 * of its own if reading failed. Called by the thread that is in the library, from several at once if several use the checkpoint.
 */
typedef int64_t (*bolmo_read_callback)(void *user_data, uint64_t offset, uint8_t *out, size_t size);

/**
 * Opens the folder at `path`: any bytes the system allows in paths, but UTF-8 on Windows. Its files must stay as they are until the
 * checkpoint is deleted. If the folder has a `tokenizer.json`, it is taken for the source model's.
 *
 * BOLMO_NOT_FOUND: no such folder, or no config.json or weights in it. BOLMO_BAD_CHECKPOINT, BOLMO_UNSUPPORTED: the message names
 * the file and the tensor or key.
 */
bolmo_status bolmo_checkpoint_open(const void *path, size_t size, bolmo_checkpoint **checkpoint);

/** A builder without any parts. */
bolmo_status bolmo_checkpoint_builder_create(bolmo_checkpoint_builder **builder);

/** The contents of `config.json`, which are copied. */
bolmo_status bolmo_checkpoint_builder_set_config(bolmo_checkpoint_builder *builder, const void *json, size_t size);

/**
 * The contents of the source model's `tokenizer.json` and, where there is one, of the `tokenizer_config.json` beside it (else NULL
 * and 0), which are copied.
 */
bolmo_status bolmo_checkpoint_builder_set_tokenizer(bolmo_checkpoint_builder *builder,
                                                    const void *json,
                                                    size_t size,
                                                    const void *config_json,
                                                    size_t config_size);

/**
 * Adds a safetensors file that lies in memory. `name` is for messages. With a `release` the bytes are used where they are: they must
 * stay until it is called, with `user_data`, which is when checkpoint and builder are deleted. Without (NULL) they are copied.
 * `release` is not called if this function fails.
 */
bolmo_status bolmo_checkpoint_builder_add_memory(bolmo_checkpoint_builder *builder,
                                                 const void *name,
                                                 size_t name_size,
                                                 const void *data,
                                                 size_t size,
                                                 bolmo_release_callback release,
                                                 void *user_data);

/**
 * Adds a safetensors file of `size` bytes that `read` reads, with `user_data`. `name` is for messages. `release`, which may be NULL,
 * is called with `user_data` when checkpoint and builder are deleted, but not if this function fails. The file must not change.
 */
bolmo_status bolmo_checkpoint_builder_add_reader(bolmo_checkpoint_builder *builder,
                                                 const void *name,
                                                 size_t name_size,
                                                 uint64_t size,
                                                 bolmo_read_callback read,
                                                 bolmo_release_callback release,
                                                 void *user_data);

/**
 * Opens the checkpoint that the parts make. The parts move to it: the builder is empty afterwards, also if this fails.
 *
 * BOLMO_IO: a reader failed. Else as bolmo_checkpoint_open.
 */
bolmo_status bolmo_checkpoint_builder_open(bolmo_checkpoint_builder *builder, bolmo_checkpoint **checkpoint);

/** Deletes the builder and what it has. NULL and handles that were deleted are left alone. */
void bolmo_checkpoint_builder_delete(bolmo_checkpoint_builder *builder);

/** A number (bolmo_model_property) about the model. */
bolmo_status bolmo_checkpoint_number(const bolmo_checkpoint *checkpoint, int32_t which, uint64_t *number);

/**
 * Bytes of device memory that the weights will take in `format` (bolmo_format), or if they were quantised ahead, in the formats
 * that they are in, whatever `format` is. Sessions come on top: see bolmo_model_property.
 */
bolmo_status bolmo_checkpoint_device_bytes(const bolmo_checkpoint *checkpoint, int32_t format, uint64_t *bytes);

/**
 * The name under which the source model's tokenizer was published, if the checkpoint says; else an empty text. UTF-8, with a NUL at
 * the end. `size`, which may be NULL, gets its bytes without the NUL. Valid until the checkpoint is deleted.
 */
bolmo_status bolmo_checkpoint_tokenizer_source(const bolmo_checkpoint *checkpoint, const char **text, size_t *size);

/** How many warnings there are. */
bolmo_status bolmo_checkpoint_warning_count(const bolmo_checkpoint *checkpoint, size_t *count);

/**
 * What was odd about the files and accepted, one sentence an index, with a NUL at the end. Valid until the checkpoint is deleted.
 *
 * BOLMO_NOT_FOUND: there are not so many.
 */
bolmo_status bolmo_checkpoint_warning(const bolmo_checkpoint *checkpoint, size_t index, const char **text, size_t *size);

/** The configuration as this library understands it, as JSON with the keys of `config.json`. */
bolmo_status bolmo_checkpoint_config_json(const bolmo_checkpoint *checkpoint, bolmo_bytes **json);

/** Deletes the checkpoint; models that were loaded from it stay. NULL and handles that were deleted are left alone. */
void bolmo_checkpoint_delete(bolmo_checkpoint *checkpoint);

/** @} */

/**
 * @defgroup model Model
 *
 * Models: weights on a device, for any number of sessions.
 *
 * @code{.c}
 * static int32_t show(uint64_t done, uint64_t total, void *user_data) {
 *     (void)user_data;
 *     fprintf(stderr, "\r%3.0f %%", 100.0 * (double)done / (double)total);
 *     return 0; // any other value cancels
 * }
 * ...
 * bolmo_load_options *options;
 * bolmo_load_options_create(&options);
 * bolmo_load_options_set_format(options, BOLMO_F16);
 * bolmo_load_options_set_progress(options, show, NULL);
 * bolmo_model *model;
 * bolmo_status status = bolmo_model_load(engine, checkpoint, options, &model);
 * bolmo_load_options_delete(options);
 * bolmo_checkpoint_delete(checkpoint);
 * @endcode
 *
 * @{
 */

/** Bytes of a fingerprint. */
#define BOLMO_FINGERPRINT_SIZE 16

/** Parts of a model that may be kept in different formats. */
enum bolmo_part
#ifdef __cplusplus
    : int32_t
#endif
{
    /** What runs once a byte: local layers, boundary predictor, head. */
    BOLMO_PART_LOCAL = 0,
    /** The global blocks, which run once a patch. */
    BOLMO_PART_GLOBAL = 1,
    /** The tables of bytes and of subwords. */
    BOLMO_PART_EMBEDDINGS = 2,
};
#ifndef __cplusplus
typedef int32_t bolmo_part;
#endif

/** How to load a model. */
typedef struct bolmo_load_options bolmo_load_options;

/** A model on a device. Any number of threads may use it at once. It keeps the device open. */
typedef struct bolmo_model bolmo_model;

/**
 * Told how far a long call has come, of how much. Returns 0 to go on; any other value cancels the call, which then returns
 * BOLMO_CANCELLED, unless `done` is `total`: there is nothing left to cancel. Called by the thread that made the call. It may call the library, but for what the call itself uses: that is
 * BOLMO_BUSY.
 */
typedef int32_t (*bolmo_progress_callback)(uint64_t done, uint64_t total, void *user_data);

/** Options with everything as it is unless set: the formats that the checkpoint was quantised in ahead or else f32, the tokenizer that comes with the checkpoint, no progress. */
bolmo_status bolmo_load_options_create(bolmo_load_options **options);

/** How matrices are kept on the device (bolmo_format). A checkpoint that was quantised ahead loads in its own formats only. */
bolmo_status bolmo_load_options_set_format(bolmo_load_options *options, int32_t format);

/** How the matrices of one part (bolmo_part) are kept (bolmo_format), whatever bolmo_load_options_set_format says, before or after. */
bolmo_status bolmo_load_options_set_part_format(bolmo_load_options *options, int32_t part, int32_t format);

/**
 * The source model's `tokenizer.json`, or the folder that it is in, instead of the checkpoint's own. Read when the model is loaded;
 * models without a suffix table don't need it.
 */
bolmo_status bolmo_load_options_set_tokenizer_path(bolmo_load_options *options, const void *path, size_t size);

/**
 * The contents of the source model's `tokenizer.json` and, where there is one, of the `tokenizer_config.json` beside it (else NULL
 * and 0), which are copied.
 */
bolmo_status bolmo_load_options_set_tokenizer(bolmo_load_options *options,
                                              const void *json,
                                              size_t size,
                                              const void *config_json,
                                              size_t config_size);

/** Whom to tell about progress, in bytes of the checkpoint; NULL for nobody. */
bolmo_status bolmo_load_options_set_progress(bolmo_load_options *options, bolmo_progress_callback progress, void *user_data);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_load_options_delete(bolmo_load_options *options);

/**
 * Puts the checkpoint's weights on the engine's device. `options` may be NULL; they are read during the call only.
 *
 * BOLMO_INVALID_ARGUMENT: the model needs a tokenizer.json and has none, or it was quantised ahead in other formats than were set. BOLMO_BAD_CHECKPOINT: a tokenizer of another model, or
 * weights that are not finite. BOLMO_UNSUPPORTED: weights beyond f16. BOLMO_OUT_OF_MEMORY, BOLMO_DEVICE_LOST, BOLMO_CANCELLED,
 * BOLMO_IO.
 */
bolmo_status bolmo_model_load(const bolmo_engine *engine,
                              const bolmo_checkpoint *checkpoint,
                              const bolmo_load_options *options,
                              bolmo_model **model);

/** A number (bolmo_model_property) about the model. */
bolmo_status bolmo_model_number(const bolmo_model *model, int32_t which, uint64_t *number);

/** Bytes of device memory that the weights take. */
bolmo_status bolmo_model_device_bytes(const bolmo_model *model, uint64_t *bytes);

/** Names the model's configuration, weights and format in BOLMO_FINGERPRINT_SIZE bytes: snapshots restore on models with the same. */
bolmo_status bolmo_model_fingerprint(const bolmo_model *model, uint8_t *fingerprint);

/** How many warnings there are. */
bolmo_status bolmo_model_warning_count(const bolmo_model *model, size_t *count);

/**
 * What was odd about the files and accepted, one sentence an index, with a NUL at the end. Valid until the model is deleted.
 *
 * BOLMO_NOT_FOUND: there are not so many.
 */
bolmo_status bolmo_model_warning(const bolmo_model *model, size_t index, const char **text, size_t *size);

/**
 * Deletes the model's handle; its memory is freed when its last session is gone too. NULL and handles that were deleted are left
 * alone.
 */
void bolmo_model_delete(bolmo_model *model);

/** @} */

/**
 * @defgroup session Session
 *
 * Sessions: one sequence each, on a model.
 *
 * Text goes in by pieces, of any size and any bytes, and generations append to it. A session can be cloned, taken back to a
 * checkpoint, and saved as bytes:
 *
 * @code{.c}
 * bolmo_session *session;
 * bolmo_session_create(model, &session);
 * bolmo_session_append_bos(session);
 * bolmo_session_append(session, question, strlen(question), NULL, NULL);
 * bolmo_session_checkpoint *asked;
 * bolmo_session_checkpoint_create(session, &asked);
 * bolmo_session_generate(session, options, print, stdout, NULL); // one answer
 * bolmo_session_rewind(session, asked);
 * bolmo_session_generate(session, others, print, stdout, NULL);  // another one
 * bolmo_session_checkpoint_delete(asked);
 * @endcode
 *
 * A session is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_session_cancel, bolmo_session_reset_cancel and
 * bolmo_session_delete may be called while another call with the session is running.
 *
 * @{
 */

/** One sequence on a model. It keeps the model alive. */
typedef struct bolmo_session bolmo_session;

/** A state of a session to come back to. Any number of threads may use it at once. It keeps the model alive. */
typedef struct bolmo_session_checkpoint bolmo_session_checkpoint;

/** A session without any text. */
bolmo_status bolmo_session_create(const bolmo_model *model, bolmo_session **session);

/** Another session with the same text, which goes its own way from here. Memory is shared until one of them writes. */
bolmo_status bolmo_session_clone(bolmo_session *session, bolmo_session **clone);

/** Appends the id that begins a text. Do this once, before the first text, unless the model should see it as cut out of the middle. */
bolmo_status bolmo_session_append_bos(bolmo_session *session);

/**
 * Appends text, any bytes. Pieces of any size come to the same as all at once. `progress`, which may be NULL, is told of bytes done
 * and in all, and can cancel.
 *
 * BOLMO_CANCELLED: the session holds the bytes that were done (bolmo_session_length) and can go on from there.
 */
bolmo_status bolmo_session_append(bolmo_session *session,
                                  const void *data,
                                  size_t size,
                                  bolmo_progress_callback progress,
                                  void *user_data);

/** Appends plain ids: bytes as 4 to 259, and the special ids 0 and 1. Else as bolmo_session_append. */
bolmo_status bolmo_session_append_ids(bolmo_session *session,
                                      const uint32_t *ids,
                                      size_t count,
                                      bolmo_progress_callback progress,
                                      void *user_data);

/**
 * Stops what the session is doing, or else what it is asked to do next, within one bounded submission to the device. A generation
 * ends with BOLMO_STOP_CANCELLED and keeps what it has; appending returns BOLMO_CANCELLED. May be called from any thread at any time, but
 * not from a signal handler: let that set a flag, and a callback return it.
 */
bolmo_status bolmo_session_cancel(bolmo_session *session);

/** Takes back a bolmo_session_cancel that came too late for what it was meant for. */
bolmo_status bolmo_session_reset_cancel(bolmo_session *session);

/** How many ids the session holds, the one that begins the text included. */
bolmo_status bolmo_session_length(const bolmo_session *session, size_t *ids);

/**
 * Copies the ids from `first` on to `ids`, which has room for `capacity`: `count` gets how many were copied, none with a
 * `capacity` of 0. Ids that end a patch are fused (BOLMO_FUSED_OFFSET added).
 */
bolmo_status bolmo_session_ids(const bolmo_session *session, size_t first, uint16_t *ids, size_t capacity, size_t *count);

/** How many patches have gone through the global model. */
bolmo_status bolmo_session_patches(const bolmo_session *session, size_t *patches);

/** Bytes of device memory that the sequence holds, those that it shares with clones included. */
bolmo_status bolmo_session_device_bytes(const bolmo_session *session, uint64_t *bytes);

/** A state of the session to come back to. */
bolmo_status bolmo_session_checkpoint_create(bolmo_session *session, bolmo_session_checkpoint **checkpoint);

/** Deletes the checkpoint. NULL and handles that were deleted are left alone. */
void bolmo_session_checkpoint_delete(bolmo_session_checkpoint *checkpoint);

/**
 * Takes the session back (or over) to the checkpoint, as if nothing had happened since. Also makes a session usable again after a
 * call with it failed half-way.
 *
 * BOLMO_INVALID_ARGUMENT: the checkpoint was taken on another model.
 */
bolmo_status bolmo_session_rewind(bolmo_session *session, const bolmo_session_checkpoint *checkpoint);

/** The session as bytes, to go on from later or elsewhere. */
bolmo_status bolmo_session_snapshot(bolmo_session *session, bolmo_bytes **snapshot);

/**
 * The session that a snapshot was taken of: it goes on as if never interrupted.
 *
 * BOLMO_BAD_CHECKPOINT: the bytes are no snapshot, cut short or damaged. BOLMO_INVALID_ARGUMENT: a snapshot of another model, format
 * or version.
 */
bolmo_status bolmo_session_restore(const bolmo_model *model,
                                   const void *data,
                                   size_t size,
                                   bolmo_session **session);

/**
 * Deletes the session. If a call with it is running, that call goes on to its end. NULL and handles that were deleted are left
 * alone.
 */
void bolmo_session_delete(bolmo_session *session);

/** @} */

/**
 * @defgroup constraint Constraint
 *
 * Constraints: what a generation may write, byte for byte.
 *
 * A constraint is a regular expression or a JSON schema. A generation with one writes only texts that match it, whatever the model
 * would rather write. Bytes that must follow are not sampled, which also makes it faster. As long as the budget of bytes allows for
 * any match, the text is completed in time: near the end only bytes are chosen from which a match can still be completed.
 *
 * @code{.c}
 * bolmo_constraint *constraint;
 * const char *pattern = "(yes|no), because [a-z ]{10,60}\\.";
 * if (bolmo_constraint_create_regex(pattern, strlen(pattern), &constraint) == BOLMO_OK) {
 *     bolmo_generate_options_set_constraint(options, constraint);
 *     bolmo_constraint_delete(constraint); // the options keep what they need
 * }
 * @endcode
 *
 * Programs that choose bytes by themselves follow a text with a matcher:
 *
 * @code{.c}
 * bolmo_matcher *matcher;
 * uint8_t allowed[BOLMO_CANDIDATES];
 * bolmo_matcher_create(constraint, &matcher);
 * bolmo_matcher_allowed(matcher, 0, allowed);  // allowed[b] for byte b, allowed[256] for the end
 * bolmo_matcher_advance(matcher, "yes", 3);
 * @endcode
 *
 * @{
 */

/** What may follow a text: the 256 bytes, and its end. */
#define BOLMO_CANDIDATES 257

/** What a text must match as a whole. Compiled once; any number of threads may use it at once. */
typedef struct bolmo_constraint bolmo_constraint;

/** How far a text is within a match. For one thread at a time. */
typedef struct bolmo_matcher bolmo_matcher;

/**
 * A regular expression in the syntax of Rust's regex crate, UTF-8. The whole text must match it: `^` and `$` around it are implied.
 * `(?-u)` switches to single bytes, so `(?s-u:.)` is any byte.
 *
 * BOLMO_INVALID_ARGUMENT: the expression is malformed, or matches nothing. BOLMO_UNSUPPORTED: it is too large; the message says by
 * which limit.
 */
bolmo_status bolmo_constraint_create_regex(const void *pattern, size_t size, bolmo_constraint **constraint);

/**
 * A JSON schema, of which the common subset is understood: the text must be one JSON document that is valid against it, without
 * white space but for single spaces behind ':' and ','. Members come in the order of `properties`.
 *
 * BOLMO_INVALID_ARGUMENT: no schema, or one that nothing is valid against. BOLMO_UNSUPPORTED: a keyword that is not understood, or
 * too large. The message says where in the schema.
 */
bolmo_status bolmo_constraint_create_json_schema(const void *schema, size_t size, bolmo_constraint **constraint);

/** Whether a text matches as a whole. */
bolmo_status bolmo_constraint_matches(const bolmo_constraint *constraint, const void *data, size_t size, bool *matches);

/** Bytes of the shortest text that matches. */
bolmo_status bolmo_constraint_shortest(const bolmo_constraint *constraint, size_t *bytes);

/** Deletes the constraint; options and matchers that use it go on. NULL and handles that were deleted are left alone. */
void bolmo_constraint_delete(bolmo_constraint *constraint);

/** A matcher at the beginning of a text. */
bolmo_status bolmo_matcher_create(const bolmo_constraint *constraint, bolmo_matcher **matcher);

/** Another matcher at the same place, which goes its own way. */
bolmo_status bolmo_matcher_clone(const bolmo_matcher *matcher, bolmo_matcher **clone);

/**
 * What may follow: writes BOLMO_CANDIDATES flags, 1 or 0, to `allowed`, one for each byte and at 256 whether the text may end here. With
 * `remaining` above 0 only bytes count after which a match can be completed within that many bytes; if none can, all count.
 */
bolmo_status bolmo_matcher_allowed(const bolmo_matcher *matcher,
                                   size_t remaining,
                                   uint8_t *allowed);

/**
 * Takes the next bytes of the text.
 *
 * BOLMO_INVALID_ARGUMENT: one of them is not allowed; the matcher is then as before.
 */
bolmo_status bolmo_matcher_advance(bolmo_matcher *matcher, const void *data, size_t size);

/** Whether the text so far matches as a whole. */
bolmo_status bolmo_matcher_is_match(const bolmo_matcher *matcher, bool *is_match);

/** Deletes the matcher. NULL and handles that were deleted are left alone. */
void bolmo_matcher_delete(bolmo_matcher *matcher);

/** @} */

/**
 * @defgroup options Options
 *
 * Options of a generation.
 *
 * @code{.c}
 * bolmo_generate_options *options;
 * bolmo_generate_options_create(&options);
 * bolmo_generate_options_set_max_bytes(options, 1000);
 * bolmo_generate_options_set_temperature(options, 0.8f);
 * bolmo_generate_options_set_top_p(options, 0.95f);
 * bolmo_generate_options_set_seed(options, 42);
 * bolmo_generate_options_add_stop(options, "\n\n", 2);
 * @endcode
 *
 * Each setter checks its value at once and changes nothing if it is out of its range. A call that uses options reads them when it
 * begins: later changes count for later calls.
 *
 * @{
 */

/** How to generate. */
typedef struct bolmo_generate_options bolmo_generate_options;

/** Options with everything as it is unless set: 256 bytes, greedy. */
bolmo_status bolmo_generate_options_create(bolmo_generate_options **options);

/** The most bytes to generate, at least 1; 256 unless set. */
bolmo_status bolmo_generate_options_set_max_bytes(bolmo_generate_options *options, size_t max_bytes);

/** Divides the log-probabilities of the bytes; 0, as unless set, takes the most probable id instead of drawing one. */
bolmo_status bolmo_generate_options_set_temperature(bolmo_generate_options *options, float temperature);

/** Draws only from this many most probable bytes; 0, as unless set, is off. */
bolmo_status bolmo_generate_options_set_top_k(bolmo_generate_options *options, size_t top_k);

/** Draws only from the most probable bytes that together have at least this probability; 1, as unless set, is off. */
bolmo_status bolmo_generate_options_set_top_p(bolmo_generate_options *options, float top_p);

/** Draws only from bytes with at least this share of the most probable byte's probability; 0, as unless set, is off. */
bolmo_status bolmo_generate_options_set_min_p(bolmo_generate_options *options, float min_p);

/** Multiplies the model's log-probability of bytes among the last `window` ids: above 1 discourages them; 1, as unless set, is off. */
bolmo_status bolmo_generate_options_set_repetition_penalty(bolmo_generate_options *options, float penalty, size_t window);

/** Added to the logits of `byte`, plain and fused, in place of what was set for it before. */
bolmo_status bolmo_generate_options_set_byte_bias(bolmo_generate_options *options, uint8_t byte, float bias);

/** Added to the logits of the end of the text: above 0 ends earlier. */
bolmo_status bolmo_generate_options_set_end_bias(bolmo_generate_options *options, float bias);

/** Added to the logits of all ids that end a patch: above 0 makes patches shorter, below 0 longer. */
bolmo_status bolmo_generate_options_set_boundary_bias(bolmo_generate_options *options, float bias);

/** Where the random numbers begin: equal seeds draw equal numbers on every platform. */
bolmo_status bolmo_generate_options_set_seed(bolmo_generate_options *options, uint64_t seed);

/** Adds bytes that end the generation when they come up; they are not part of its text. They are copied. */
bolmo_status bolmo_generate_options_add_stop(bolmo_generate_options *options, const void *stop, size_t size);

/** What the text must match; NULL for nothing, as unless set. The options keep what they need of it. */
bolmo_status bolmo_generate_options_set_constraint(bolmo_generate_options *options, const bolmo_constraint *constraint);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_generate_options_delete(bolmo_generate_options *options);

/** @} */

/**
 * @defgroup generate Generate
 *
 * Generating: bytes as they come.
 *
 * @code{.c}
 * static int32_t print(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     (void)ids;
 *     return fwrite(data, 1, size, (FILE *)user_data) != size; // not 0: stop
 * }
 * ...
 * bolmo_generation *generation;
 * if (bolmo_session_generate(session, options, print, stdout, &generation) == BOLMO_OK) {
 *     int32_t stop;
 *     bolmo_generation_stop(generation, &stop);
 *     fprintf(stderr, "stop: %s\n", bolmo_stop_name(stop));
 *     bolmo_generation_delete(generation);
 * }
 * @endcode
 *
 * @{
 */

/** What a fused id is above its plain twin: it says that a patch ends there. */
#define BOLMO_FUSED_OFFSET 260

/** The plain id of byte 0; byte `b` has `b` more. */
#define BOLMO_BYTE_OFFSET 4

/** The plain id that begins a text, and that the model ends one with. */
#define BOLMO_END_ID 1

/** Why a generation ended. */
enum bolmo_stop
#ifdef __cplusplus
    : int32_t
#endif
{
    /** The budget of bytes is used up. */
    BOLMO_STOP_BUDGET = 0,
    /** The model ended the text. */
    BOLMO_STOP_END = 1,
    /** A stop string came up. */
    BOLMO_STOP_STRING = 2,
    /** bolmo_session_cancel was called, or the callback returned something else than 0. */
    BOLMO_STOP_CANCELLED = 3,
    /** The constraint is matched, and no byte can follow. */
    BOLMO_STOP_COMPLETE = 4,
};
#ifndef __cplusplus
typedef int32_t bolmo_stop;
#endif

/** What was generated. Any number of threads may use it at once. */
typedef struct bolmo_generation bolmo_generation;

/**
 * Takes bytes as they come, those of a patch at once as a rule, never bytes that may still turn out to begin a stop string. `ids` has
 * `size` items too: each byte's id, fused (BOLMO_FUSED_OFFSET added) where it ends a patch. Both are valid during the call. Returns 0 to
 * go on; any other value ends the generation.
 * Called by the thread that called bolmo_session_generate. It may call the library, but for this session, which is BOLMO_BUSY;
 * bolmo_session_cancel and bolmo_session_delete are allowed.
 */
typedef int32_t (*bolmo_piece_callback)(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data);

/**
 * Generates until something ends it (bolmo_stop). `options` may be NULL; they are read when the call begins. `callback` may be NULL.
 * `generation` may be NULL if it is not wanted. The bytes, those of a stop string included, become part of the session; the id that
 * ends a text does not.
 *
 * BOLMO_INVALID_ARGUMENT: the session has no text yet. After BOLMO_DEVICE_LOST and the like the session keeps what the callback was
 * given.
 */
bolmo_status bolmo_session_generate(bolmo_session *session,
                                    const bolmo_generate_options *options,
                                    bolmo_piece_callback callback,
                                    void *user_data,
                                    bolmo_generation **generation);

/** Why it ended (bolmo_stop). */
bolmo_status bolmo_generation_stop(const bolmo_generation *generation, int32_t *stop);

/**
 * Why it ended in a word, such as "budget", ended by a NUL. Never NULL: "unknown" for a number that this version doesn't have. Valid
 * forever.
 */
const char *bolmo_stop_name(int32_t stop);

/** The text, without a stop string. Valid until the generation is deleted. */
bolmo_status bolmo_generation_bytes(const bolmo_generation *generation, const uint8_t **data, size_t *size);

/**
 * The ids as they were chosen, fused (BOLMO_FUSED_OFFSET added) where a byte ends a patch: those of a stop string included, and a final
 * BOLMO_END_ID, plain or fused, if the model ended the text. Valid until the generation is deleted.
 */
bolmo_status bolmo_generation_ids(const bolmo_generation *generation,
                                  const uint16_t **ids,
                                  size_t *count);

/** How many patches the chosen ids ended. */
bolmo_status bolmo_generation_patches(const bolmo_generation *generation, size_t *patches);

/**
 * Whether the text as a whole matches the constraint. It does, unless the generation was cancelled, cut by a stop string, or had a
 * budget below the shortest match; false also without a constraint.
 */
bolmo_status bolmo_generation_matched(const bolmo_generation *generation, bool *matched);

/** Deletes the generation; its text stays in the session. NULL and handles that were deleted are left alone. */
void bolmo_generation_delete(bolmo_generation *generation);

/** @} */

/**
 * @defgroup sampler Sampler
 *
 * Step by step: a generation loop of the program's own.
 *
 * @code{.c}
 * float logits[BOLMO_LOGITS];
 * uint16_t id;
 * bolmo_sampler *sampler;
 * bolmo_sampler_create(options, &sampler);
 * for (int i = 0; i < 100; i++) {
 *     bolmo_session_logits(session, 0.0f, logits, BOLMO_LOGITS);
 *     bolmo_sampler_choose(sampler, session, logits, BOLMO_LOGITS, NULL, &id); // or choose it yourself
 *     uint16_t plain = id >= BOLMO_FUSED_OFFSET ? id - BOLMO_FUSED_OFFSET : id;
 *     if (plain == BOLMO_END_ID) break;
 *     bolmo_session_push(session, id);
 *     putchar(plain - BOLMO_BYTE_OFFSET);
 * }
 * bolmo_sampler_delete(sampler);
 * @endcode
 *
 * Of the 520 ids, 4 to 259 are the bytes, 1 ends the text, 0, 2 and 3 are never chosen; adding 260 says that a patch ends there.
 *
 * @{
 */

/** Logits of a step: one for each id, plain and fused. */
#define BOLMO_LOGITS 520

/** Chooses ids, with its own stream of random numbers. For one thread at a time. */
typedef struct bolmo_sampler bolmo_sampler;

/**
 * Copies the logits of the next id to `logits`, which has room for `capacity` numbers, BOLMO_LOGITS or more. Behind appended text this first
 * decides whether its last byte ends a patch, with `boundary_bias` added to the logit that it does.
 *
 * BOLMO_INVALID_ARGUMENT: the session has no text yet.
 */
bolmo_status bolmo_session_logits(bolmo_session *session,
                                  float boundary_bias,
                                  float *logits,
                                  size_t capacity);

/**
 * Appends the id that was chosen: 1, 4 to 259, or one of them plus 260. It goes through the model with the next call that needs its
 * logits.
 */
bolmo_status bolmo_session_push(bolmo_session *session, uint16_t id);

/**
 * A sampler at the beginning of the random numbers of its seed. `options` may be NULL; of them it takes what concerns choosing, not
 * budget, stop strings and constraint.
 */
bolmo_status bolmo_sampler_create(const bolmo_generate_options *options, bolmo_sampler **sampler);

/**
 * Chooses the id that follows what `session` holds, from BOLMO_LOGITS `logits`: a byte's, or 1 or 261 for the end. `allowed`, which may be
 * NULL, has BOLMO_CANDIDATES flags as from bolmo_matcher_allowed: where it is 0, neither twin is chosen.
 */
bolmo_status bolmo_sampler_choose(bolmo_sampler *sampler,
                                  bolmo_session *session,
                                  const float *logits,
                                  size_t count,
                                  const uint8_t *allowed,
                                  uint16_t *id);

/** Deletes the sampler. NULL and handles that were deleted are left alone. */
void bolmo_sampler_delete(bolmo_sampler *sampler);

/** @} */

/**
 * @defgroup score Score
 *
 * Scoring: how probable a model finds a text.
 *
 * @code{.c}
 * bolmo_score *score;
 * double bits;
 * if (bolmo_model_score(model, text, size, NULL, &score) == BOLMO_OK) {
 *     bolmo_score_number(score, BOLMO_SCORE_BITS_PER_BYTE_JOINT, &bits);
 *     printf("%.4f bits per byte\n", bits);
 *     bolmo_score_delete(score);
 * }
 * @endcode
 *
 * @{
 */

/** A number of a score. */
enum bolmo_score_value
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Bits a byte of the bytes with their flags, which say where patches end. */
    BOLMO_SCORE_BITS_PER_BYTE_JOINT = 0,
    /**
     * Bits a byte of the bytes whatever their flags. It sees a little of each next byte, so it is not comparable with the bits per
     * byte of a subword model.
     */
    BOLMO_SCORE_BITS_PER_BYTE_FOLDED = 1,
    /** Natural log-probability of the bytes with their flags. */
    BOLMO_SCORE_LOG_LIKELIHOOD_JOINT = 2,
    /** Natural log-probability of the bytes whatever their flags. */
    BOLMO_SCORE_LOG_LIKELIHOOD_FOLDED = 3,
    /** Bytes that were predicted. */
    BOLMO_SCORE_BYTES = 4,
    /** Patches that ended within the text. */
    BOLMO_SCORE_PATCHES = 5,
};
#ifndef __cplusplus
typedef int32_t bolmo_score_value;
#endif

/** A tensor of the forward pass, for n ids, p patches and hidden size D. */
enum bolmo_tensor
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Encoder output behind its norm, `[n, D]`. */
    BOLMO_TENSOR_ENCODER_OUT = 0,
    /** Log-probability that a patch ends, `[n]`. */
    BOLMO_TENSOR_BOUNDARY_LOGPROBS = 1,
    /** Input of the global model, `[p, D]`. */
    BOLMO_TENSOR_PATCH_EMBEDDINGS = 2,
    /** Output of the global model, `[p, D]`. */
    BOLMO_TENSOR_GLOBAL_OUT = 3,
    /** Decoder output in front of the final norm, `[n, D]`. */
    BOLMO_TENSOR_DECODER_OUT = 4,
    /** Behind the final norm, `[n, D]`. */
    BOLMO_TENSOR_FINAL_HIDDEN = 5,
    /** `[n, 520]` */
    BOLMO_TENSOR_LOGITS = 6,
};
#ifndef __cplusplus
typedef int32_t bolmo_tensor;
#endif

/** How probable a text is. Any number of threads may use it at once. */
typedef struct bolmo_score bolmo_score;

/** How to score. */
typedef struct bolmo_score_options bolmo_score_options;

/** Options with everything as it is unless set: the model finds the boundaries, no tensors, no progress. */
bolmo_status bolmo_score_options_create(bolmo_score_options **options);

/** Says which bytes end a patch, one flag (0 or 1) a byte or id, instead of the model. They are copied; NULL and 0 take them back. */
bolmo_status bolmo_score_options_set_boundaries(bolmo_score_options *options, const uint8_t *flags, size_t count);

/** Whether to keep every tensor on the way, which takes memory for about 600 + 6 D numbers a byte. */
bolmo_status bolmo_score_options_set_tensors(bolmo_score_options *options, bool keep);

/** Whom to tell about progress, in bytes, and who can cancel; NULL for nobody. */
bolmo_status bolmo_score_options_set_progress(bolmo_score_options *options, bolmo_progress_callback progress, void *user_data);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_score_options_delete(bolmo_score_options *options);

/**
 * Scores a text, any bytes. The id that begins a text goes in front of it and a newline behind it as lookahead; neither is counted.
 * `options` may be NULL; they are read during the call only.
 */
bolmo_status bolmo_model_score(const bolmo_model *model,
                               const void *data,
                               size_t size,
                               const bolmo_score_options *options,
                               bolmo_score **score);

/** Scores plain ids (0, 1, 4 to 259) as they are, at least two. The first one is not predicted; the last one never ends a patch. */
bolmo_status bolmo_model_score_ids(const bolmo_model *model,
                                   const uint32_t *ids,
                                   size_t count,
                                   const bolmo_score_options *options,
                                   bolmo_score **score);

/** A number of the score (bolmo_score_value). */
bolmo_status bolmo_score_number(const bolmo_score *score, int32_t which, double *number);

/** Which bytes or ids end a patch, one flag (0 or 1) each. Valid until the score is deleted. */
bolmo_status bolmo_score_boundaries(const bolmo_score *score, const uint8_t **flags, size_t *count);

/**
 * A tensor (bolmo_tensor), row by row; `columns` is 1 for one with one dimension. Valid until the score is deleted.
 *
 * BOLMO_NOT_FOUND: the options didn't ask for tensors.
 */
bolmo_status bolmo_score_tensor(const bolmo_score *score, int32_t which, const float **data, size_t *rows, size_t *columns);

/** Deletes the score. NULL and handles that were deleted are left alone. */
void bolmo_score_delete(bolmo_score *score);

/** @} */

/**
 * @defgroup merge Merge
 *
 * Task arithmetic: what a subword model learnt after its pretraining, added to the Bolmo model that was made from it.
 *
 * Global blocks and final norm become `bolmo + alpha * (post_trained - base)`; what was made for bytes stays. No device is used.
 *
 * @code{.c}
 * bolmo_merge_options *options;
 * bolmo_bytes *report;
 * bolmo_merge_options_create(&options);
 * bolmo_merge_options_set_bolmo(options, "bolmo-7b", 8);
 * bolmo_merge_options_set_base(options, "olmo-3-7b", 9);
 * bolmo_merge_options_set_post_trained(options, "olmo-3-7b-instruct", 18);
 * if (bolmo_merge(options, "bolmo-7b-instruct", 17, &report) == BOLMO_OK) {
 *     const uint8_t *json;
 *     size_t size;
 *     bolmo_bytes_get(report, &json, &size);
 *     fwrite(json, 1, size, stdout);
 *     bolmo_bytes_delete(report);
 * }
 * bolmo_merge_options_delete(options);
 * @endcode
 *
 * @{
 */

/** What to merge. */
typedef struct bolmo_merge_options bolmo_merge_options;

/** Options without paths, which have to be set, and with the rest as it is unless set: alpha 1, embeddings left alone, no progress. */
bolmo_status bolmo_merge_options_create(bolmo_merge_options **options);

/** The folder of the Bolmo model. Paths are as in bolmo_checkpoint_open, and are copied. */
bolmo_status bolmo_merge_options_set_bolmo(bolmo_merge_options *options, const void *path, size_t size);

/** The folder of the subword model that it was made from: OLMo 2 or 3, Qwen 3 or Llama, in the Hugging Face layout. */
bolmo_status bolmo_merge_options_set_base(bolmo_merge_options *options, const void *path, size_t size);

/** The folder of a model that was trained from the base model, and differs from it in its weights only. */
bolmo_status bolmo_merge_options_set_post_trained(bolmo_merge_options *options, const void *path, size_t size);

/** How much of the difference between the two is added, a finite number; 1 unless set. */
bolmo_status bolmo_merge_options_set_alpha(bolmo_merge_options *options, float alpha);

/** Whether the suffix table moves too, by the difference of the token embeddings; not unless set. */
bolmo_status bolmo_merge_options_set_embeddings(bolmo_merge_options *options, bool embeddings);

/** Whom to tell about progress, in bytes of weight files, and who can cancel; NULL for nobody. */
bolmo_status bolmo_merge_options_set_progress(bolmo_merge_options *options, bolmo_progress_callback progress, void *user_data);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_merge_options_delete(bolmo_merge_options *options);

/**
 * Writes the merged model to the folder `out`, which must not exist or be empty, with the files of the Bolmo folder. The folder
 * appears when it is complete. `report` is JSON: `alpha`, `embeddings`, `files`, `bytes`, `moved` and `kept` as counts, and a list
 * `tensors` of objects with `name`, `shape`, `dtype`, `moved`, and `largest_change` and `rms_change` or else `why`.
 *
 * BOLMO_INVALID_ARGUMENT: a path is missing, the models don't belong together, the Bolmo model was quantised ahead, or the folder has
 * files in it. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT: the message names the file and the tensor or key. BOLMO_UNSUPPORTED: a subword
 * model of another kind, or sums beyond f16. BOLMO_CANCELLED, BOLMO_IO.
 */
bolmo_status bolmo_merge(const bolmo_merge_options *options,
                         const void *out,
                         size_t size,
                         bolmo_bytes **report);

/** @} */

/**
 * @defgroup training Training
 *
 * Training: a subword model from nothing, and the two stages that make a byte-level model of one.
 *
 * What is trained, on what and how is a text in TOML, as in `examples/byteify`; texts may come from memory as well as from the files
 * that it names. The program makes the steps, a few at a time, and saves and exports when it wants to:
 *
 * @code{.c}
 * static int32_t show(const char *metrics, size_t size, void *user_data) {
 *     return fwrite(metrics, 1, size, (FILE *)user_data) != size; // any other value than 0 stops
 * }
 * ...
 * bolmo_trainer_options *options;
 * bolmo_trainer *trainer;
 * bolmo_trainer_options_create(&options);
 * bolmo_trainer_options_set_kind(options, BOLMO_TRAIN_STAGE1);
 * bolmo_trainer_options_set_config(options, toml, strlen(toml));
 * bolmo_trainer_options_add_text(options, text, strlen(text));
 * bolmo_status status = bolmo_trainer_create(engine, options, &trainer);
 * bolmo_trainer_options_delete(options);
 * if (status == BOLMO_OK) status = bolmo_trainer_step(trainer, 100, show, stdout);
 * if (status == BOLMO_OK) status = bolmo_trainer_export(trainer, "model", 5);
 * bolmo_trainer_delete(trainer);
 * @endcode
 *
 * A trainer is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_trainer_cancel, bolmo_trainer_reset_cancel and
 * bolmo_trainer_delete may be called while another call with the trainer is running. Libraries that are built without the cargo
 * feature `training` lack this group.
 *
 * @{
 */

/** Which training it is. */
enum bolmo_train_kind
#ifdef __cplusplus
    : int32_t
#endif
{
    /** A subword model: a new one, or a folder's further. */
    BOLMO_TRAIN_SUBWORD = 0,
    /** The first stage of making a byte-level model: the local parts learn what a subword model does, whose blocks are frozen. */
    BOLMO_TRAIN_STAGE1 = 1,
    /** The second stage: everything learns, end to end. */
    BOLMO_TRAIN_STAGE2 = 2,
};
#ifndef __cplusplus
typedef int32_t bolmo_train_kind;
#endif

/** A run of training on a device, which it keeps open. */
typedef struct bolmo_trainer bolmo_trainer;

/** What to train, and on what. */
typedef struct bolmo_trainer_options bolmo_trainer_options;

/**
 * Gets the metrics of a step: one JSON object, UTF-8 without a NUL at the end, valid during the call. Returns 0 to go on; any other
 * value stops. Called by the thread that made the call. It may call the library, but for what the call itself uses: that is
 * BOLMO_BUSY.
 */
typedef int32_t (*bolmo_metrics_callback)(const char *metrics, size_t size, void *user_data);

/** Options without a kind and a configuration, which have to be set, without texts, and for a new run. */
bolmo_status bolmo_trainer_options_create(bolmo_trainer_options **options);

/** Which training it is (bolmo_train_kind). */
bolmo_status bolmo_trainer_options_set_kind(bolmo_trainer_options *options, int32_t kind);

/** The configuration, a text in TOML, which is copied; bolmo_trainer_create reads it. Paths in it are relative to the current folder. */
bolmo_status bolmo_trainer_options_set_config(bolmo_trainer_options *options,
                                              const void *toml,
                                              size_t size);

/**
 * Replaces or adds one value of the configuration: `key=value` with a dotted key, as in `optimiser.steps=100`. What is no value of TOML
 * is a text. Of two for one key the later one counts.
 */
bolmo_status bolmo_trainer_options_set_override(bolmo_trainer_options *options,
                                                const void *pair,
                                                size_t size);

/**
 * Adds a text to train on, UTF-8, which is copied, to the files that `data.train` names. Between its documents are lines that say
 * `data.separator`.
 */
bolmo_status bolmo_trainer_options_add_text(bolmo_trainer_options *options, const void *data, size_t size);

/**
 * Adds a text to evaluate on, as bolmo_trainer_options_add_text. Without any, and without files in `data.held_out`, a share of the
 * documents to train on is held out.
 */
bolmo_status bolmo_trainer_options_add_held_out_text(bolmo_trainer_options *options, const void *data, size_t size);

/**
 * Other than 0: the run goes on from the last snapshot in its folder, if there is one. 0, as unless set: its folder must not hold a
 * run.
 */
bolmo_status bolmo_trainer_options_set_resume(bolmo_trainer_options *options, int32_t resume);

/** Deletes the options. NULL and handles that were deleted are left alone. */
void bolmo_trainer_options_delete(bolmo_trainer_options *options);

/**
 * Reads data and model, and makes the run ready on the device. The options are read during the call only.
 *
 * BOLMO_INVALID_ARGUMENT: kind, configuration or texts are missing, the configuration has a key that is none or a value that cannot
 * be, or its folder holds a run and it is not to be resumed. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT, BOLMO_IO: the message names the
 * file. BOLMO_OUT_OF_MEMORY, BOLMO_UNSUPPORTED.
 */
bolmo_status bolmo_trainer_create(const bolmo_engine *engine, const bolmo_trainer_options *options, bolmo_trainer **trainer);

/**
 * Makes `count` steps, or as many as are left of `optimiser.steps`, maybe none. After each one `callback`, which may be NULL, gets its
 * metrics, and can stop. Nothing is written to the run's folder.
 *
 * BOLMO_CANCELLED: stopped by the callback or by bolmo_trainer_cancel, with steps left to make; another call goes on from there. After
 * any other failure go on from the last snapshot, with a new trainer.
 */
bolmo_status bolmo_trainer_step(bolmo_trainer *trainer,
                                uint64_t count,
                                bolmo_metrics_callback callback,
                                void *user_data);

/**
 * Stops bolmo_trainer_step after the step under way, or else before the first step of the next call that has steps to make. May be
 * called from any thread at any time, but not from a signal handler: let that set a flag, and the callback return it.
 */
bolmo_status bolmo_trainer_cancel(bolmo_trainer *trainer);

/** Takes back a bolmo_trainer_cancel that came too late for what it was meant for. */
bolmo_status bolmo_trainer_reset_cancel(bolmo_trainer *trainer);

/** Steps that are behind the run, those before it was resumed included. */
bolmo_status bolmo_trainer_steps(const bolmo_trainer *trainer, uint64_t *steps);

/** Metrics on the text that is held out, as one JSON object. */
bolmo_status bolmo_trainer_evaluate(bolmo_trainer *trainer, bolmo_bytes **metrics);

/**
 * Writes a snapshot into the folder `snapshots` of the run's own, and deletes the oldest but `every.keep`. It appears when it is
 * complete; a run that is resumed goes on from it as if never interrupted.
 */
bolmo_status bolmo_trainer_save(bolmo_trainer *trainer);

/**
 * Writes the model as a folder in the Hugging Face layout, in place of a model that is there. Paths are as in bolmo_checkpoint_open.
 *
 * BOLMO_INVALID_ARGUMENT: the folder has other files in it.
 */
bolmo_status bolmo_trainer_export(bolmo_trainer *trainer,
                                  const void *path,
                                  size_t size);

/**
 * Deletes the trainer. If a call with it is running, that call goes on to its end. NULL and handles that were deleted are left
 * alone.
 */
void bolmo_trainer_delete(bolmo_trainer *trainer);

/** @} */

#ifdef __cplusplus
}
#endif

#endif /* BOLMO_H */
