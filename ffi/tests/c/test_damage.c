/* Damaged checkpoints: truncated at many places, with single bytes changed, or other files altogether. Each gives a
   status and nothing worse. */
#include "check.h"

static uint8_t *config, *weights;
static size_t config_size, weights_size;
static uint64_t random_state = 1;

static uint64_t random_number(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 33;
}

static void count_release(void *user_data) { ++*(int *)user_data; }

/* Opens a checkpoint from the parts, and releases them in any case. */
static bolmo_status open_parts(const void *json, size_t json_size, const void *file, size_t file_size, bool *opened) {
    bolmo_checkpoint_builder *builder = NULL;
    bolmo_checkpoint *checkpoint = NULL;
    uint64_t number;
    int released = 0;
    CHECK_OK(bolmo_checkpoint_builder_create(&builder));
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, json, json_size));
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "weights", 7, file, file_size, count_release, &released));
    bolmo_status status = bolmo_checkpoint_builder_open(builder, &checkpoint);
    *opened = checkpoint != NULL;
    CHECK((status == BOLMO_OK) == *opened);
    if (*opened) {
        for (int32_t which = 0; which < 10; which++) CHECK_OK(bolmo_checkpoint_number(checkpoint, which, &number));
        bolmo_checkpoint_delete(checkpoint);
    } else {
        CHECK(strlen(bolmo_last_error_message()) > 0);
    }
    bolmo_checkpoint_builder_delete(builder);
    CHECK(released == 1);
    return status;
}

static void truncated_files_give_a_status(void) {
    uint64_t header;
    bool opened;
    memcpy(&header, weights, sizeof header);
    for (size_t size = 0; size < weights_size;) {
        /* A buffer of exactly that size, so that a sanitizer sees every byte beyond it. */
        uint8_t *cut = malloc(size + 1);
        CHECK(cut != NULL);
        memcpy(cut, weights, size);
        bolmo_status status = open_parts(config, config_size, cut, size, &opened);
        free(cut);
        CHECK(status == BOLMO_BAD_CHECKPOINT);
        CHECK_SAYS("weights");
        size += size < 64 ? 1 : size < header + 8 ? 61 : 20011;
    }
    CHECK(open_parts(config, config_size, weights, weights_size, &opened) == BOLMO_OK);
    for (size_t size = 0; size + 1 < config_size; size += 7) {
        CHECK(open_parts(config, size, weights, weights_size, &opened) == BOLMO_BAD_CHECKPOINT);
        CHECK_SAYS("config.json");
    }
}

/* Changes single bytes of the headers. A few changes go unnoticed, such as in a name that nothing uses. */
static void changed_bytes_give_a_status(void) {
    uint64_t header;
    bool opened;
    int refused = 0, tried = repetitions(4000);
    memcpy(&header, weights, sizeof header);
    for (int i = 0; i < tried; i++) {
        size_t at = i < 64 ? (size_t)i : random_number() % (header + 8);
        uint8_t before = weights[at];
        weights[at] ^= (uint8_t)(1 + random_number() % 255);
        bolmo_status status = open_parts(config, config_size, weights, weights_size, &opened);
        CHECK(status == BOLMO_OK || status == BOLMO_BAD_CHECKPOINT || status == BOLMO_UNSUPPORTED);
        refused += status != BOLMO_OK;
        weights[at] = before;
    }
    CHECK(refused > tried / 2);
    for (int i = 0; i < tried; i++) {
        size_t at = random_number() % config_size;
        uint8_t before = config[at];
        config[at] ^= (uint8_t)(1 + random_number() % 255);
        bolmo_status status = open_parts(config, config_size, weights, weights_size, &opened);
        CHECK(status == BOLMO_OK || status == BOLMO_BAD_CHECKPOINT || status == BOLMO_UNSUPPORTED);
        config[at] = before;
    }
}

/* Header lengths out of any range. */
static void lengths(void) {
    const uint64_t lengths[] = {0, 1, weights_size, weights_size - 8, weights_size - 7, UINT32_MAX, INT64_MAX,
                                UINT64_MAX - 7, UINT64_MAX};
    uint64_t header;
    bool opened;
    memcpy(&header, weights, sizeof header);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(weights, &lengths[i], sizeof header);
        CHECK(open_parts(config, config_size, weights, weights_size, &opened) == BOLMO_BAD_CHECKPOINT);
    }
    memcpy(weights, &header, sizeof header);
}

/* Other files in place of a config or of weights, and a config with what Python writes but JSON lacks. */
static void mistaken_files_are_named(void) {
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    static const char page[] = "<!DOCTYPE html><html><title>Sign in</title></html>";
    static const struct {
        const char *contents, *says;
    } files[] = {{pointer, "git lfs pull"}, {page, "web page"}, {"Entry not found", "Entry not found"}};
    bool opened;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *contents = files[i].contents;
        size_t size = strlen(contents);
        CHECK(open_parts(contents, size, weights, weights_size, &opened) == BOLMO_BAD_CHECKPOINT);
        CHECK_SAYS("config.json");
        CHECK_SAYS(files[i].says);
        CHECK(open_parts(config, config_size, contents, size, &opened) == BOLMO_BAD_CHECKPOINT);
        CHECK_SAYS("weights");
        CHECK_SAYS(files[i].says);
    }
    /* A byte order mark, and a NaN under a key that nothing reads. */
    static const char start[] = "\xef\xbb\xbf{\"notes\": NaN, ";
    uint8_t *marked = malloc(sizeof start + config_size);
    CHECK(marked != NULL);
    const uint8_t *brace = memchr(config, '{', config_size);
    CHECK(brace != NULL);
    size_t rest = config_size - (size_t)(brace - config) - 1;
    memcpy(marked, start, sizeof start - 1);
    memcpy(marked + sizeof start - 1, brace + 1, rest);
    CHECK(open_parts(marked, sizeof start - 1 + rest, weights, weights_size, &opened) == BOLMO_OK);
    free(marked);
}

/* NaN and infinite weights are found when they are loaded, and reported by name. */
static void non_finite_weights_are_named(trained_model trained) {
    bolmo_checkpoint_builder *builder = NULL;
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    bolmo_load_options *options = NULL;
    uint64_t header;
    const float not_a_number = 0.0f / 0.0f, large = 1e6f;
    memcpy(&header, weights, sizeof header);
    for (int i = 0; i < 2; i++) {
        float before;
        uint8_t *place = weights + 8 + header + 4096;
        memcpy(&before, place, sizeof before);
        memcpy(place, i == 0 ? &not_a_number : &large, sizeof before);
        CHECK_OK(bolmo_checkpoint_builder_create(&builder));
        CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
        CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "weights", 7, weights, weights_size, NULL, NULL));
        CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
        CHECK_OK(bolmo_load_options_create(&options));
        CHECK_OK(bolmo_load_options_set_tokenizer_path(options, model_folder, strlen(model_folder)));
        CHECK_OK(bolmo_load_options_set_format(options, i == 0 ? BOLMO_F32 : BOLMO_F16));
        CHECK_STATUS(i == 0 ? BOLMO_BAD_CHECKPOINT : BOLMO_UNSUPPORTED,
                     bolmo_model_load(trained.engine, checkpoint, options, &model));
        CHECK_SAYS("weight");
        CHECK(model == NULL);
        bolmo_load_options_delete(options);
        bolmo_checkpoint_delete(checkpoint);
        bolmo_checkpoint_builder_delete(builder);
        memcpy(place, &before, sizeof before);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    config = read_model_file("config.json", &config_size);
    weights = read_model_file("model.safetensors", &weights_size);
    truncated_files_give_a_status();
    lengths();
    mistaken_files_are_named();
    changed_bytes_give_a_status();
    trained_model trained = open_trained();
    non_finite_weights_are_named(trained);
    close_trained(trained);
    free(config);
    free(weights);
    return end("damage");
}
