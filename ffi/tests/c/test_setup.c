/* Every function up to a loaded model, called successfully, with checks of its results. The others are in test_use.c,
   test_merge.c and test_train.c. */
#include "check.h"
#include <dirent.h>
#include <unistd.h>

/* A folder for compiled kernels. */
static char cache[] = "/tmp/bolmo-kernels-XXXXXX";

static int32_t count_progress(uint64_t done, uint64_t total, void *user_data) {
    CHECK(done <= total);
    ++*(int *)user_data;
    return 0;
}

static void count_release(void *user_data) { ++*(int *)user_data; }

static void count_lines(int32_t level, const char *text, size_t size, void *user_data) {
    CHECK(level >= BOLMO_LOG_ERROR && level <= BOLMO_LOG_TRACE && text != NULL && size > 0);
    ++*(int *)user_data;
}

static void library(void) {
    CHECK(strcmp(bolmo_last_error_message(), "") == 0);
    CHECK(strcmp(bolmo_status_name(BOLMO_OK), "ok") == 0);
    CHECK(strcmp(bolmo_status_name(BOLMO_BAD_CHECKPOINT), "bad checkpoint") == 0);
    CHECK(strcmp(bolmo_status_name(99), "unknown status") == 0);
    CHECK(strcmp(bolmo_status_name(-1), "unknown status") == 0);
    CHECK(strcmp(bolmo_stop_name(BOLMO_STOP_STRING), "stop-string") == 0);
    CHECK(strcmp(bolmo_stop_name(BOLMO_STOP_COMPLETE), "complete") == 0);
    CHECK(strcmp(bolmo_stop_name(5), "unknown") == 0);
    CHECK(bolmo_abi_version() == BOLMO_ABI_VERSION);
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", BOLMO_VERSION_MAJOR, BOLMO_VERSION_MINOR, BOLMO_VERSION_PATCH);
    CHECK(strncmp(BOLMO_VERSION, version, strlen(version)) == 0);
    CHECK(strcmp(bolmo_version(), BOLMO_VERSION) == 0);
    CHECK(bolmo_handle_count() == 0);
}

static void text(void) {
    bolmo_utf8 *assembler = NULL;
    const char *out;
    size_t size;
    CHECK_OK(bolmo_utf8_create(&assembler));
    CHECK(bolmo_handle_count() == 1);
    CHECK_OK(bolmo_utf8_push(assembler, "a\xe2\x82", 3, &out, &size));
    CHECK_BYTES(out, size, "a", 1);
    CHECK_OK(bolmo_utf8_push(assembler, "\xac!", 2, &out, &size));
    CHECK_BYTES(out, size, "\xe2\x82\xac!", 4);
    CHECK_OK(bolmo_utf8_push(assembler, NULL, 0, &out, &size));
    CHECK(size == 0);
    CHECK_OK(bolmo_utf8_push(assembler, "\xc3", 1, &out, &size));
    CHECK(size == 0);
    CHECK_OK(bolmo_utf8_finish(assembler, &out, &size));
    CHECK_BYTES(out, size, "\xef\xbf\xbd", 3);
    CHECK_OK(bolmo_utf8_push(assembler, "b", 1, &out, &size));
    CHECK_BYTES(out, size, "b", 1);
    CHECK_OK(bolmo_utf8_finish(assembler, &out, &size));
    CHECK(size == 0);
    bolmo_utf8_delete(assembler);
}

static bolmo_engine *engine(void) {
    bolmo_adapters *list = NULL;
    const char *name, *again;
    size_t count = 0, size = 0;
    uint64_t number = 0, chosen = 0;
    CHECK_OK(bolmo_adapters_list("", 0, &list));
    CHECK_OK(bolmo_adapters_count(list, &count));
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        for (int32_t which = BOLMO_ADAPTER_NAME; which <= BOLMO_ADAPTER_REASON; which++) {
            CHECK_OK(bolmo_adapters_text(list, i, which, &name, &size));
            CHECK(strlen(name) == size);
            CHECK_OK(bolmo_adapters_text(list, i, which, &again, NULL));
            CHECK(name == again);
        }
        for (int32_t which = BOLMO_ADAPTER_CHOSEN; which <= BOLMO_ADAPTER_SHADER_F16; which++) {
            CHECK_OK(bolmo_adapters_number(list, i, which, &number));
            if (which == BOLMO_ADAPTER_CHOSEN) chosen += number;
        }
    }
    CHECK(chosen == 1);
    /* The CPU device needs no driver, so it is always there. */
    CHECK_OK(bolmo_adapters_text(list, count - 1, BOLMO_ADAPTER_KIND, &name, NULL));
    CHECK(strcmp(name, "cpu") == 0);
    CHECK_OK(bolmo_adapters_number(list, count - 1, BOLMO_ADAPTER_USABLE, &number));
    CHECK(number == 1);
    bolmo_adapters_delete(list);

    bolmo_engine_options *options = NULL;
    bolmo_engine *engine = NULL;
    const char *adapter = getenv("BOLMO_ADAPTER");
    CHECK_OK(bolmo_engine_options_create(&options));
    CHECK_OK(bolmo_engine_options_set_adapter(options, adapter, adapter == NULL ? 0 : strlen(adapter)));
    CHECK_OK(bolmo_engine_options_set_max_binding_bytes(options, 1 << 27));
    CHECK_OK(bolmo_engine_options_set_threads(options, 2));
    CHECK_OK(bolmo_engine_options_set_products(options, BOLMO_PRODUCTS_F32));
    CHECK_OK(bolmo_engine_options_set_in_place_bytes(options, 1));
    CHECK_OK(bolmo_engine_options_set_kernel_cache(options, "/nowhere", 8));
    CHECK_OK(bolmo_engine_options_set_kernel_cache(options, cache, strlen(cache)));
    CHECK_OK(bolmo_engine_create(options, &engine));
    bolmo_engine_options_delete(options);
    CHECK_OK(bolmo_engine_text(engine, BOLMO_ADAPTER_BACKEND, &name, &size));
    CHECK(size == strlen(name) && size > 0);
    CHECK_OK(bolmo_engine_number(engine, BOLMO_ADAPTER_USABLE, &number));
    CHECK(number == 1);
    return engine;
}

static void checkpoint_numbers(const bolmo_checkpoint *checkpoint) {
    uint64_t parameters = 0, number = 0, f32 = 0, f16 = 0;
    const char *source;
    const uint8_t *json;
    size_t size = 0;
    bolmo_bytes *bytes = NULL;
    CHECK_OK(bolmo_checkpoint_number(checkpoint, BOLMO_MODEL_PARAMETERS, &parameters));
    CHECK(parameters > 100000);
    for (int32_t which = BOLMO_MODEL_PARAMETERS; which <= BOLMO_MODEL_WORK_BYTES; which++)
        CHECK_OK(bolmo_checkpoint_number(checkpoint, which, &number));
    CHECK_OK(bolmo_checkpoint_session_bytes(checkpoint, 100, &number));
    CHECK(number > 0);
    CHECK_OK(bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F32, &f32));
    CHECK_OK(bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F16, &f16));
    CHECK(f32 >= 4 * parameters && f16 >= 2 * parameters && f16 < f32);
    CHECK_OK(bolmo_checkpoint_tokenizer_source(checkpoint, &source, &size));
    CHECK(strlen(source) == size);
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_warning(checkpoint, 1000, &source, &size));
    CHECK_OK(bolmo_checkpoint_config_json(checkpoint, &bytes));
    CHECK_OK(bolmo_bytes_get(bytes, &json, &size));
    CHECK(size > 100 && json[0] == '{' && json[size - 1] == '}');
    bolmo_bytes_delete(bytes);
}

/* A config without rope_theta, which is accepted with a warning. */
static char *odd_config(const uint8_t *config, size_t size) {
    char *odd = malloc(size + 1);
    CHECK(odd != NULL);
    memcpy(odd, config, size);
    odd[size] = '\0';
    char *key = strstr(odd, "\"rope_theta\"");
    CHECK(key != NULL);
    memcpy(key, "\"rope_thetx\"", 12);
    return odd;
}

static int64_t read_weights(void *user_data, uint64_t offset, uint8_t *out, size_t size) {
    /* Short reads are allowed. */
    size_t some = size > 1000000 ? 1000000 : size;
    memcpy(out, (const uint8_t *)user_data + offset, some);
    return (int64_t)some;
}

static bolmo_checkpoint *checkpoint(void) {
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_checkpoint_builder *builder = NULL;
    size_t config_size, weights_size, tokenizer_size, size;
    const char *warning = NULL;
    size_t count = 0;
    int released = 0;
    uint8_t *config = read_model_file("config.json", &config_size);
    uint8_t *weights = read_model_file("model.safetensors", &weights_size);
    uint8_t *tokenizer = read_model_file("tokenizer.json", &tokenizer_size);

    CHECK_OK(bolmo_checkpoint_builder_create(&builder));
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
    CHECK_OK(bolmo_checkpoint_builder_set_tokenizer(builder, tokenizer, tokenizer_size, NULL, 0));
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "weights", 7, weights, weights_size, count_release,
                                                 &released));
    CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
    checkpoint_numbers(checkpoint);
    bolmo_checkpoint_delete(checkpoint);
    CHECK(released == 1);

    char *odd = odd_config(config, config_size);
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, odd, config_size));
    CHECK_OK(bolmo_checkpoint_builder_add_reader(builder, "weights", 7, weights_size, read_weights, NULL, weights));
    CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
    CHECK_OK(bolmo_checkpoint_warning_count(checkpoint, &count));
    CHECK(count == 1);
    CHECK_OK(bolmo_checkpoint_warning(checkpoint, 0, &warning, &size));
    CHECK(size > 0 && strlen(warning) == size && strstr(warning, "rope_theta") != NULL);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_checkpoint_builder_delete(builder);
    free(odd);
    free(config);
    free(weights);
    free(tokenizer);

    CHECK_OK(bolmo_checkpoint_open(model_folder, strlen(model_folder), &checkpoint));
    checkpoint_numbers(checkpoint);
    return checkpoint;
}

static bolmo_model *model(const bolmo_engine *engine, const bolmo_checkpoint *checkpoint) {
    bolmo_load_options *options = NULL;
    bolmo_model *model = NULL, *half = NULL, *mixed = NULL, *rotated = NULL;
    uint8_t fingerprint[16] = {0}, other[16] = {0};
    uint64_t bytes = 0, expected = 0, number = 0;
    const char *text;
    size_t size;
    int told = 0;
    uint8_t *tokenizer = read_model_file("tokenizer.json", &size);
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_OK(bolmo_load_options_set_format(options, BOLMO_F16));
    CHECK_OK(bolmo_load_options_set_tokenizer(options, tokenizer, size, NULL, 0));
    CHECK_OK(bolmo_load_options_set_progress(options, count_progress, &told));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &half));
    free(tokenizer);
    CHECK(told > 0);
    CHECK_OK(bolmo_load_options_set_format(options, BOLMO_F32));
    CHECK_OK(bolmo_load_options_set_tokenizer_path(options, model_folder, strlen(model_folder)));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &model));
    CHECK_OK(bolmo_model_fingerprint(model, fingerprint));
    /* Another rotary embedding is another model. */
    const char *scaling = "yarn:factor=8,original=64";
    CHECK_OK(bolmo_load_options_set_rope_theta(options, 250000.0));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &rotated));
    CHECK_OK(bolmo_model_fingerprint(rotated, other));
    CHECK(memcmp(fingerprint, other, 16) != 0);
    bolmo_model_delete(rotated);
    CHECK_OK(bolmo_load_options_set_rope_scaling(options, scaling, strlen(scaling)));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &rotated));
    CHECK_OK(bolmo_model_fingerprint(rotated, fingerprint));
    CHECK(memcmp(fingerprint, other, 16) != 0);
    bolmo_model_delete(rotated);
    /* The format of a single part takes precedence, whatever is set before or after. */
    CHECK_OK(bolmo_load_options_set_part_format(options, BOLMO_PART_EMBEDDINGS, BOLMO_Q8));
    CHECK_OK(bolmo_load_options_set_part_format(options, BOLMO_PART_LOCAL, BOLMO_F32));
    CHECK_OK(bolmo_load_options_set_part_format(options, BOLMO_PART_GLOBAL, BOLMO_F32));
    CHECK_OK(bolmo_load_options_set_format(options, BOLMO_Q4));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &mixed));
    CHECK_OK(bolmo_model_device_bytes(mixed, &number));
    CHECK_OK(bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F32, &bytes));
    CHECK_OK(bolmo_checkpoint_device_bytes(checkpoint, BOLMO_Q8, &expected));
    CHECK(number > expected && number < bytes);
    bolmo_model_delete(mixed);
    bolmo_load_options_delete(options);
    CHECK_OK(bolmo_model_fingerprint(half, other));
    CHECK_OK(bolmo_model_fingerprint(model, fingerprint));
    CHECK(memcmp(fingerprint, other, 16) != 0);
    CHECK_OK(bolmo_model_device_bytes(model, &bytes));
    CHECK_OK(bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F32, &expected));
    CHECK(bytes == expected);
    CHECK_OK(bolmo_model_mapped_bytes(model, &number));
    CHECK_OK(bolmo_checkpoint_mapped_bytes(checkpoint, engine, BOLMO_F32, &expected));
    CHECK(number == expected && number <= bytes);
    CHECK_OK(bolmo_model_session_bytes(model, 100, &bytes));
    CHECK_OK(bolmo_checkpoint_session_bytes(checkpoint, 100, &expected));
    CHECK(bytes > 0 && bytes <= expected);
    CHECK_OK(bolmo_model_number(model, BOLMO_MODEL_LOGITS, &number));
    CHECK(number == 520);
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_model_warning(model, 1000, &text, &size));
    bolmo_model_delete(half);
    return model;
}

/* A tokenizer without its padding token gives a model with a warning. */
static void model_warning(const bolmo_engine *engine, const bolmo_checkpoint *checkpoint) {
    bolmo_load_options *options = NULL;
    bolmo_model *model = NULL;
    const char *text = NULL;
    size_t size, count;
    uint8_t *tokenizer = read_model_file("tokenizer.json", &size);
    for (size_t i = 0; i + 7 <= size; i++)
        if (memcmp(tokenizer + i, "<|pad|>", 7) == 0) memcpy(tokenizer + i, "<|fil|>", 7);
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_OK(bolmo_load_options_set_tokenizer(options, tokenizer, size, NULL, 0));
    CHECK_OK(bolmo_model_load(engine, checkpoint, options, &model));
    CHECK_OK(bolmo_model_warning_count(model, &count));
    CHECK(count == 1);
    CHECK_OK(bolmo_model_warning(model, 0, &text, &size));
    CHECK(strlen(text) == size && size > 0);
    bolmo_load_options_delete(options);
    bolmo_model_delete(model);
    free(tokenizer);
}

/* What a driver compiled is in the folder; the CPU device compiles nothing. */
static void kernel_cache(const bolmo_engine *engine) {
    const char *backend;
    size_t files = 0;
    CHECK_OK(bolmo_engine_text(engine, BOLMO_ADAPTER_BACKEND, &backend, NULL));
    DIR *folder = opendir(cache);
    CHECK(folder != NULL);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        CHECK(strncmp(entry->d_name, "kernels-", 8) == 0);
        CHECK(unlinkat(dirfd(folder), entry->d_name, 0) == 0);
        files++;
    }
    closedir(folder);
    CHECK(rmdir(cache) == 0);
    CHECK(strcmp(backend, "cpu") == 0 ? files == 0 : strcmp(backend, "vulkan") != 0 || files == 1);
    /* An adapter that takes little power: on machines without a GPU, the CPU. */
    bolmo_adapters *list = NULL;
    size_t count = 0;
    uint64_t chosen = 0, all = 0;
    CHECK_OK(bolmo_adapters_list("low-power", 9, &list));
    CHECK_OK(bolmo_adapters_count(list, &count));
    for (size_t i = 0; i < count; i++, all += chosen) {
        const char *kind;
        CHECK_OK(bolmo_adapters_number(list, i, BOLMO_ADAPTER_CHOSEN, &chosen));
        CHECK_OK(bolmo_adapters_text(list, i, BOLMO_ADAPTER_KIND, &kind, NULL));
        CHECK(!chosen || strcmp(kind, "software") != 0);
    }
    CHECK(all == 1);
    bolmo_adapters_delete(list);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    CHECK(mkdtemp(cache) != NULL);
    int lines = 0;
    library();
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_TRACE, count_lines, &lines));
    text();
    bolmo_engine *device = engine();
    bolmo_checkpoint *opened = checkpoint();
    bolmo_model *loaded = model(device, opened);
    model_warning(device, opened);
    kernel_cache(device);
    bolmo_checkpoint_delete(opened);
    bolmo_model_delete(loaded);
    CHECK(lines > 0);
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_OFF, NULL, NULL));
    CHECK_OK(bolmo_engine_destroy_device(device));
    bolmo_engine_delete(device);
    return end("setup");
}
