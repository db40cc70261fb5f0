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

#ifndef BOLMO_H
#define BOLMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Version of the library that this header belongs to; bolmo_version() is that of the library in use. */
#define BOLMO_VERSION "0.1.0"
/** Major number of the version. */
#define BOLMO_VERSION_MAJOR 0
/** Minor number of the version. */
#define BOLMO_VERSION_MINOR 1
/** Patch number of the version. */
#define BOLMO_VERSION_PATCH 0

/**
 * Stands before every function. On Windows, define BOLMO_STATIC to link the static library.
 */
#ifndef BOLMO_API
#if defined(_WIN32) && !defined(BOLMO_STATIC)
#define BOLMO_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define BOLMO_API __attribute__((visibility("default")))
#else
#define BOLMO_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @defgroup status Status
 *
 * Errors: status codes and their messages.
 *
 * Every function that can fail returns a `bolmo_status`. `BOLMO_OK` is 0. Each thread has its own message, about its
 * last failed call. It is kept in one place for as long as the thread lives, so a call and its message may be
 * arguments of the same `printf`:
 *
 * @code{.c}
 * bolmo_status status = bolmo_engine_create(NULL, &engine);
 * if (status != BOLMO_OK) {
 *     fprintf(stderr, "%s: %s\n", bolmo_status_name(status), bolmo_last_error_message());
 * }
 * printf("%s: %s\n", bolmo_status_name(bolmo_session_append_bos(NULL)), bolmo_last_error_message());
 * @endcode
 *
 * @{
 */

/** Result of a call. Codes keep their meaning; new ones may be added, so treat an unknown code as a failure. */
enum bolmo_status
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Success. */
    BOLMO_OK = 0,
    /** An argument is NULL, out of range or contradicts another one; or a handle was deleted or has another type. */
    BOLMO_INVALID_ARGUMENT = 1,
    /** A file, an adapter or an item that was asked for does not exist. */
    BOLMO_NOT_FOUND = 2,
    /** A checkpoint, a tokenizer or a snapshot is damaged or contradicts itself. */
    BOLMO_BAD_CHECKPOINT = 3,
    /** The input is well formed, but this version, model or adapter does not support it. */
    BOLMO_UNSUPPORTED = 4,
    /** The device or the host has too little memory. */
    BOLMO_OUT_OF_MEMORY = 5,
    /** The device was lost: create the engine again, and load the model on it again. */
    BOLMO_DEVICE_LOST = 6,
    /** The call was cancelled, by a callback or by another thread. */
    BOLMO_CANCELLED = 7,
    /** The object is in use by another thread, or by the call that this callback runs in. */
    BOLMO_BUSY = 8,
    /** Reading or writing failed. */
    BOLMO_IO = 9,
    /** A bug in this library; please report it. */
    BOLMO_INTERNAL = 10,
    /** The engine is suspended: resume it, then repeat the call. */
    BOLMO_SUSPENDED = 11,
};
#ifndef __cplusplus
typedef int32_t bolmo_status;
#endif

/**
 * Message of this thread's last failed call: one sentence, UTF-8, with a NUL at the end. Never NULL; empty if no call
 * has failed yet. A message of more than 4095 bytes is cut at a character and ends with an ellipsis. The text stays
 * until this thread's next failing call returns; the pointer is the same for every call of a thread, and valid until
 * the thread ends. The `_delete` functions never fail.
 */
BOLMO_API const char *bolmo_last_error_message(void);

/**
 * Name of a status, such as "bad checkpoint", with a NUL at the end. Never NULL: "unknown status" for a code that this
 * version doesn't have. Valid forever.
 */
BOLMO_API const char *bolmo_status_name(int32_t status);

/** @} */

/**
 * @defgroup library Library
 *
 * The library itself: its version, and its log.
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

/** Version of the ABI that a header describes. It grows when something is added; existing names keep their meaning. */
#define BOLMO_ABI_VERSION 7

/** How much is logged. */
enum bolmo_log_level
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Nothing. */
    BOLMO_LOG_OFF = 0,
    /** Failures that no call can return, such as the loss of a device. */
    BOLMO_LOG_ERROR = 1,
    /** Problems that don't stop the work. */
    BOLMO_LOG_WARN = 2,
    /**
     * Progress of the work, a line each: an engine opened, a checkpoint opened, a model loaded, a generation or a
     * score finished, training that begins, evaluates, saves.
     */
    BOLMO_LOG_INFO = 3,
    /**
     * Details for finding a fault: adapters that were considered and why, kernels, sessions, appended texts,
     * snapshots, steps of training.
     */
    BOLMO_LOG_DEBUG = 4,
    /**
     * Every submission to the device, and the graphics library's own messages from its level "info" up. At the other
     * levels only its warnings and errors are included.
     */
    BOLMO_LOG_TRACE = 5,
};
#ifndef __cplusplus
typedef int32_t bolmo_log_level;
#endif

/**
 * Receives a line of the log: `text` has `size` bytes of UTF-8 without a NUL at the end, and is valid during the call.
 * Called from any thread, also from several at once. It must not call the library: functions return BOLMO_BUSY, and
 * `_delete` functions do nothing.
 */
typedef void (*bolmo_log_callback)(int32_t level, const char *text, size_t size, void *user_data);

/**
 * The ABI version of this library. Compare it with BOLMO_ABI_VERSION of the header that the program was compiled with:
 * a library with a smaller number lacks something that the header declares.
 */
BOLMO_API uint32_t bolmo_abi_version(void);

/** The library's version, such as "0.1.0", with a NUL at the end. Valid forever. */
BOLMO_API const char *bolmo_version(void);

/**
 * Passes log messages up to `level` (bolmo_log_level) to `callback`. NULL or BOLMO_LOG_OFF turns logging off. Without
 * a callback nothing is logged. No message contains text that a model reads or writes; paths and names of adapters
 * do occur. When the function returns, the previous callback is no longer running.
 */
BOLMO_API bolmo_status bolmo_set_log_callback(int32_t level, bolmo_log_callback callback, void *user_data);

/** Number of handles, of all types, that were created and not deleted: 0 when a program has cleaned up. */
BOLMO_API size_t bolmo_handle_count(void);

/** @} */

/**
 * @defgroup text Text
 *
 * Bytes that the library allocated, and text for display.
 *
 * Models write bytes, and a chunk of output may end in the middle of a character. For display, use an assembler, which
 * holds incomplete characters back until the rest has arrived:
 *
 * @code{.c}
 * static int32_t show(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     const char *text;
 *     size_t length;
 *     (void)ids;
 *     if (bolmo_utf8_push((bolmo_utf8 *)user_data, data, size, &text, &length) != BOLMO_OK) return 1;
 *     return fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0;
 * }
 * @endcode
 *
 * @{
 */

/** Bytes that the library allocated for the caller, such as a snapshot. */
typedef struct bolmo_bytes bolmo_bytes;

/** Assembles whole characters from chunks of bytes. For one thread at a time. */
typedef struct bolmo_utf8 bolmo_utf8;

/** Gets the bytes and their number. `data` stays valid until the handle is deleted. */
BOLMO_API bolmo_status bolmo_bytes_get(const bolmo_bytes *bytes, const uint8_t **data, size_t *size);

/** Deletes the bytes. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_bytes_delete(bolmo_bytes *bytes);

/** Creates an assembler at the start of a text. */
BOLMO_API bolmo_status bolmo_utf8_create(bolmo_utf8 **assembler);

/**
 * Takes the next bytes and returns the text that is complete by now, which may be empty. Invalid UTF-8 becomes U+FFFD.
 * `text` has `length` bytes of UTF-8 without a NUL at the end, and is valid until the next call with this assembler.
 */
BOLMO_API bolmo_status bolmo_utf8_push(bolmo_utf8 *assembler,
                                       const void *data,
                                       size_t size,
                                       const char **text,
                                       size_t *length);

/**
 * Ends the text: returns U+FFFD if it stops inside a character, else an empty text. The assembler can then be used for
 * another text.
 */
BOLMO_API bolmo_status bolmo_utf8_finish(bolmo_utf8 *assembler, const char **text, size_t *length);

/** Deletes the assembler. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_utf8_delete(bolmo_utf8 *assembler);

/** @} */

/**
 * @defgroup adapters Adapters
 *
 * Adapters: the devices of this machine that could run a model, before any of them is opened.
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

/** A text property of an adapter. */
enum bolmo_adapter_text
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Name. */
    BOLMO_ADAPTER_NAME = 0,
    /** "discrete GPU", "integrated GPU", "virtual GPU", "software", "other" or "cpu". */
    BOLMO_ADAPTER_KIND = 1,
    /** "vulkan", "metal", "dx12" or "cpu". */
    BOLMO_ADAPTER_BACKEND = 2,
    /** Driver and version. */
    BOLMO_ADAPTER_DRIVER = 3,
    /** Why the adapter would be used, or why not. */
    BOLMO_ADAPTER_REASON = 4,
};
#ifndef __cplusplus
typedef int32_t bolmo_adapter_text;
#endif

/** A numeric property of an adapter. */
enum bolmo_adapter_number
#ifdef __cplusplus
    : int32_t
#endif
{
    /** 1 for the adapter that would be used, else 0. */
    BOLMO_ADAPTER_CHOSEN = 0,
    /** 1 if the library can run on it, else 0. */
    BOLMO_ADAPTER_USABLE = 1,
    /** 1 if it runs on the CPU, else 0. */
    BOLMO_ADAPTER_SOFTWARE = 2,
    /** Largest binding, in bytes. */
    BOLMO_ADAPTER_MAX_BINDING_BYTES = 3,
    /** Largest buffer, in bytes. */
    BOLMO_ADAPTER_MAX_BUFFER_BYTES = 4,
    /** Workgroup memory, in bytes. */
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

/** The adapters of this machine at the time when the list was made. */
typedef struct bolmo_adapters bolmo_adapters;

/**
 * Lists the adapters of this machine, and marks the one that `bolmo_engine_options_set_adapter` with the same choice
 * would use. An empty list is not a failure.
 */
BOLMO_API bolmo_status bolmo_adapters_list(const void *choice, size_t choice_size, bolmo_adapters **list);

/** Number of adapters in the list. */
BOLMO_API bolmo_status bolmo_adapters_count(const bolmo_adapters *list, size_t *count);

/**
 * Gets a text property (bolmo_adapter_text) of the adapter at `index`: UTF-8, with a NUL at the end. `size`, which may
 * be NULL, receives the size without the NUL. Valid until the list is deleted.
 *
 * BOLMO_NOT_FOUND: the list has no such adapter.
 */
BOLMO_API bolmo_status bolmo_adapters_text(const bolmo_adapters *list,
                                           size_t index,
                                           int32_t which,
                                           const char **text,
                                           size_t *size);

/**
 * Gets a numeric property (bolmo_adapter_number) of the adapter at `index`.
 *
 * BOLMO_NOT_FOUND: the list has no such adapter.
 */
BOLMO_API bolmo_status bolmo_adapters_number(const bolmo_adapters *list, size_t index, int32_t which, uint64_t *number);

/** Deletes the list. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_adapters_delete(bolmo_adapters *list);

/** @} */

/**
 * @defgroup engine Engine
 *
 * Engines: open devices, each for any number of models.
 *
 * @code{.c}
 * bolmo_engine_options *options;
 * bolmo_engine *engine;
 * bolmo_engine_options_create(&options);
 * bolmo_engine_options_set_adapter(options, "cpu", strlen("cpu"));
 * bolmo_status status = bolmo_engine_create(options, &engine);
 * bolmo_engine_options_delete(options);
 * @endcode
 *
 * @{
 */

/** Arithmetic of products with matrices in q8 and q4, on the CPU device. */
typedef enum {
    /** Weights are converted to f32. */
    BOLMO_PRODUCTS_F32,
    /**
     * What is multiplied with the weights is rounded to 8 bits, in blocks of 32 values with a scale. This is faster,
     * most of all for long prompts, and less exact.
     */
    BOLMO_PRODUCTS_INT8,
} bolmo_products;

/** An open device. Any number of threads may use it at once. */
typedef struct bolmo_engine bolmo_engine;

/** Options for opening an engine. */
typedef struct bolmo_engine_options bolmo_engine_options;

/** Creates options with the defaults: the best adapter. */
BOLMO_API bolmo_status bolmo_engine_options_create(bolmo_engine_options **options);

/**
 * Selects the adapter: a part of its name, driver or backend, its number in the list, "low-power", "cpu",
 * "software", or "auto".
 * "auto" and an empty choice prefer a discrete GPU, then an integrated one, then a virtual one, then the CPU.
 * "low-power" prefers an integrated GPU, then the CPU, then a virtual GPU, then a discrete one. "cpu" is the library's
 * own device, which needs no driver; "software" is a driver that emulates a GPU on the CPU, for tests.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_adapter(bolmo_engine_options *options, const void *choice, size_t size);

/**
 * Limits bindings to `bytes` (at least 65536) where the adapter offers more; larger matrices are split. 0, the
 * default: the adapter's own limit.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_max_binding_bytes(bolmo_engine_options *options, uint64_t bytes);

/**
 * Sets how many threads compute on the CPU device, 1 to 256. 0, the default: the environment variable BOLMO_THREADS,
 * else one for each physical core that the process may use. Engines share their threads, and results don't depend on
 * how many there are.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_threads(bolmo_engine_options *options, size_t threads);

/**
 * Sets the arithmetic of products with matrices in q8 and q4 (bolmo_products). The default is BOLMO_PRODUCTS_F32.
 * Opening an adapter other than the CPU device with BOLMO_PRODUCTS_INT8 fails with BOLMO_UNSUPPORTED.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_products(bolmo_engine_options *options, int32_t products);

/**
 * Sets the size in bytes from which on the CPU device uses a tensor where the checkpoint's file is mapped, if it is
 * stored in the wanted format. 0, the default: the library decides. UINT64_MAX copies all tensors, for files that
 * other programs may write to while a model exists.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_in_place_bytes(bolmo_engine_options *options, uint64_t bytes);

/**
 * Sets the folder that caches compiled kernels, so that models load faster from the second time on, where the driver
 * supports it. It is created when it is needed, and its files may be deleted at any time. A `size` of 0, the default:
 * nothing is written. Paths are as in bolmo_checkpoint_open. The CPU device compiles nothing.
 */
BOLMO_API bolmo_status bolmo_engine_options_set_kernel_cache(bolmo_engine_options *options,
                                                             const void *path,
                                                             size_t size);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_engine_options_delete(bolmo_engine_options *options);

/**
 * Opens a device. `options` may be NULL; they are read during the call only.
 *
 * BOLMO_NOT_FOUND: no adapter matches; the message lists the adapters found. BOLMO_UNSUPPORTED: the adapter cannot be
 * opened. BOLMO_OUT_OF_MEMORY: there is too little memory, or too little address space for graphics drivers (see the
 * first page). BOLMO_IO: no thread can be started. The engine belongs to this process: forks of it cannot use it.
 */
BOLMO_API bolmo_status bolmo_engine_create(const bolmo_engine_options *options, bolmo_engine **engine);

/**
 * Gets a text property (bolmo_adapter_text) of the engine's adapter: UTF-8, with a NUL at the end. `size`, which may
 * be NULL, receives the size without the NUL. Valid until the engine is deleted.
 */
BOLMO_API bolmo_status bolmo_engine_text(const bolmo_engine *engine, int32_t which, const char **text, size_t *size);

/** Gets a numeric property (bolmo_adapter_number) of the engine's adapter. */
BOLMO_API bolmo_status bolmo_engine_number(const bolmo_engine *engine, int32_t which, uint64_t *number);

/**
 * Suspends the engine, as before a mobile app goes to the background (see the first page). When this returns, the
 * device is idle, and nothing is submitted to it until bolmo_engine_resume. Calls in progress on other threads pause,
 * and go on after bolmo_engine_resume. bolmo_session_cancel ends those of a session at once; a load, a score and a
 * training step that pause end with bolmo_engine_destroy_device only. A batch pauses as a whole. Calls that begin
 * meanwhile and need the device return BOLMO_SUSPENDED. Waits for the submissions in progress, each of which is
 * bounded. Suspending twice is the same as once. May be called in callbacks: the call that the callback belongs to
 * pauses when it returns. If bolmo_engine_resume is called meanwhile, this returns.
 *
 * BOLMO_DEVICE_LOST: the device is lost.
 */
BOLMO_API bolmo_status bolmo_engine_suspend(bolmo_engine *engine);

/**
 * Resumes a suspended engine. Does nothing if it is not suspended.
 *
 * BOLMO_DEVICE_LOST: the device was lost meanwhile, and paused calls end with the same status. Create the engine and
 * load the model again; sessions can be restored from snapshots.
 */
BOLMO_API bolmo_status bolmo_engine_resume(bolmo_engine *engine);

/**
 * Releases memory that can be made again, for when the system runs short of it. `released`, which may be NULL,
 * receives the number of bytes by which the device's memory has shrunk. These are the buffers of prompts, which are
 * most of it, suffix tables, and what idle sessions need to generate; they are made again when they are needed, and
 * results stay the same. What is in use is released when the call that uses it ends, and is not counted. Weights,
 * sessions' texts and compiled kernels are kept. A suspended engine may be trimmed.
 */
BOLMO_API bolmo_status bolmo_engine_trim(bolmo_engine *engine, uint64_t *released);

/**
 * Releases the device and all its memory at once, even if it is in use: every later call that needs the device, with
 * the engine, its models or their sessions, returns BOLMO_DEVICE_LOST. The handles must still be deleted.
 */
BOLMO_API bolmo_status bolmo_engine_destroy_device(bolmo_engine *engine);

/**
 * Deletes the engine's handle. The device is closed when its last model is gone too; a suspended one is resumed, since
 * nothing else could resume it. NULL and deleted handles are ignored.
 */
BOLMO_API void bolmo_engine_delete(bolmo_engine *engine);

/** @} */

/**
 * @defgroup checkpoint Checkpoint
 *
 * Checkpoints: the files of a model, opened and checked but not loaded yet.
 *
 * A checkpoint is a folder with `config.json` and safetensors files, or the same parts from memory or from a reader of
 * the program's own. Nearly all models also need the `tokenizer.json` of the subword model that they were made from.
 * Opening reads headers only. Weights are read while a model is loaded; the checkpoint may be deleted after that.
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
 *     // Bytes read, 0 at the end, below 0 on errors.
 *     return my_asset_read((my_asset *)user_data, offset, out, size);
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

/** Format of matrices on the device. Norms and biases are always f32. */
enum bolmo_format
#ifdef __cplusplus
    : int32_t
#endif
{
    /** 32 bits per weight. */
    BOLMO_F32 = 0,
    /** 16 bits per weight. */
    BOLMO_F16 = 1,
    /** 8 bits per weight, and a scale for every 32 weights. */
    BOLMO_Q8 = 2,
    /** 4 bits per weight, and a scale for every 32 weights. */
    BOLMO_Q4 = 3,
};
#ifndef __cplusplus
typedef int32_t bolmo_format;
#endif

/** A numeric property of a model. */
enum bolmo_model_property
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Number of weights, all parts together. */
    BOLMO_MODEL_PARAMETERS = 0,
    /** Width of the residual stream. */
    BOLMO_MODEL_HIDDEN_SIZE = 1,
    /** Local layers before the boundary predictor. */
    BOLMO_MODEL_ENCODER_LAYERS = 2,
    /** Global blocks. */
    BOLMO_MODEL_GLOBAL_LAYERS = 3,
    /** Local layers after the global blocks. */
    BOLMO_MODEL_DECODER_LAYERS = 4,
    /** Rows of the suffix table; 0 for a model without one. Such a model needs no tokenizer.json. */
    BOLMO_MODEL_SUFFIX_ROWS = 5,
    /** Logits per step: 520. */
    BOLMO_MODEL_LOGITS = 6,
    /** Size of the state that a byte changes, in bytes. A session takes more: bolmo_model_session_bytes. */
    BOLMO_MODEL_STATE_BYTES = 7,
    /**
     * Size of the keys and values of a patch, in bytes. Sessions reserve room for more patches than they hold:
     * bolmo_model_session_bytes.
     */
    BOLMO_MODEL_PATCH_BYTES = 8,
    /** The same for patches beyond the sliding window, if the model has one. */
    BOLMO_MODEL_LATE_PATCH_BYTES = 9,
    /**
     * Device memory that the model takes, beside weights and sessions, to process prompts, in bytes: once for each
     * call that appends, scores or generates with a constraint at the same time. It is allocated when it is first
     * needed, and kept. Of a checkpoint: at most this much, on any device.
     */
    BOLMO_MODEL_WORK_BYTES = 10,
};
#ifndef __cplusplus
typedef int32_t bolmo_model_property;
#endif

/** An opened and checked checkpoint. Any number of threads may use it at once. */
typedef struct bolmo_checkpoint bolmo_checkpoint;

/** The parts of a checkpoint that is not a folder. */
typedef struct bolmo_checkpoint_builder bolmo_checkpoint_builder;

/**
 * Tells the program that the library no longer needs what `user_data` stands for. Called once, by the thread that
 * released the last reference.
 */
typedef void (*bolmo_release_callback)(void *user_data);

/**
 * Reads up to `size` bytes at `offset` into `out`. Returns the number of bytes read, 0 at the end of the file, or a
 * negative number of its own on failure. Called by the thread that called the library and by threads of the library,
 * several at once.
 */
typedef int64_t (*bolmo_read_callback)(void *user_data, uint64_t offset, uint8_t *out, size_t size);

/**
 * Opens the folder at `path`: any bytes that the system allows in paths, but UTF-8 on Windows. The files must not
 * change until the checkpoint is deleted. A `tokenizer.json` in the folder is used as the source model's.
 *
 * BOLMO_NOT_FOUND: no such folder, or no config.json or weights in it. BOLMO_BAD_CHECKPOINT, BOLMO_UNSUPPORTED: the
 * message names the file and the tensor or key.
 */
BOLMO_API bolmo_status bolmo_checkpoint_open(const void *path, size_t size, bolmo_checkpoint **checkpoint);

/** Creates a builder without any parts. */
BOLMO_API bolmo_status bolmo_checkpoint_builder_create(bolmo_checkpoint_builder **builder);

/** Sets the contents of `config.json`, which are copied. */
BOLMO_API bolmo_status bolmo_checkpoint_builder_set_config(bolmo_checkpoint_builder *builder,
                                                           const void *json,
                                                           size_t size);

/**
 * Sets the contents of the source model's `tokenizer.json` and of the `tokenizer_config.json` beside it, or NULL and 0
 * if there is none. Both are copied.
 */
BOLMO_API bolmo_status bolmo_checkpoint_builder_set_tokenizer(bolmo_checkpoint_builder *builder,
                                                              const void *json,
                                                              size_t size,
                                                              const void *config_json,
                                                              size_t config_size);

/**
 * Adds a safetensors file in memory. `name` is used in messages. With a `release` callback the bytes are used in
 * place: they must stay valid until `release` is called with `user_data`, when both checkpoint and builder have been
 * deleted. Without one (NULL) the bytes are copied. `release` is not called if this function fails.
 */
BOLMO_API bolmo_status bolmo_checkpoint_builder_add_memory(bolmo_checkpoint_builder *builder,
                                                           const void *name,
                                                           size_t name_size,
                                                           const void *data,
                                                           size_t size,
                                                           bolmo_release_callback release,
                                                           void *user_data);

/**
 * Adds a safetensors file of `size` bytes that `read` reads, with `user_data`. `name` is used in messages. `release`,
 * which may be NULL, is called with `user_data` when both checkpoint and builder have been deleted, but not if this
 * function fails. The file must not change.
 */
BOLMO_API bolmo_status bolmo_checkpoint_builder_add_reader(bolmo_checkpoint_builder *builder,
                                                           const void *name,
                                                           size_t name_size,
                                                           uint64_t size,
                                                           bolmo_read_callback read,
                                                           bolmo_release_callback release,
                                                           void *user_data);

/**
 * Opens the checkpoint that the parts make up. The parts move to the checkpoint: the builder is empty afterwards, even
 * if this function fails.
 *
 * BOLMO_IO: a reader failed. Other statuses as for bolmo_checkpoint_open.
 */
BOLMO_API bolmo_status bolmo_checkpoint_builder_open(bolmo_checkpoint_builder *builder, bolmo_checkpoint **checkpoint);

/** Deletes the builder and its parts. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_checkpoint_builder_delete(bolmo_checkpoint_builder *builder);

/** Gets a numeric property (bolmo_model_property) of the model. */
BOLMO_API bolmo_status bolmo_checkpoint_number(const bolmo_checkpoint *checkpoint, int32_t which, uint64_t *number);

/**
 * Gets the device memory that the weights will take in `format` (bolmo_format), in bytes. For weights that are stored
 * quantized, `format` is ignored and their own formats count. Needed in addition: bolmo_checkpoint_session_bytes for
 * each session, and BOLMO_MODEL_WORK_BYTES.
 */
BOLMO_API bolmo_status bolmo_checkpoint_device_bytes(const bolmo_checkpoint *checkpoint,
                                                     int32_t format,
                                                     uint64_t *bytes);

/**
 * Gets how many of the bytes of bolmo_checkpoint_device_bytes need no memory of their own on `engine`: on the CPU
 * device large tensors that are stored in the wanted format are used where the file is mapped, and processes share
 * them. 0 on other devices, and for files that a program reads itself.
 */
BOLMO_API bolmo_status bolmo_checkpoint_mapped_bytes(const bolmo_checkpoint *checkpoint,
                                                     const bolmo_engine *engine,
                                                     int32_t format,
                                                     uint64_t *bytes);

/**
 * Gets the device memory that a session takes at most while it grows to `patches` patches, in bytes, on any device.
 * bolmo_model_session_bytes says what is included. A patch has about 4 bytes of text; the model decides.
 */
BOLMO_API bolmo_status bolmo_checkpoint_session_bytes(const bolmo_checkpoint *checkpoint,
                                                      size_t patches,
                                                      uint64_t *bytes);

/**
 * Gets the name under which the source model's tokenizer was published, or an empty text if the checkpoint doesn't
 * say. UTF-8, with a NUL at the end. `size`, which may be NULL, receives the size without the NUL. Valid until the
 * checkpoint is deleted.
 */
BOLMO_API bolmo_status bolmo_checkpoint_tokenizer_source(const bolmo_checkpoint *checkpoint,
                                                         const char **text,
                                                         size_t *size);

/** Number of warnings. */
BOLMO_API bolmo_status bolmo_checkpoint_warning_count(const bolmo_checkpoint *checkpoint, size_t *count);

/**
 * Gets the warning at `index`, about something odd in the files that was accepted: one sentence, with a NUL at the
 * end. Valid until the checkpoint is deleted.
 *
 * BOLMO_NOT_FOUND: there is no such warning.
 */
BOLMO_API bolmo_status bolmo_checkpoint_warning(const bolmo_checkpoint *checkpoint,
                                                size_t index,
                                                const char **text,
                                                size_t *size);

/** Gets the configuration as this library understands it: JSON with the keys of `config.json`. */
BOLMO_API bolmo_status bolmo_checkpoint_config_json(const bolmo_checkpoint *checkpoint, bolmo_bytes **json);

/** Deletes the checkpoint. Models that were loaded from it stay. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_checkpoint_delete(bolmo_checkpoint *checkpoint);

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

/** Size of a fingerprint, in bytes. */
#define BOLMO_FINGERPRINT_SIZE 16

/** Parts of a model that may be kept in different formats. */
enum bolmo_part
#ifdef __cplusplus
    : int32_t
#endif
{
    /** The parts that run once per byte: local layers, boundary predictor, head. */
    BOLMO_PART_LOCAL = 0,
    /** The global blocks, which run once per patch. */
    BOLMO_PART_GLOBAL = 1,
    /** The embedding tables of bytes and subwords. */
    BOLMO_PART_EMBEDDINGS = 2,
};
#ifndef __cplusplus
typedef int32_t bolmo_part;
#endif

/** Options for loading a model. */
typedef struct bolmo_load_options bolmo_load_options;

/** A model on a device. Any number of threads may use it at once. It keeps the device open. */
typedef struct bolmo_model bolmo_model;

/**
 * Receives the progress of a long call: `done` of `total`. Returns 0 to continue; any other value cancels the call,
 * which then returns BOLMO_CANCELLED. If `done` equals `total`, nothing is left to cancel. Called by the thread that
 * made the call. It may call the library, except with the objects that the call uses: that returns BOLMO_BUSY.
 */
typedef int32_t (*bolmo_progress_callback)(uint64_t done, uint64_t total, void *user_data);

/**
 * Creates options with the defaults: the formats in which the checkpoint is stored if it is quantized, else f32; the
 * checkpoint's own tokenizer and rotary frequencies; no progress callback.
 */
BOLMO_API bolmo_status bolmo_load_options_create(bolmo_load_options **options);

/**
 * Sets the format of matrices on the device (bolmo_format). A checkpoint that is stored quantized loads in its own
 * formats only.
 */
BOLMO_API bolmo_status bolmo_load_options_set_format(bolmo_load_options *options, int32_t format);

/**
 * Sets the format (bolmo_format) of one part's matrices (bolmo_part). It overrides bolmo_load_options_set_format,
 * whichever is called first.
 */
BOLMO_API bolmo_status bolmo_load_options_set_part_format(bolmo_load_options *options, int32_t part, int32_t format);

/**
 * Sets the path of the source model's `tokenizer.json`, or of its folder, to use instead of the checkpoint's own. The
 * file is read when the model is loaded; models without a suffix table don't need it.
 */
BOLMO_API bolmo_status bolmo_load_options_set_tokenizer_path(bolmo_load_options *options,
                                                             const void *path,
                                                             size_t size);

/**
 * Sets the contents of the source model's `tokenizer.json` and of the `tokenizer_config.json` beside it, or NULL and 0
 * if there is none. Both are copied.
 */
BOLMO_API bolmo_status bolmo_load_options_set_tokenizer(bolmo_load_options *options,
                                                        const void *json,
                                                        size_t size,
                                                        const void *config_json,
                                                        size_t config_size);

/**
 * Sets the base of the rotary frequencies, instead of the checkpoint's: above 1 and at most 1e15. For checkpoints that
 * lost it in conversion, which loading warns about.
 */
BOLMO_API bolmo_status bolmo_load_options_set_rope_theta(bolmo_load_options *options, double theta);

/**
 * Sets the scaling of the rotary frequencies of full-attention layers, instead of the checkpoint's. For checkpoints
 * that lost it in conversion, which loading warns about. UTF-8: `none`, or a kind (`linear`, `llama3`, `yarn`) with
 * the keys of `rope_scaling` in config.json, as in `yarn:factor=8,original_max_position_embeddings=8192` (`original`
 * is short for the long name), or the JSON object.
 */
BOLMO_API bolmo_status bolmo_load_options_set_rope_scaling(bolmo_load_options *options,
                                                           const void *scaling,
                                                           size_t size);

/** Sets the progress callback, which counts bytes of the checkpoint; NULL for none. */
BOLMO_API bolmo_status bolmo_load_options_set_progress(bolmo_load_options *options,
                                                       bolmo_progress_callback progress,
                                                       void *user_data);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_load_options_delete(bolmo_load_options *options);

/**
 * Loads the checkpoint's weights onto the engine's device. `options` may be NULL; they are read during the call only.
 *
 * BOLMO_INVALID_ARGUMENT: the model needs a tokenizer.json and has none, or the weights are stored quantized in other
 * formats than the options ask for. BOLMO_BAD_CHECKPOINT: the tokenizer belongs to another model, or weights are not
 * finite. BOLMO_UNSUPPORTED: weights exceed the range of f16. BOLMO_OUT_OF_MEMORY, BOLMO_DEVICE_LOST, BOLMO_CANCELLED,
 * BOLMO_IO.
 */
BOLMO_API bolmo_status bolmo_model_load(const bolmo_engine *engine,
                                        const bolmo_checkpoint *checkpoint,
                                        const bolmo_load_options *options,
                                        bolmo_model **model);

/** Gets a numeric property (bolmo_model_property) of the model. */
BOLMO_API bolmo_status bolmo_model_number(const bolmo_model *model, int32_t which, uint64_t *number);

/** Gets the device memory that the weights take, in bytes. */
BOLMO_API bolmo_status bolmo_model_device_bytes(const bolmo_model *model, uint64_t *bytes);

/** Gets how many of these bytes are used where the checkpoint's files are mapped, and need no memory of their own. */
BOLMO_API bolmo_status bolmo_model_mapped_bytes(const bolmo_model *model, uint64_t *bytes);

/**
 * Gets the device memory that a session takes at most while it grows to `patches` patches, in bytes.
 *
 * Included are the keys and values of the patches, the state, and what the session keeps to process and choose bytes.
 * The memory for keys and values doubles when it is full, and the old one is copied, which is included too. Not
 * included: BOLMO_MODEL_WORK_BYTES, a fraction of that for what the sessions of a batch share, a repetition window of
 * more than 2000 ids, more than 400 bytes of stop strings, and the host's memory through which a snapshot is read. A
 * clone or a session checkpoint counts as a session of its own.
 */
BOLMO_API bolmo_status bolmo_model_session_bytes(const bolmo_model *model, size_t patches, uint64_t *bytes);

/**
 * Gets a fingerprint of the model's configuration, weights and format, of BOLMO_FINGERPRINT_SIZE bytes. Snapshots
 * restore only on models with the same fingerprint.
 */
BOLMO_API bolmo_status bolmo_model_fingerprint(const bolmo_model *model, uint8_t *fingerprint);

/** Number of warnings. */
BOLMO_API bolmo_status bolmo_model_warning_count(const bolmo_model *model, size_t *count);

/**
 * Gets the warning at `index`, about something odd in the files that was accepted: one sentence, with a NUL at the
 * end. Valid until the model is deleted.
 *
 * BOLMO_NOT_FOUND: there is no such warning.
 */
BOLMO_API bolmo_status bolmo_model_warning(const bolmo_model *model, size_t index, const char **text, size_t *size);

/**
 * Deletes the model's handle. Its memory is freed when its last session is gone too. NULL and deleted handles are
 * ignored.
 */
BOLMO_API void bolmo_model_delete(bolmo_model *model);

/** @} */

/**
 * @defgroup session Session
 *
 * Sessions: one sequence each, on a model.
 *
 * Text is appended in chunks of any size and any bytes, and generated bytes are appended to it. A session can be
 * cloned, rewound to a checkpoint, and saved as bytes:
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
 * A session is used by one thread at a time; a second one gets BOLMO_BUSY. While a call with the session is running,
 * any thread, and its callbacks, may cancel it and look at it: bolmo_session_cancel, bolmo_session_reset_cancel,
 * bolmo_session_progress, bolmo_session_length, bolmo_session_patches, bolmo_session_device_bytes and
 * bolmo_session_delete.
 *
 * @{
 */

/** One sequence on a model. It keeps the model alive. */
typedef struct bolmo_session bolmo_session;

/** A saved state of a session, to rewind to. Any number of threads may use it at once. It keeps the model alive. */
typedef struct bolmo_session_checkpoint bolmo_session_checkpoint;

/** Creates a session without any text. */
BOLMO_API bolmo_status bolmo_session_create(const bolmo_model *model, bolmo_session **session);

/** Creates another session with the same text, independent from here on. Memory is shared until one of them writes. */
BOLMO_API bolmo_status bolmo_session_clone(bolmo_session *session, bolmo_session **clone);

/**
 * Appends the id that begins a text. Call this once, before the first text, unless the model should see the text as an
 * excerpt.
 */
BOLMO_API bolmo_status bolmo_session_append_bos(bolmo_session *session);

/**
 * Appends text, any bytes. Appending it in chunks of any size gives the same state as appending it at once.
 * `progress`, which may be NULL, receives the bytes done and the total, and can cancel.
 *
 * BOLMO_CANCELLED: the session holds the bytes that were done (bolmo_session_length) and can continue from there.
 */
BOLMO_API bolmo_status bolmo_session_append(bolmo_session *session,
                                            const void *data,
                                            size_t size,
                                            bolmo_progress_callback progress,
                                            void *user_data);

/** Appends plain ids: 4 to 259 for bytes, and the special ids 0 and 1. Otherwise as bolmo_session_append. */
BOLMO_API bolmo_status bolmo_session_append_ids(bolmo_session *session,
                                                const uint32_t *ids,
                                                size_t count,
                                                bolmo_progress_callback progress,
                                                void *user_data);

/**
 * Cancels the running call of the session, or the next one if none is running, within one bounded submission to the
 * device. A generation ends with BOLMO_STOP_CANCELLED and keeps its bytes; appending returns BOLMO_CANCELLED. May be
 * called from any thread at any time, but not from a signal handler: set a flag there, and let a callback return it.
 */
BOLMO_API bolmo_status bolmo_session_cancel(bolmo_session *session);

/** Withdraws a bolmo_session_cancel that arrived after the call that it was meant for. */
BOLMO_API bolmo_status bolmo_session_reset_cancel(bolmo_session *session);

/**
 * Gets how far the running call that appends or generates is, or the last one if none is running: `done` of `total`
 * bytes. Ids that are appended count as bytes. A generation counts the bytes that were chosen, and its total is the
 * most that it may generate; it may end before. Both are 0 for a new session. `done` or `total` may be NULL. May be
 * called from any thread at any time.
 */
BOLMO_API bolmo_status bolmo_session_progress(const bolmo_session *session, uint64_t *done, uint64_t *total);

/**
 * Gets the number of ids that the session holds, including the one that begins the text. While a call is running, the
 * number grows with each of its steps; any thread may ask for it.
 */
BOLMO_API bolmo_status bolmo_session_length(const bolmo_session *session, size_t *ids);

/**
 * Copies ids, starting with number `first`, to `ids`, which has room for `capacity` of them. `count` receives how many
 * were copied; 0 for a `capacity` of 0. Ids that end a patch are fused (BOLMO_FUSED_OFFSET added).
 */
BOLMO_API bolmo_status bolmo_session_ids(const bolmo_session *session,
                                         size_t first,
                                         uint16_t *ids,
                                         size_t capacity,
                                         size_t *count);

/** Gets the number of patches that have passed through the global blocks. Any thread may ask for it at any time. */
BOLMO_API bolmo_status bolmo_session_patches(const bolmo_session *session, size_t *patches);

/**
 * Gets the device memory of the sequence in bytes, including memory that it shares with clones: the state and the
 * keys and values. bolmo_model_session_bytes also counts what processing takes. Any thread may ask for it at any time.
 */
BOLMO_API bolmo_status bolmo_session_device_bytes(const bolmo_session *session, uint64_t *bytes);

/** Saves the state of the session, to rewind to. */
BOLMO_API bolmo_status bolmo_session_checkpoint_create(bolmo_session *session, bolmo_session_checkpoint **checkpoint);

/** Deletes the checkpoint. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_session_checkpoint_delete(bolmo_session_checkpoint *checkpoint);

/**
 * Rewinds the session to the checkpoint, or moves it to a checkpoint of another session. This also makes a session
 * usable again after a call failed half-way.
 *
 * BOLMO_INVALID_ARGUMENT: the checkpoint was taken on another model.
 */
BOLMO_API bolmo_status bolmo_session_rewind(bolmo_session *session, const bolmo_session_checkpoint *checkpoint);

/** Saves the session as bytes, to continue later or elsewhere. */
BOLMO_API bolmo_status bolmo_session_snapshot(bolmo_session *session, bolmo_bytes **snapshot);

/**
 * Restores a session from a snapshot. It continues as if it had never been interrupted.
 *
 * BOLMO_BAD_CHECKPOINT: the bytes are not a snapshot, or are truncated or damaged. BOLMO_INVALID_ARGUMENT: the
 * snapshot belongs to another model, format or version.
 */
BOLMO_API bolmo_status bolmo_session_restore(const bolmo_model *model,
                                             const void *data,
                                             size_t size,
                                             bolmo_session **session);

/** Deletes the session. A running call with it continues to its end. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_session_delete(bolmo_session *session);

/** @} */

/**
 * @defgroup constraint Constraint
 *
 * Constraints: what a generation may write, byte by byte.
 *
 * A constraint is a regular expression or a JSON schema. A generation with a constraint writes only texts that match
 * it, whatever the model prefers. Bytes that the constraint determines are not sampled, which also makes generation
 * faster. If the byte budget allows for any match, the text is completed in time: near the end of the budget only
 * those bytes are chosen that still lead to a match.
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
 * Programs that choose bytes themselves follow a text with a matcher:
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

/** Candidates for the next step: the 256 bytes, and the end of the text. */
#define BOLMO_CANDIDATES 257

/** A pattern that a whole text must match. It is compiled once; any number of threads may use it at once. */
typedef struct bolmo_constraint bolmo_constraint;

/** The state of a text within a match. For one thread at a time. */
typedef struct bolmo_matcher bolmo_matcher;

/**
 * Creates a constraint from a regular expression in the syntax of Rust's regex crate, UTF-8. The whole text must match
 * it: `^` and `$` around it are implied. `(?-u)` switches to single bytes, so `(?s-u:.)` is any byte.
 *
 * BOLMO_INVALID_ARGUMENT: the expression is malformed, or matches nothing. BOLMO_UNSUPPORTED: it is too large; the
 * message names the limit.
 */
BOLMO_API bolmo_status bolmo_constraint_create_regex(const void *pattern, size_t size, bolmo_constraint **constraint);

/**
 * Creates a constraint from a JSON schema; the common subset of keywords is supported. The text must be one JSON
 * document that is valid against the schema, without white space except single spaces after ':' and ','. Members come
 * in the order of `properties`.
 *
 * BOLMO_INVALID_ARGUMENT: this is not a schema, or nothing is valid against it. BOLMO_UNSUPPORTED: it has an
 * unsupported keyword or is too large. The message names the place in the schema.
 */
BOLMO_API bolmo_status bolmo_constraint_create_json_schema(const void *schema,
                                                           size_t size,
                                                           bolmo_constraint **constraint);

/** Gets whether a whole text matches. */
BOLMO_API bolmo_status bolmo_constraint_matches(const bolmo_constraint *constraint,
                                                const void *data,
                                                size_t size,
                                                bool *matches);

/** Gets the length of the shortest matching text, in bytes. */
BOLMO_API bolmo_status bolmo_constraint_shortest(const bolmo_constraint *constraint, size_t *bytes);

/** Deletes the constraint. Options and matchers that use it keep working. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_constraint_delete(bolmo_constraint *constraint);

/** Creates a matcher at the start of a text. */
BOLMO_API bolmo_status bolmo_matcher_create(const bolmo_constraint *constraint, bolmo_matcher **matcher);

/** Creates an independent matcher at the same place. */
BOLMO_API bolmo_status bolmo_matcher_clone(const bolmo_matcher *matcher, bolmo_matcher **clone);

/**
 * Writes what may follow to `allowed`: BOLMO_CANDIDATES flags, 1 or 0, one for each byte, and at 256 whether the text
 * may end here. With `remaining` above 0, a byte is allowed only if a match can be completed within that many bytes;
 * if no byte qualifies, `remaining` is ignored.
 */
BOLMO_API bolmo_status bolmo_matcher_allowed(const bolmo_matcher *matcher, size_t remaining, uint8_t *allowed);

/**
 * Takes the next bytes of the text.
 *
 * BOLMO_INVALID_ARGUMENT: one of the bytes is not allowed; the matcher is unchanged.
 */
BOLMO_API bolmo_status bolmo_matcher_advance(bolmo_matcher *matcher, const void *data, size_t size);

/** Gets whether the whole text so far matches. */
BOLMO_API bolmo_status bolmo_matcher_is_match(const bolmo_matcher *matcher, bool *is_match);

/** Deletes the matcher. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_matcher_delete(bolmo_matcher *matcher);

/** @} */

/**
 * @defgroup options Options
 *
 * Options for generating.
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
 * Each setter checks its value at once and changes nothing if the value is out of range. A call reads its options when
 * it begins; later changes apply to later calls.
 *
 * @{
 */

/** Options for generating. */
typedef struct bolmo_generate_options bolmo_generate_options;

/** Creates options with the defaults: 256 bytes, greedy. */
BOLMO_API bolmo_status bolmo_generate_options_create(bolmo_generate_options **options);

/** Sets the maximum number of bytes to generate, at least 1. Default: 256. */
BOLMO_API bolmo_status bolmo_generate_options_set_max_bytes(bolmo_generate_options *options, size_t max_bytes);

/**
 * Sets the temperature, which divides the log-probabilities of the bytes. 0, the default, always chooses the most
 * probable id.
 */
BOLMO_API bolmo_status bolmo_generate_options_set_temperature(bolmo_generate_options *options, float temperature);

/** Samples from the `top_k` most probable bytes only. 0, the default, turns this off. */
BOLMO_API bolmo_status bolmo_generate_options_set_top_k(bolmo_generate_options *options, size_t top_k);

/** Samples from the most probable bytes whose probabilities add up to `top_p` only. 1, the default, turns this off. */
BOLMO_API bolmo_status bolmo_generate_options_set_top_p(bolmo_generate_options *options, float top_p);

/**
 * Samples only from bytes whose probability is at least `min_p` times that of the most probable byte. 0, the default,
 * turns this off.
 */
BOLMO_API bolmo_status bolmo_generate_options_set_min_p(bolmo_generate_options *options, float min_p);

/**
 * Multiplies the log-probability of bytes that are among the last `window` ids by `penalty`. Above 1 discourages
 * repetition; 1, the default, turns this off. Clamped to 100.
 */
BOLMO_API bolmo_status bolmo_generate_options_set_repetition_penalty(bolmo_generate_options *options,
                                                                     float penalty,
                                                                     size_t window);

/**
 * Adds `bias` to the logits of `byte`, plain and fused. Replaces an earlier bias for the same byte. Clamped to
 * -1000..=1000, as all biases are.
 */
BOLMO_API bolmo_status bolmo_generate_options_set_byte_bias(bolmo_generate_options *options, uint8_t byte, float bias);

/** Adds `bias` to the logits of the end of the text: above 0 ends earlier. */
BOLMO_API bolmo_status bolmo_generate_options_set_end_bias(bolmo_generate_options *options, float bias);

/** Adds `bias` to the logits of all ids that end a patch: above 0 makes patches shorter, below 0 longer. */
BOLMO_API bolmo_status bolmo_generate_options_set_boundary_bias(bolmo_generate_options *options, float bias);

/** Sets the seed of the random numbers. The same seed draws the same numbers on every platform. */
BOLMO_API bolmo_status bolmo_generate_options_set_seed(bolmo_generate_options *options, uint64_t seed);

/** Adds a stop string, which is copied. Generation ends when it occurs; it is not part of the generated text. */
BOLMO_API bolmo_status bolmo_generate_options_add_stop(bolmo_generate_options *options, const void *stop, size_t size);

/**
 * Sets whether to keep the log-probability of each id (bolmo_generation_logprobs). Each byte's logits then go to the
 * host, which takes longer. Greedy text is the same as without; sampled text may differ where rounding decides,
 * because the device and the host compute with different precision. Default: false.
 */
BOLMO_API bolmo_status bolmo_generate_options_set_logprobs(bolmo_generate_options *options, bool keep);

/** Sets the constraint that the text must match; NULL, the default, for none. The options keep their own reference. */
BOLMO_API bolmo_status bolmo_generate_options_set_constraint(bolmo_generate_options *options,
                                                             const bolmo_constraint *constraint);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_generate_options_delete(bolmo_generate_options *options);

/** @} */

/**
 * @defgroup generate Generate
 *
 * Generating: bytes as they are produced.
 *
 * @code{.c}
 * static int32_t print(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     (void)ids;
 *     // Not 0: stop.
 *     return fwrite(data, 1, size, (FILE *)user_data) != size || fflush((FILE *)user_data) != 0;
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

/** Difference between a fused id and its plain id. A fused id says that a patch ends there. */
#define BOLMO_FUSED_OFFSET 260

/** The plain id of byte 0; byte `b` has the id BOLMO_BYTE_OFFSET + `b`. */
#define BOLMO_BYTE_OFFSET 4

/** The plain id that begins a text, and with which the model ends one. */
#define BOLMO_END_ID 1

/** Why a generation ended. */
enum bolmo_stop
#ifdef __cplusplus
    : int32_t
#endif
{
    /** The maximum number of bytes was reached. */
    BOLMO_STOP_BUDGET = 0,
    /** The model ended the text. */
    BOLMO_STOP_END = 1,
    /** A stop string occurred. */
    BOLMO_STOP_STRING = 2,
    /** bolmo_session_cancel was called, or the callback returned a value other than 0. */
    BOLMO_STOP_CANCELLED = 3,
    /** The text matches the constraint, and no further byte can follow. */
    BOLMO_STOP_COMPLETE = 4,
};
#ifndef __cplusplus
typedef int32_t bolmo_stop;
#endif

/**
 * A kind of log-probability. All are natural logarithms, under the model's own distribution over its BOLMO_LOGITS ids:
 * without temperature, biases, penalty or constraint. Minus infinity for what the model rules out.
 */
enum bolmo_logprob
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Of the id: of the byte together with whether a patch ends there. */
    BOLMO_LOGPROB_JOINT = 0,
    /** Of the byte alone, plain and fused id summed. */
    BOLMO_LOGPROB_FOLDED = 1,
};
#ifndef __cplusplus
typedef int32_t bolmo_logprob;
#endif

/** The result of a generation. Any number of threads may use it at once. */
typedef struct bolmo_generation bolmo_generation;

/**
 * Receives a chunk of output, usually the bytes of one patch; bytes that may begin a stop string are held back. `ids`
 * also has `size` items: each byte's id, fused (BOLMO_FUSED_OFFSET added) where it ends a patch. Both are valid during
 * the call. Returns 0 to continue; any other value ends the generation. Called by the thread that called
 * bolmo_session_generate. It may call the library, but not with this session, which returns BOLMO_BUSY;
 * bolmo_session_cancel and bolmo_session_delete are allowed.
 */
typedef int32_t (*bolmo_piece_callback)(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data);

/**
 * Generates until something ends it (bolmo_stop). `options` may be NULL; they are read when the call begins.
 * `callback` may be NULL. `generation` may be NULL if it is not needed. The bytes, including those of a stop string,
 * become part of the session; the id that ends a text does not.
 *
 * BOLMO_INVALID_ARGUMENT: the session has no text yet. After BOLMO_DEVICE_LOST and similar failures the session keeps
 * the bytes that the callback received.
 */
BOLMO_API bolmo_status bolmo_session_generate(bolmo_session *session,
                                              const bolmo_generate_options *options,
                                              bolmo_piece_callback callback,
                                              void *user_data,
                                              bolmo_generation **generation);

/** Gets the reason why the generation ended (bolmo_stop). */
BOLMO_API bolmo_status bolmo_generation_stop(const bolmo_generation *generation, int32_t *stop);

/**
 * Name of a reason, such as "budget", with a NUL at the end. Never NULL: "unknown" for a number that this version
 * doesn't have. Valid forever.
 */
BOLMO_API const char *bolmo_stop_name(int32_t stop);

/** Gets the text, without a stop string. Valid until the generation is deleted. */
BOLMO_API bolmo_status bolmo_generation_bytes(const bolmo_generation *generation, const uint8_t **data, size_t *size);

/**
 * Gets the ids as they were chosen, fused (BOLMO_FUSED_OFFSET added) where a byte ends a patch. They include those of
 * a stop string, and a final BOLMO_END_ID, plain or fused, if the model ended the text. Valid until the generation is
 * deleted.
 */
BOLMO_API bolmo_status bolmo_generation_ids(const bolmo_generation *generation, const uint16_t **ids, size_t *count);

/**
 * Gets the log-probability of each id of bolmo_generation_ids, of kind `which` (bolmo_logprob). Also a byte that a
 * constraint forced has the model's. Where a generation was cancelled within forced bytes, the last one's id is plain,
 * because the next byte decides whether a patch ends there. Valid until the generation is deleted.
 *
 * BOLMO_NOT_FOUND: the options did not ask for them.
 */
BOLMO_API bolmo_status bolmo_generation_logprobs(const bolmo_generation *generation,
                                                 int32_t which,
                                                 const float **logprobs,
                                                 size_t *count);

/** Gets the number of patches that the chosen ids ended. */
BOLMO_API bolmo_status bolmo_generation_patches(const bolmo_generation *generation, size_t *patches);

/**
 * Gets whether the whole text matches the constraint. It does, unless the generation was cancelled, was cut by a stop
 * string or had a budget below the shortest match. False without a constraint.
 */
BOLMO_API bolmo_status bolmo_generation_matched(const bolmo_generation *generation, bool *matched);

/** Deletes the generation. Its text stays in the session. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_generation_delete(bolmo_generation *generation);

/** @} */

/**
 * @defgroup batch Batch
 *
 * Generating on several sessions together, which shares the work and takes less time than one after the other.
 *
 * Each session generates the same text as it would alone. They may be of different models and engines, but only those
 * of one model share work, and only without a constraint and without log-probabilities.
 *
 * bolmo_generate_batch generates on a fixed number of sessions. A bolmo_batch lets sessions come and go:
 *
 * @code{.c}
 * static int32_t receive(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
 *     server *server = user_data;
 *     (void)ids;
 *     if (data != NULL) return send_to_client(server, index, data, size);
 *     // The generation has ended. Its session may generate again at once.
 *     bolmo_generation *generation;
 *     if (bolmo_batch_generation(server->batch, index, &generation) == BOLMO_OK) bolmo_generation_delete(generation);
 *     return 0;
 * }
 * ...
 * bolmo_batch_create(&server.batch);
 * bolmo_batch_add(server.batch, session, options, &index); // from any thread, and while the batch runs
 * ...
 * bolmo_batch_run(server.batch, receive, &server);         // until all have ended
 * bolmo_batch_delete(server.batch);
 * @endcode
 *
 * From bolmo_batch_add until its generation has ended, a session is in use: other calls with it return BOLMO_BUSY.
 * bolmo_session_cancel ends its generation, and a callback that returns a value other than 0 does. Deleting the
 * session is allowed; its generation continues.
 *
 * @{
 */

/**
 * Generations on several sessions, which may join and leave. Any number of threads may use it at once; one of them
 * runs it.
 */
typedef struct bolmo_batch bolmo_batch;

/**
 * Receives a chunk of output of the session with number `index`, as a bolmo_piece_callback does. With NULL for `data`
 * and `ids` and a `size` of 0 the generation has ended: its session, if the batch could use it, is no longer in use.
 * In bolmo_batch_run its result is there; bolmo_generate_batch writes results when it returns.
 *
 * Returns 0 to continue; any other value ends this generation only, and is ignored if it has ended. Called by the
 * thread that called bolmo_batch_run or bolmo_generate_batch. It may call the library, but calls with sessions in use
 * return BOLMO_BUSY, as running the batch does; bolmo_session_cancel, bolmo_session_delete and every other function of
 * the batch are allowed.
 */
typedef int32_t (*bolmo_batch_callback)(size_t index,
                                        const uint8_t *data,
                                        size_t size,
                                        const uint16_t *ids,
                                        void *user_data);

/**
 * Generates on `count` sessions, each with its own entry of `options`, until all have ended. `options` may be NULL,
 * and so may its entries, for the defaults. `callback` may be NULL; it receives the session's index in the array, and
 * once for each of them the end, also where nothing was generated.
 *
 * `generations` and `statuses` may be NULL; else they have room for `count` results. Each session has its own status:
 * one that fails does not affect the others, and its generation is NULL. A session that occurs twice is BOLMO_BUSY the
 * second time. Returns BOLMO_OK if all succeeded, else the status of the first session in the array that failed, whose
 * message is this thread's. If an array is NULL that must not be, nothing is generated or written.
 */
BOLMO_API bolmo_status bolmo_generate_batch(bolmo_session *const *sessions,
                                            const bolmo_generate_options *const *options,
                                            size_t count,
                                            bolmo_batch_callback callback,
                                            void *user_data,
                                            bolmo_generation **generations,
                                            bolmo_status *statuses);

/** Creates a batch without sessions. */
BOLMO_API bolmo_status bolmo_batch_create(bolmo_batch **batch);

/**
 * Adds a session, which is in use from now on. `options` may be NULL; they are read by this call. `index` receives the
 * session's number in the batch: 0 for the first one, and one more for each further one; a session that is added again
 * gets a new number. May be called by any thread at any time, also in a callback: while the batch runs, the session
 * joins before the next byte, else it waits for bolmo_batch_run.
 *
 * BOLMO_BUSY: the session is in use, also by this batch.
 */
BOLMO_API bolmo_status bolmo_batch_add(bolmo_batch *batch,
                                       bolmo_session *session,
                                       const bolmo_generate_options *options,
                                       size_t *index);

/**
 * Generates until the generations of all sessions in the batch have ended, including those that are added meanwhile.
 * `callback` may be NULL. Returns BOLMO_OK even if some fail: bolmo_batch_generation tells. Returns at once if there
 * are none. A session that is added in the callback joins, also at the end of the last generation; one that is added
 * later waits for the next run. Results are kept until they are handed out or the batch is deleted.
 *
 * BOLMO_BUSY: the batch is running already.
 */
BOLMO_API bolmo_status bolmo_batch_run(bolmo_batch *batch, bolmo_batch_callback callback, void *user_data);

/**
 * Hands out the result of the session with number `index`, which is there once. A failure of its generation is the
 * failure of this call. After BOLMO_DEVICE_LOST and similar failures the session keeps the bytes that the callback
 * received.
 *
 * BOLMO_BUSY: the generation has not ended. BOLMO_NOT_FOUND: there is no such number, or its result was handed out.
 */
BOLMO_API bolmo_status bolmo_batch_generation(bolmo_batch *batch, size_t index, bolmo_generation **generation);

/**
 * Deletes the batch. A run continues to the end of the generations that were added; without one, sessions that were
 * added are no longer in use, and unchanged. Results that were not handed out are lost. NULL and deleted handles are
 * ignored.
 */
BOLMO_API void bolmo_batch_delete(bolmo_batch *batch);

/** @} */

/**
 * @defgroup sampler Sampler
 *
 * Generating step by step, in a loop of the program's own.
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
 * Of the 520 ids, 4 to 259 are the bytes, 1 ends the text, and 0, 2 and 3 are never chosen. Adding 260 to an id says
 * that a patch ends there.
 *
 * @{
 */

/** Logits per step: one for each id, plain and fused. */
#define BOLMO_LOGITS 520

/** Chooses ids, with its own stream of random numbers. For one thread at a time. */
typedef struct bolmo_sampler bolmo_sampler;

/**
 * Copies the logits of the next id to `logits`, which has room for `capacity` numbers, at least BOLMO_LOGITS. After
 * appended text this first decides whether its last byte ends a patch, with `boundary_bias` added to the logit of
 * ending one.
 *
 * BOLMO_INVALID_ARGUMENT: the session has no text yet.
 */
BOLMO_API bolmo_status bolmo_session_logits(bolmo_session *session,
                                            float boundary_bias,
                                            float *logits,
                                            size_t capacity);

/**
 * Appends a chosen id: 1, 4 to 259, or one of them plus 260. The model processes it in the next call that needs
 * logits.
 */
BOLMO_API bolmo_status bolmo_session_push(bolmo_session *session, uint16_t id);

/**
 * Creates a sampler at the start of its seed's random numbers. `options` may be NULL. The sampler uses the sampling
 * options only, not budget, stop strings and constraint.
 */
BOLMO_API bolmo_status bolmo_sampler_create(const bolmo_generate_options *options, bolmo_sampler **sampler);

/**
 * Chooses the id that follows the session's text, from BOLMO_LOGITS `logits`: that of a byte, or 1 or 261 for the end.
 * `allowed`, which may be NULL, has BOLMO_CANDIDATES flags as from bolmo_matcher_allowed. Where a flag is 0, neither
 * the plain nor the fused id is chosen.
 */
BOLMO_API bolmo_status bolmo_sampler_choose(bolmo_sampler *sampler,
                                            bolmo_session *session,
                                            const float *logits,
                                            size_t count,
                                            const uint8_t *allowed,
                                            uint16_t *id);

/** Deletes the sampler. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_sampler_delete(bolmo_sampler *sampler);

/** @} */

/**
 * @defgroup score Score
 *
 * Scoring: the probability of a text.
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
    /** Bits per byte, of the bytes together with the patch boundaries. */
    BOLMO_SCORE_BITS_PER_BYTE_JOINT = 0,
    /**
     * Bits per byte, of the bytes alone. The model sees a little of each next byte, so this is not comparable with the
     * bits per byte of a subword model.
     */
    BOLMO_SCORE_BITS_PER_BYTE_FOLDED = 1,
    /** Natural log-probability of the bytes together with the patch boundaries. */
    BOLMO_SCORE_LOG_LIKELIHOOD_JOINT = 2,
    /** Natural log-probability of the bytes alone. */
    BOLMO_SCORE_LOG_LIKELIHOOD_FOLDED = 3,
    /** Number of predicted bytes. */
    BOLMO_SCORE_BYTES = 4,
    /** Number of patches that end inside the text. */
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
    /** Encoder output after its norm, `[n, D]`. */
    BOLMO_TENSOR_ENCODER_OUT = 0,
    /** Log-probability that a patch ends, `[n]`. */
    BOLMO_TENSOR_BOUNDARY_LOGPROBS = 1,
    /** Input of the global blocks, `[p, D]`. */
    BOLMO_TENSOR_PATCH_EMBEDDINGS = 2,
    /** Output of the global blocks, `[p, D]`. */
    BOLMO_TENSOR_GLOBAL_OUT = 3,
    /** Decoder output before the final norm, `[n, D]`. */
    BOLMO_TENSOR_DECODER_OUT = 4,
    /** Decoder output after the final norm, `[n, D]`. */
    BOLMO_TENSOR_FINAL_HIDDEN = 5,
    /** Logits, `[n, 520]`. */
    BOLMO_TENSOR_LOGITS = 6,
};
#ifndef __cplusplus
typedef int32_t bolmo_tensor;
#endif

/** The score of a text. Any number of threads may use it at once. */
typedef struct bolmo_score bolmo_score;

/** Options for scoring. */
typedef struct bolmo_score_options bolmo_score_options;

/** Creates options with the defaults: boundaries from the model, no tensors, no progress callback. */
BOLMO_API bolmo_status bolmo_score_options_create(bolmo_score_options **options);

/**
 * Sets which bytes end a patch, one flag (0 or 1) for each byte or id, instead of the model's decision. The flags are
 * copied; NULL and 0 remove them.
 */
BOLMO_API bolmo_status bolmo_score_options_set_boundaries(bolmo_score_options *options,
                                                          const uint8_t *flags,
                                                          size_t count);

/** Sets whether to keep every intermediate tensor, which takes memory for about 600 + 6 D numbers per byte. */
BOLMO_API bolmo_status bolmo_score_options_set_tensors(bolmo_score_options *options, bool keep);

/** Sets the progress callback, which counts bytes and can cancel; NULL for none. */
BOLMO_API bolmo_status bolmo_score_options_set_progress(bolmo_score_options *options,
                                                        bolmo_progress_callback progress,
                                                        void *user_data);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_score_options_delete(bolmo_score_options *options);

/**
 * Scores a text, any bytes. It is preceded by the id that begins a text and followed by a newline as lookahead;
 * neither is counted. `options` may be NULL; they are read during the call only.
 */
BOLMO_API bolmo_status bolmo_model_score(const bolmo_model *model,
                                         const void *data,
                                         size_t size,
                                         const bolmo_score_options *options,
                                         bolmo_score **score);

/**
 * Scores plain ids (0, 1, 4 to 259) as they are, at least two. The first id is not predicted; the last one never ends
 * a patch.
 */
BOLMO_API bolmo_status bolmo_model_score_ids(const bolmo_model *model,
                                             const uint32_t *ids,
                                             size_t count,
                                             const bolmo_score_options *options,
                                             bolmo_score **score);

/** Gets a number of the score (bolmo_score_value). */
BOLMO_API bolmo_status bolmo_score_number(const bolmo_score *score, int32_t which, double *number);

/**
 * Gets the log-probability of each predicted byte or id (BOLMO_SCORE_BYTES of them), of kind `which` (bolmo_logprob).
 * They add up to the log-likelihood of that kind, except for rounding. bolmo_model_score_ids predicts all ids but the
 * first. Valid until the score is deleted.
 */
BOLMO_API bolmo_status bolmo_score_logprobs(const bolmo_score *score,
                                            int32_t which,
                                            const float **logprobs,
                                            size_t *count);

/** Gets which bytes or ids end a patch, one flag (0 or 1) each. Valid until the score is deleted. */
BOLMO_API bolmo_status bolmo_score_boundaries(const bolmo_score *score, const uint8_t **flags, size_t *count);

/**
 * Gets a tensor (bolmo_tensor), row by row; `columns` is 1 for a tensor of one dimension. Valid until the score is
 * deleted.
 *
 * BOLMO_NOT_FOUND: the options did not ask for tensors.
 */
BOLMO_API bolmo_status bolmo_score_tensor(const bolmo_score *score,
                                          int32_t which,
                                          const float **data,
                                          size_t *rows,
                                          size_t *columns);

/** Deletes the score. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_score_delete(bolmo_score *score);

/** @} */

/**
 * @defgroup merge Merge
 *
 * Task arithmetic: adds what a subword model learned after its pretraining to the Bolmo model that was made from it.
 *
 * Global blocks and final norm become `bolmo + alpha * (post_trained - base)`; the byte-level parts stay. No device is
 * used.
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

/** Options for merging. */
typedef struct bolmo_merge_options bolmo_merge_options;

/**
 * Creates options without paths, which must be set, and with defaults for the rest: alpha 1, embeddings unchanged, no
 * progress callback.
 */
BOLMO_API bolmo_status bolmo_merge_options_create(bolmo_merge_options **options);

/** Sets the folder of the Bolmo model. Paths are as in bolmo_checkpoint_open, and are copied. */
BOLMO_API bolmo_status bolmo_merge_options_set_bolmo(bolmo_merge_options *options, const void *path, size_t size);

/**
 * Sets the folder of the subword model that the Bolmo model was made from: OLMo 2 or 3, Qwen 3 or Llama, in the
 * Hugging Face layout.
 */
BOLMO_API bolmo_status bolmo_merge_options_set_base(bolmo_merge_options *options, const void *path, size_t size);

/** Sets the folder of a model that was trained from the base model and differs from it in its weights only. */
BOLMO_API bolmo_status bolmo_merge_options_set_post_trained(bolmo_merge_options *options,
                                                            const void *path,
                                                            size_t size);

/** Sets the factor for the difference between the two, a finite number. Default: 1. */
BOLMO_API bolmo_status bolmo_merge_options_set_alpha(bolmo_merge_options *options, float alpha);

/** Sets whether the suffix table changes too, by the difference of the token embeddings. Default: false. */
BOLMO_API bolmo_status bolmo_merge_options_set_embeddings(bolmo_merge_options *options, bool embeddings);

/** Sets the progress callback, which counts bytes of weight files and can cancel; NULL for none. */
BOLMO_API bolmo_status bolmo_merge_options_set_progress(bolmo_merge_options *options,
                                                        bolmo_progress_callback progress,
                                                        void *user_data);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_merge_options_delete(bolmo_merge_options *options);

/**
 * Writes the merged model to the folder `out`, which must be empty or not exist, with the files of the Bolmo folder.
 * The folder appears when it is complete. `report` is JSON: `alpha`, `embeddings`, `files`, `bytes`, the counts
 * `moved` and `kept`, and a list `tensors` of objects with `name`, `shape`, `dtype`, `moved`, and either
 * `largest_change` and `rms_change`, or `why`.
 *
 * BOLMO_INVALID_ARGUMENT: a path is missing, the models don't belong together, the Bolmo model is stored quantized, or
 * the folder contains files. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT: the message names the file and the tensor or key.
 * BOLMO_UNSUPPORTED: a subword model of another kind, or sums that exceed the range of f16. BOLMO_CANCELLED, BOLMO_IO.
 */
BOLMO_API bolmo_status bolmo_merge(const bolmo_merge_options *options,
                                   const void *out,
                                   size_t size,
                                   bolmo_bytes **report);

/** @} */

/**
 * @defgroup training Training
 *
 * Training: a subword model from scratch, and the two stages that make a byte-level model from one.
 *
 * A text in TOML describes the model, the data and the schedule, as in `examples/byteify`; `docs/training.md` has all
 * keys. Training texts may come from memory as well as from the files that it names. The program runs the steps, a
 * few at a time, and saves and exports when it wants to:
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
 * A trainer is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_trainer_cancel,
 * bolmo_trainer_reset_cancel and bolmo_trainer_delete may be called while another call with the trainer is running.
 * Libraries that are built without the cargo feature `training` lack this group.
 *
 * @{
 */

/** Kinds of training. */
enum bolmo_train_kind
#ifdef __cplusplus
    : int32_t
#endif
{
    /** Training of a subword model: a new one, or one from a folder. */
    BOLMO_TRAIN_SUBWORD = 0,
    /** First stage of byteifying: the local parts learn to imitate a subword model, whose blocks are frozen. */
    BOLMO_TRAIN_STAGE1 = 1,
    /** Second stage of byteifying: all parts learn, end to end. */
    BOLMO_TRAIN_STAGE2 = 2,
};
#ifndef __cplusplus
typedef int32_t bolmo_train_kind;
#endif

/** A training run on a device, which it keeps open. */
typedef struct bolmo_trainer bolmo_trainer;

/** Options of a training run: what to train, and on which texts. */
typedef struct bolmo_trainer_options bolmo_trainer_options;

/**
 * Receives the metrics of a step: one JSON object, UTF-8 without a NUL at the end, valid during the call. Returns 0 to
 * continue; any other value stops. Called by the thread that made the call. It may call the library, except with the
 * objects that the call uses: that returns BOLMO_BUSY.
 */
typedef int32_t (*bolmo_metrics_callback)(const char *metrics, size_t size, void *user_data);

/** Creates options for a new run, without texts. Kind and configuration must be set. */
BOLMO_API bolmo_status bolmo_trainer_options_create(bolmo_trainer_options **options);

/** Sets the kind of training (bolmo_train_kind). */
BOLMO_API bolmo_status bolmo_trainer_options_set_kind(bolmo_trainer_options *options, int32_t kind);

/**
 * Sets the configuration, a text in TOML, which is copied; bolmo_trainer_create parses it. Its paths are relative to
 * the current folder.
 */
BOLMO_API bolmo_status bolmo_trainer_options_set_config(bolmo_trainer_options *options, const void *toml, size_t size);

/**
 * Replaces or adds one value of the configuration: `key=value` with a dotted key, as in `optimiser.steps=100`. A value
 * that is not valid TOML is taken as a string. If a key is set twice, the later value counts.
 */
BOLMO_API bolmo_status bolmo_trainer_options_set_override(bolmo_trainer_options *options,
                                                          const void *pair,
                                                          size_t size);

/**
 * Adds a text to train on, UTF-8, which is copied, to the files that `data.train` names. Lines that equal
 * `data.separator`, and end with LF, CRLF or the text, separate its documents.
 */
BOLMO_API bolmo_status bolmo_trainer_options_add_text(bolmo_trainer_options *options, const void *data, size_t size);

/**
 * Adds a held-out text to evaluate on, in the form of bolmo_trainer_options_add_text. Without held-out texts, and
 * without files in `data.held_out`, a part of the training documents is held out.
 */
BOLMO_API bolmo_status bolmo_trainer_options_add_held_out_text(bolmo_trainer_options *options,
                                                               const void *data,
                                                               size_t size);

/**
 * Sets whether the run continues from the last snapshot in its folder, if there is one. 0, the default: the folder
 * must not contain a run. Any other value: continue.
 */
BOLMO_API bolmo_status bolmo_trainer_options_set_resume(bolmo_trainer_options *options, int32_t resume);

/** Deletes the options. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_trainer_options_delete(bolmo_trainer_options *options);

/**
 * Reads data and model, and prepares the run on the device. The options are read during the call only. The folder of
 * the run is locked until the trainer is deleted. A run that is resumed may have another `optimiser.steps`, so that a
 * finished one can be extended.
 *
 * BOLMO_INVALID_ARGUMENT: kind, configuration or texts are missing, the configuration has an unknown key or an invalid
 * value, or its folder contains a run that is not to be resumed. BOLMO_BUSY: another trainer or process uses the
 * folder. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT, BOLMO_IO: the message names the file. BOLMO_OUT_OF_MEMORY,
 * BOLMO_UNSUPPORTED.
 */
BOLMO_API bolmo_status bolmo_trainer_create(const bolmo_engine *engine,
                                            const bolmo_trainer_options *options,
                                            bolmo_trainer **trainer);

/**
 * Runs `count` steps, or as many as are left of `optimiser.steps`, which may be none. After each step `callback`,
 * which may be NULL, receives its metrics and can stop. Nothing is written to the run's folder.
 *
 * BOLMO_CANCELLED: the callback or bolmo_trainer_cancel stopped the run with steps left; another call continues from
 * there. After any other failure, continue from the last snapshot with a new trainer.
 */
BOLMO_API bolmo_status bolmo_trainer_step(bolmo_trainer *trainer,
                                          uint64_t count,
                                          bolmo_metrics_callback callback,
                                          void *user_data);

/**
 * Stops bolmo_trainer_step after the current step. If no step is running, the next call that has steps to run stops
 * before its first one. May be called from any thread at any time, but not from a signal handler: set a flag there,
 * and let the callback return it.
 */
BOLMO_API bolmo_status bolmo_trainer_cancel(bolmo_trainer *trainer);

/** Withdraws a bolmo_trainer_cancel that arrived after the call that it was meant for. */
BOLMO_API bolmo_status bolmo_trainer_reset_cancel(bolmo_trainer *trainer);

/** Gets the number of completed steps, including those before the run was resumed. */
BOLMO_API bolmo_status bolmo_trainer_steps(const bolmo_trainer *trainer, uint64_t *steps);

/** Evaluates the model on the held-out text. The metrics are one JSON object. */
BOLMO_API bolmo_status bolmo_trainer_evaluate(bolmo_trainer *trainer, bolmo_bytes **metrics);

/**
 * Writes a snapshot to the folder `snapshots` of the run, and deletes the oldest ones beyond `every.keep`. The
 * snapshot appears when it is complete. A resumed run continues from it as if it had never been interrupted.
 */
BOLMO_API bolmo_status bolmo_trainer_save(bolmo_trainer *trainer);

/**
 * Writes the model as a folder in the Hugging Face layout, and replaces a model that is there. Paths are as in
 * bolmo_checkpoint_open.
 *
 * BOLMO_INVALID_ARGUMENT: the folder contains other files.
 */
BOLMO_API bolmo_status bolmo_trainer_export(bolmo_trainer *trainer, const void *path, size_t size);

/** Deletes the trainer. A running call with it continues to its end. NULL and deleted handles are ignored. */
BOLMO_API void bolmo_trainer_delete(bolmo_trainer *trainer);

/** @} */

#ifdef __cplusplus
}
#endif

#endif /* BOLMO_H */
