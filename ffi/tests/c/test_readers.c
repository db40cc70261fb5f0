/* Checkpoints from readers and memory: readers that fail in every way, progress that cancels, and exactly one release
   each. */
#include "check.h"

static uint8_t *config, *weights, *tokenizer;
static size_t config_size, weights_size, tokenizer_size;

enum failure { NONE, NEGATIVE, EARLY_END, TOO_MANY, LOWEST, BY_ONE_BYTE };

/* A reader that fails in the given way once `from` is reached. */
typedef struct {
    enum failure failure;
    uint64_t from;
    int reads, releases;
} reader;

static int64_t read_some(void *user_data, uint64_t offset, uint8_t *to, size_t size) {
    reader *this = user_data;
    this->reads++;
    CHECK(this->releases == 0);
    CHECK(size > 0 && offset <= weights_size && size <= weights_size - offset);
    if (this->failure != NONE && offset + size > this->from) {
        switch (this->failure) {
        case NEGATIVE: return -5;
        case LOWEST: return INT64_MIN;
        case EARLY_END: return 0;
        case TOO_MANY: return (int64_t)size + 1;
        default: break;
        }
    }
    if (this->failure == BY_ONE_BYTE && size < 100000) size = 1;
    memcpy(to, weights + offset, size);
    return (int64_t)size;
}

static void release(void *user_data) { ((reader *)user_data)->releases++; }

static bolmo_checkpoint_builder *builder_with(reader *this, uint64_t size) {
    bolmo_checkpoint_builder *builder = NULL;
    CHECK_OK(bolmo_checkpoint_builder_create(&builder));
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
    CHECK_OK(bolmo_checkpoint_builder_set_tokenizer(builder, tokenizer, tokenizer_size, NULL, 0));
    CHECK_OK(bolmo_checkpoint_builder_add_reader(builder, "my weights", 10, size, read_some, release, this));
    return builder;
}

/* A failing reader gives BOLMO_IO, from opening or from loading. */
static void check_failing(const bolmo_engine *engine, enum failure failure, uint64_t from, const char *words) {
    reader this = {failure, from, 0, 0};
    bolmo_checkpoint_builder *builder = builder_with(&this, weights_size);
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    bolmo_status status = bolmo_checkpoint_builder_open(builder, &checkpoint);
    if (status == BOLMO_OK) {
        CHECK(this.releases == 0 && checkpoint != NULL);
        status = bolmo_model_load(engine, checkpoint, NULL, &model);
        CHECK(this.releases == 0);
    } else {
        /* The parts moved to the failed checkpoint, and were released with it. */
        CHECK(checkpoint == NULL && this.releases == 1);
    }
    CHECK(status == BOLMO_IO && model == NULL);
    CHECK_SAYS("my weights");
    CHECK_SAYS(words);
    bolmo_checkpoint_delete(checkpoint);
    CHECK(this.releases == 1);
    bolmo_checkpoint_builder_delete(builder);
    CHECK(this.releases == 1 && this.reads > 0);
}

static void failing_readers_give_io(const bolmo_engine *engine) {
    uint64_t header = 0;
    memcpy(&header, weights, sizeof header);
    const uint64_t places[] = {0, 7, 8, 9, header / 2, header + 8, header + 9, weights_size / 2, weights_size - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        check_failing(engine, NEGATIVE, places[i], "-5");
        check_failing(engine, LOWEST, places[i], "-9223372036854775808");
        check_failing(engine, EARLY_END, places[i], "end");
        check_failing(engine, TOO_MANY, places[i], "returned");
    }
}

/* Readers that return a byte at a time are slow but correct. */
static void slow_readers_work(trained_model trained) {
    reader this = {BY_ONE_BYTE, 0, 0, 0};
    bolmo_checkpoint_builder *builder = builder_with(&this, weights_size);
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    uint8_t expected[16], found[16];
    CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
    bolmo_checkpoint_builder_delete(builder);
    CHECK_OK(bolmo_model_load(trained.engine, checkpoint, NULL, &model));
    CHECK_OK(bolmo_model_fingerprint(model, found));
    CHECK_OK(bolmo_model_fingerprint(trained.model, expected));
    CHECK_BYTES(found, 16, expected, 16);
    CHECK(this.releases == 0);
    bolmo_checkpoint_delete(checkpoint);
    CHECK(this.releases == 1);
    bolmo_model_delete(model);
}

/* Sizes that differ from the file's. */
static void wrong_sizes_are_rejected(void) {
    const uint64_t sizes[] = {0, 1, 7, 8, 9, 1000, (uint64_t)weights_size - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        reader this = {NONE, 0, 0, 0};
        bolmo_checkpoint *checkpoint = NULL;
        bolmo_checkpoint_builder *builder = builder_with(&this, sizes[i]);
        CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_checkpoint_builder_open(builder, &checkpoint));
        CHECK_SAYS("my weights");
        CHECK(this.releases == 1);
        bolmo_checkpoint_builder_delete(builder);
    }
    const uint64_t large[] = {(uint64_t)weights_size + 1, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        reader this = {EARLY_END, weights_size, 0, 0};
        bolmo_checkpoint *checkpoint = NULL;
        bolmo_checkpoint_builder *builder = builder_with(&this, large[i]);
        CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_checkpoint_builder_open(builder, &checkpoint));
        CHECK(this.releases == 1);
        bolmo_checkpoint_builder_delete(builder);
    }
}

/* A part is released exactly once, however it is dropped. */
static void parts_are_released_once(void) {
    reader one = {NONE, 0, 0, 0}, two = {NONE, 0, 0, 0};
    bolmo_checkpoint_builder *builder = builder_with(&one, weights_size);
    bolmo_checkpoint *checkpoint = NULL;
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "more", 4, weights, weights_size, release, &two));
    CHECK(one.releases == 0 && two.releases == 0);
    bolmo_checkpoint_builder_delete(builder);
    CHECK(one.releases == 1 && two.releases == 1 && one.reads == 0);

    /* The same tensors twice: rejected, and both parts released. */
    one.releases = two.releases = 0;
    builder = builder_with(&one, weights_size);
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "more", 4, weights, weights_size, release, &two));
    CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_checkpoint_builder_open(builder, &checkpoint));
    CHECK_SAYS("more");
    CHECK(one.releases == 1 && two.releases == 1);
    /* The builder is empty now, and can be filled again. */
    CHECK_INVALID(bolmo_checkpoint_builder_open(builder, &checkpoint));
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
    CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_checkpoint_builder_open(builder, &checkpoint));
    CHECK_SAYS("missing");
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "copied", 6, weights, weights_size, NULL, NULL));
    CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
    bolmo_checkpoint_delete(checkpoint);
    bolmo_checkpoint_builder_delete(builder);
}

typedef struct {
    bolmo_checkpoint_builder *builder;
    int releases;
} nosy;

static void use_library(void *user_data) {
    nosy *this = user_data;
    size_t before = bolmo_handle_count();
    bolmo_utf8 *utf8 = NULL;
    this->releases++;
    CHECK_OK(bolmo_utf8_create(&utf8));
    bolmo_utf8_delete(utf8);
    bolmo_checkpoint_builder_delete(this->builder);
    CHECK_INVALID(bolmo_checkpoint_builder_set_config(this->builder, config, config_size));
    CHECK(bolmo_handle_count() == before);
}

/* A release callback may call the library; even the builder that is being deleted is only gone. */
static void release_may_call_the_library(void) {
    nosy this = {NULL, 0};
    CHECK_OK(bolmo_checkpoint_builder_create(&this.builder));
    CHECK_OK(bolmo_checkpoint_builder_add_memory(this.builder, "w", 1, weights, weights_size, use_library, &this));
    bolmo_checkpoint_builder_delete(this.builder);
    CHECK(this.releases == 1);
}

static int64_t read_with_library(void *user_data, uint64_t offset, uint8_t *to, size_t size) {
    nosy *this = user_data;
    /* The builder has moved its parts out, and may be filled and deleted by the reader. */
    if (this->builder != NULL) {
        CHECK_OK(bolmo_checkpoint_builder_set_config(this->builder, "{}", 2));
        bolmo_checkpoint_builder_delete(this->builder);
        this->builder = NULL;
    }
    memcpy(to, weights + offset, size);
    return (int64_t)size;
}

static void count_release(void *user_data) { ((nosy *)user_data)->releases++; }

static void readers_may_call_the_library(void) {
    nosy this = {NULL, 0};
    bolmo_checkpoint *checkpoint = NULL;
    CHECK_OK(bolmo_checkpoint_builder_create(&this.builder));
    CHECK_OK(bolmo_checkpoint_builder_set_config(this.builder, config, config_size));
    CHECK_OK(bolmo_checkpoint_builder_add_reader(this.builder, "", 0, weights_size, read_with_library, count_release,
                                                 &this));
    CHECK_OK(bolmo_checkpoint_builder_open(this.builder, &checkpoint));
    CHECK(this.builder == NULL && this.releases == 0);
    bolmo_checkpoint_delete(checkpoint);
    CHECK(this.releases == 1);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    config = read_model_file("config.json", &config_size);
    weights = read_model_file("model.safetensors", &weights_size);
    tokenizer = read_model_file("tokenizer.json", &tokenizer_size);
    trained_model trained = open_trained();
    failing_readers_give_io(trained.engine);
    slow_readers_work(trained);
    wrong_sizes_are_rejected();
    parts_are_released_once();
    release_may_call_the_library();
    readers_may_call_the_library();
    close_trained(trained);
    free(config);
    free(weights);
    free(tokenizer);
    return end("readers");
}
