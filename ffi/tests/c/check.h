/* Shared code of the C tests of the ABI: checks that print the place and the reason, and the trained golden model. */
#ifndef CHECK_H
#define CHECK_H

#include <bolmo.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The folder of the trained golden model, unless the first argument names one. */
#ifndef BOLMO_TEST_MODEL
#define BOLMO_TEST_MODEL "tests/golden/infer/models/nano_trained"
#endif

static const char *model_folder = BOLMO_TEST_MODEL;

static inline void fail(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(NULL);
    /* exit() is not safe here: other threads may be in the library. */
    _Exit(1);
}

#define CHECK(expression)                                                                                              \
    do {                                                                                                               \
        if (!(expression))                                                                                             \
            fail(__FILE__, __LINE__, "failed: %s (last message: %s)", #expression, bolmo_last_error_message());        \
    } while (0)

static inline void check_status(const char *file, int line, const char *what, bolmo_status wanted, bolmo_status got) {
    if (got != wanted) {
        fail(file, line, "%s: expected \"%s\", found \"%s\" (last message: %s)", what, bolmo_status_name(wanted),
             bolmo_status_name(got), bolmo_last_error_message());
    }
    if (got != BOLMO_OK && bolmo_last_error_message()[0] == '\0') fail(file, line, "%s: no message", what);
}

#define CHECK_STATUS(status, call) check_status(__FILE__, __LINE__, #call, status, call)
#define CHECK_OK(call) CHECK_STATUS(BOLMO_OK, call)
#define CHECK_INVALID(call) CHECK_STATUS(BOLMO_INVALID_ARGUMENT, call)

/* The message of the last failed call must contain `part`. */
#define CHECK_SAYS(part)                                                                                               \
    do {                                                                                                               \
        if (strstr(bolmo_last_error_message(), part) == NULL)                                                          \
            fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", bolmo_last_error_message(), part);                  \
    } while (0)

static inline bool same_bytes(const void *one, size_t size, const void *other, size_t other_size) {
    return size == other_size && (size == 0 || memcmp(one, other, size) == 0);
}

#define CHECK_BYTES(data, size, expected, expected_size) CHECK(same_bytes(data, size, expected, expected_size))

/* An engine on this adapter, or on the best one for NULL. */
static inline bolmo_engine *open_adapter(const char *adapter) {
    bolmo_engine_options *options = NULL;
    bolmo_engine *engine = NULL;
    if (adapter != NULL) {
        CHECK_OK(bolmo_engine_options_create(&options));
        CHECK_OK(bolmo_engine_options_set_adapter(options, adapter, strlen(adapter)));
    }
    CHECK_OK(bolmo_engine_create(options, &engine));
    bolmo_engine_options_delete(options);
    return engine;
}

/* An engine on the adapter that BOLMO_ADAPTER names, or on the best one. */
static inline bolmo_engine *open_engine(void) { return open_adapter(getenv("BOLMO_ADAPTER")); }

/* Looks for adapters, which is logged. */
static inline void list_adapters(void) {
    bolmo_adapters *list = NULL;
    CHECK_OK(bolmo_adapters_list("", 0, &list));
    bolmo_adapters_delete(list);
}

typedef struct {
    bolmo_engine *engine;
    bolmo_checkpoint *checkpoint;
    bolmo_model *model;
} trained_model;

static inline trained_model open_trained(void) {
    trained_model trained = {open_engine(), NULL, NULL};
    CHECK_OK(bolmo_checkpoint_open(model_folder, strlen(model_folder), &trained.checkpoint));
    CHECK_OK(bolmo_model_load(trained.engine, trained.checkpoint, NULL, &trained.model));
    return trained;
}

static inline void close_trained(trained_model trained) {
    bolmo_model_delete(trained.model);
    bolmo_checkpoint_delete(trained.checkpoint);
    bolmo_engine_delete(trained.engine);
}

/* A session that contains the id that begins a text, and `prompt`. */
static inline bolmo_session *session_with(const bolmo_model *model, const char *prompt) {
    bolmo_session *session = NULL;
    CHECK_OK(bolmo_session_create(model, &session));
    CHECK_OK(bolmo_session_append_bos(session));
    CHECK_OK(bolmo_session_append(session, prompt, strlen(prompt), NULL, NULL));
    return session;
}

/* Options for `max_bytes` bytes, greedy. */
static inline bolmo_generate_options *greedy(size_t max_bytes) {
    bolmo_generate_options *options = NULL;
    CHECK_OK(bolmo_generate_options_create(&options));
    CHECK_OK(bolmo_generate_options_set_max_bytes(options, max_bytes));
    return options;
}

/* Generates, copies the text to `text`, which has room for 4096 bytes, and returns its size. */
static inline size_t generate(bolmo_session *session, const bolmo_generate_options *options, uint8_t *text) {
    bolmo_generation *generation = NULL;
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK(size <= 4096);
    memcpy(text, data, size);
    bolmo_generation_delete(generation);
    return size;
}

/* The contents of a file of the trained golden model. The caller frees them. */
static inline uint8_t *read_model_file(const char *name, size_t *size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", model_folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail(__FILE__, __LINE__, "cannot open %s", path);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    CHECK(end > 0 && fseek(file, 0, SEEK_SET) == 0);
    *size = (size_t)end;
    uint8_t *data = malloc(*size);
    CHECK(data != NULL && fread(data, 1, *size, file) == *size);
    fclose(file);
    return data;
}

/* How much slower than usual this run may be, for example under valgrind. */
static inline double slow_factor(void) {
    const char *factor = getenv("BOLMO_SLOW_FACTOR");
    return factor == NULL || atof(factor) < 1.0 ? 1.0 : atof(factor);
}

/* Fewer repetitions where everything is slow. */
static inline int repetitions(int usual) {
    int fewer = (int)(usual / slow_factor());
    return fewer < 2 ? 2 : fewer;
}

/* Every test begins and ends with these. */
static inline void begin(int argc, char **argv) {
    if (argc > 1) model_folder = argv[1];
    CHECK(bolmo_abi_version() >= BOLMO_ABI_VERSION);
}

static inline int end(const char *name) {
    CHECK(bolmo_handle_count() == 0);
    printf("%s: passed\n", name);
    return 0;
}

#endif
