/* Statuses of failing calls, and their messages. Others are in test_busy.c, test_lost.c and test_damage.c. */
#include "check.h"
#include <sys/stat.h>
#include <unistd.h>

static void not_found(void) {
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_engine_options *options = NULL;
    bolmo_engine *engine = NULL;
    const char *missing = "/no/such/folder", *adapter = "no such adapter";
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open(missing, strlen(missing), &checkpoint));
    CHECK_SAYS(missing);
    CHECK_OK(bolmo_engine_options_create(&options));
    CHECK_OK(bolmo_engine_options_set_adapter(options, adapter, strlen(adapter)));
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_engine_create(options, &engine));
    CHECK_SAYS(adapter);
    CHECK_OK(bolmo_engine_options_set_adapter(options, "999", 3));
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_engine_create(options, &engine));
    bolmo_engine_options_delete(options);
    CHECK(checkpoint == NULL && engine == NULL);
}

/* Paths are bytes: paths that are not UTF-8 work, NUL bytes are rejected. */
static void paths(void) {
    char folder[] = "/tmp/bolmo-\xff\xfe-XXXXXX", target[4096], link[4200];
    bolmo_checkpoint *checkpoint = NULL;
    CHECK(mkdtemp(folder) != NULL);
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open(folder, strlen(folder), &checkpoint));
    CHECK_SAYS("config.json");
    CHECK(realpath(model_folder, target) != NULL);
    snprintf(link, sizeof link, "%s/model\xe9", folder);
    CHECK(symlink(target, link) == 0);
    CHECK_OK(bolmo_checkpoint_open(link, strlen(link), &checkpoint));
    bolmo_checkpoint_delete(checkpoint);
    checkpoint = NULL;
    CHECK_INVALID(bolmo_checkpoint_open(link, strlen(link) + 1, &checkpoint));
    CHECK_SAYS("NUL");
    CHECK_INVALID(bolmo_checkpoint_open("\0abc", 4, &checkpoint));
    /* A path that is too long for the system, and a file in place of a folder. */
    static char long_path[100000];
    memset(long_path, 'a', sizeof long_path);
    CHECK(bolmo_checkpoint_open(long_path, sizeof long_path, &checkpoint) != BOLMO_OK);
    snprintf(link, sizeof link, "%s/config.json", target);
    CHECK(bolmo_checkpoint_open(link, strlen(link), &checkpoint) != BOLMO_OK);
    CHECK(checkpoint == NULL);
    snprintf(link, sizeof link, "%s/model\xe9", folder);
    CHECK(unlink(link) == 0 && rmdir(folder) == 0);
}

/* Every format is accepted, and each takes less memory than the one before. */
static void formats(trained_model trained) {
    bolmo_load_options *options = NULL;
    uint64_t before = UINT64_MAX, bytes = 0;
    CHECK_OK(bolmo_load_options_create(&options));
    for (int32_t format = BOLMO_F32; format <= BOLMO_Q4; format++) {
        CHECK_OK(bolmo_load_options_set_format(options, format));
        CHECK_OK(bolmo_checkpoint_device_bytes(trained.checkpoint, format, &bytes));
        CHECK(bytes > 0 && bytes < before);
        before = bytes;
    }
    CHECK_INVALID(bolmo_load_options_set_format(options, BOLMO_Q4 + 1));
    bolmo_load_options_delete(options);
}

/* Every way of giving a tokenizer that does not match. */
static void tokenizers(trained_model trained) {
    size_t config_size, weights_size;
    uint8_t *config = read_model_file("config.json", &config_size);
    uint8_t *weights = read_model_file("model.safetensors", &weights_size);
    bolmo_checkpoint_builder *builder = NULL;
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_load_options *options = NULL;
    bolmo_model *model = NULL;
    CHECK_OK(bolmo_checkpoint_builder_create(&builder));
    CHECK_OK(bolmo_checkpoint_builder_set_config(builder, config, config_size));
    CHECK_OK(bolmo_checkpoint_builder_add_memory(builder, "w", 1, weights, weights_size, NULL, NULL));
    CHECK_OK(bolmo_checkpoint_builder_open(builder, &checkpoint));
    CHECK_INVALID(bolmo_model_load(trained.engine, checkpoint, NULL, &model));
    CHECK_SAYS("tokenizer.json");
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_INVALID(bolmo_model_load(trained.engine, checkpoint, options, &model));
    CHECK_OK(bolmo_load_options_set_tokenizer(options, "{}", 2, NULL, 0));
    CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_model_load(trained.engine, checkpoint, options, &model));
    CHECK_OK(bolmo_load_options_set_tokenizer(options, NULL, 0, NULL, 0));
    CHECK_STATUS(BOLMO_BAD_CHECKPOINT, bolmo_model_load(trained.engine, checkpoint, options, &model));
    CHECK_OK(bolmo_load_options_set_tokenizer_path(options, "/no/such/file", 13));
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_model_load(trained.engine, checkpoint, options, &model));
    CHECK_SAYS("/no/such/file");
    CHECK(model == NULL);
    CHECK_OK(bolmo_load_options_set_tokenizer_path(options, model_folder, strlen(model_folder)));
    CHECK_OK(bolmo_model_load(trained.engine, checkpoint, options, &model));
    bolmo_model_delete(model);
    bolmo_load_options_delete(options);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_checkpoint_builder_delete(builder);
    free(config);
    free(weights);
}

typedef struct {
    uint64_t at, last, calls;
} watcher;

static int32_t cancel_at(uint64_t done, uint64_t total, void *user_data) {
    watcher *this = user_data;
    CHECK(done >= this->last && done <= total);
    this->last = done;
    this->calls++;
    return done >= this->at ? -1 : 0;
}

static int32_t stop_at_once(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)size, (void)ids, (void)user_data;
    return 7;
}

static void cancelled(trained_model trained) {
    bolmo_load_options *options = NULL;
    bolmo_model *model = NULL;
    for (uint64_t at = 0; at < 1300000; at += 400000) {
        watcher this = {at, 0, 0};
        CHECK_OK(bolmo_load_options_create(&options));
        CHECK_OK(bolmo_load_options_set_progress(options, cancel_at, &this));
        CHECK_STATUS(BOLMO_CANCELLED, bolmo_model_load(trained.engine, trained.checkpoint, options, &model));
        CHECK(model == NULL && this.last >= at && this.calls > 0);
        bolmo_load_options_delete(options);
    }

    static char text[4000];
    memset(text, 'a', sizeof text);
    bolmo_session *session = session_with(trained.model, "");
    size_t length = 0, before = 0;
    const uint64_t places[] = {0, 1, 1500, 3999};
    for (int i = 0; i < 4; i++) {
        watcher this = {places[i], 0, 0};
        CHECK_OK(bolmo_session_length(session, &before));
        bolmo_status status = bolmo_session_append(session, text, sizeof text, cancel_at, &this);
        CHECK_OK(bolmo_session_length(session, &length));
        /* A cancel at the very end has nothing left to stop, and does not hit the next call. */
        CHECK(status == (this.last < sizeof text ? BOLMO_CANCELLED : BOLMO_OK));
        CHECK(length - before == this.last);
    }
    watcher this = {0, 0, 0};
    uint32_t ids[] = {80, 81};
    CHECK_STATUS(BOLMO_CANCELLED, bolmo_session_append_ids(session, ids, 2, cancel_at, &this));
    CHECK_OK(bolmo_session_append_ids(session, ids, 2, NULL, NULL));

    /* A request hits the next call, once; it can be withdrawn. */
    CHECK_OK(bolmo_session_cancel(session));
    CHECK_OK(bolmo_session_cancel(session));
    CHECK_STATUS(BOLMO_CANCELLED, bolmo_session_append(session, "a", 1, NULL, NULL));
    CHECK_OK(bolmo_session_append(session, "a", 1, NULL, NULL));
    CHECK_OK(bolmo_session_cancel(session));
    CHECK_OK(bolmo_session_reset_cancel(session));
    CHECK_OK(bolmo_session_append(session, "a", 1, NULL, NULL));

    bolmo_generation *generation = NULL;
    int32_t stop = -1;
    CHECK_OK(bolmo_session_cancel(session));
    CHECK_OK(bolmo_session_generate(session, NULL, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK(stop == BOLMO_STOP_CANCELLED);
    bolmo_generation_delete(generation);
    CHECK_OK(bolmo_session_generate(session, NULL, stop_at_once, NULL, &generation));
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK_OK(bolmo_generation_patches(generation, &length));
    CHECK(stop == BOLMO_STOP_CANCELLED && length <= 1);
    bolmo_generation_delete(generation);
    bolmo_session_delete(session);

    bolmo_score_options *scoring = NULL;
    bolmo_score *score = NULL;
    CHECK_OK(bolmo_score_options_create(&scoring));
    this.last = 0;
    CHECK_OK(bolmo_score_options_set_progress(scoring, cancel_at, &this));
    CHECK_STATUS(BOLMO_CANCELLED, bolmo_model_score(trained.model, text, sizeof text, scoring, &score));
    CHECK(score == NULL);
    bolmo_score_options_delete(scoring);
}

/* Objects that belong to another model. */
static void another_model(trained_model trained) {
    bolmo_load_options *options = NULL;
    bolmo_model *half = NULL;
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_OK(bolmo_load_options_set_format(options, BOLMO_F16));
    CHECK_OK(bolmo_model_load(trained.engine, trained.checkpoint, options, &half));
    bolmo_load_options_delete(options);
    bolmo_session *session = session_with(half, "ab"), *other = session_with(trained.model, "ab");
    bolmo_session_checkpoint *state = NULL;
    CHECK_OK(bolmo_session_checkpoint_create(session, &state));
    CHECK_INVALID(bolmo_session_rewind(other, state));
    CHECK_SAYS("another model");
    bolmo_session_checkpoint_delete(state);
    bolmo_session_delete(session);
    bolmo_session_delete(other);
    bolmo_model_delete(half);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    not_found();
    paths();
    trained_model trained = open_trained();
    formats(trained);
    tokenizers(trained);
    cancelled(trained);
    another_model(trained);
    close_trained(trained);
    return end("statuses");
}
