/* An object in use returns BOLMO_BUSY: to a callback of the call that uses it, to another thread, and to the log
   callback. */
#include "refuse.h"
#include <pthread.h>

static trained_model trained;
static bolmo_session *session, *other;
static bolmo_session_checkpoint *state;
static bolmo_sampler *sampler;
static uint8_t *snapshot;
static size_t snapshot_size;

#define BUSY(call) REFUSED_WITH(BOLMO_BUSY, call)

/* Every function that uses the session. */
static void check_all_busy(void) {
    static float logits[520];
    const uint32_t ids[] = {80};
    BUSY(bolmo_session_clone(session, &out.session));
    CHECK_SAYS("in use");
    BUSY(bolmo_session_append_bos(session));
    BUSY(bolmo_session_append(session, "a", 1, NULL, NULL));
    BUSY(bolmo_session_append_ids(session, ids, 1, NULL, NULL));
    BUSY(bolmo_session_ids(session, 0, out.ids, 8, &out.size));
    BUSY(bolmo_session_checkpoint_create(session, &out.session_checkpoint));
    BUSY(bolmo_session_rewind(session, state));
    BUSY(bolmo_session_snapshot(session, &out.bytes));
    BUSY(bolmo_session_logits(session, 0.0f, out.logits, 520));
    BUSY(bolmo_session_push(session, 80));
    BUSY(bolmo_session_generate(session, NULL, NULL, NULL, &out.generation));
    BUSY(bolmo_sampler_choose(sampler, session, logits, 520, NULL, out.ids));
}

/* What can be seen of a session in use. */
static void check_visible(void) {
    uint64_t bytes = 0, done = 0, total = 0;
    size_t length = 0, patches = 0;
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK_OK(bolmo_session_patches(session, &patches));
    CHECK_OK(bolmo_session_device_bytes(session, &bytes));
    CHECK_OK(bolmo_session_progress(session, &done, &total));
    CHECK(length >= 3 && patches >= 1 && patches < length && bytes > 0 && done <= total && total > 0);
}

/* Everything else may be used meanwhile, including the model with another session. */
static void check_others_work(void) {
    bolmo_session *restored = NULL;
    bolmo_generate_options *options = greedy(1);
    size_t length = 0;
    CHECK_OK(bolmo_session_rewind(other, state));
    CHECK_OK(bolmo_session_generate(other, options, NULL, NULL, NULL));
    CHECK_OK(bolmo_session_restore(trained.model, snapshot, snapshot_size, &restored));
    CHECK_OK(bolmo_session_length(restored, &length));
    CHECK(length == 3);
    bolmo_session_delete(restored);
    bolmo_generate_options_delete(options);
}

static int calls;
static size_t received;

static int32_t piece(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids, (void)user_data;
    received += size;
    if (calls++ % 3 == 0) {
        check_all_busy();
        check_visible();
        check_others_work();
    }
    return 0;
}

static int32_t progress(uint64_t done, uint64_t total, void *user_data) {
    (void)done, (void)total, (void)user_data;
    calls++;
    check_all_busy();
    check_visible();
    check_others_work();
    return 0;
}

static int32_t progress_of_another(uint64_t done, uint64_t total, void *user_data) {
    (void)done, (void)total, (void)user_data;
    size_t length;
    if (calls++ == 0) {
        CHECK_OK(bolmo_session_length(session, &length));
        check_others_work();
    }
    return 0;
}

static void callbacks_get_busy(void) {
    const uint32_t ids[] = {80, 81};
    bolmo_generate_options *options = greedy(8);
    CHECK_OK(bolmo_session_generate(session, options, piece, NULL, NULL));
    CHECK(received == 8 && calls >= 1);
    bolmo_generate_options_delete(options);
    calls = 0;
    CHECK_OK(bolmo_session_append(session, "some text", 9, progress, NULL));
    CHECK(calls >= 2);
    CHECK_OK(bolmo_session_append_ids(session, ids, 2, progress, NULL));

    /* Scoring and loading use no session, so their callbacks may use everything. */
    bolmo_score_options *scoring = NULL;
    bolmo_score *score = NULL;
    CHECK_OK(bolmo_score_options_create(&scoring));
    CHECK_OK(bolmo_score_options_set_progress(scoring, progress_of_another, NULL));
    calls = 0;
    CHECK_OK(bolmo_model_score(trained.model, "some text", 9, scoring, &score));
    CHECK(calls > 0);
    bolmo_score_delete(score);
    bolmo_score_options_delete(scoring);
    bolmo_load_options *loading = NULL;
    bolmo_model *model = NULL;
    CHECK_OK(bolmo_load_options_create(&loading));
    CHECK_OK(bolmo_load_options_set_progress(loading, progress_of_another, NULL));
    calls = 0;
    CHECK_OK(bolmo_model_load(trained.engine, trained.checkpoint, loading, &model));
    CHECK(calls > 0);
    bolmo_model_delete(model);
    bolmo_load_options_delete(loading);
}

static void *second_thread(void *unused) {
    (void)unused;
    check_all_busy();
    check_visible();
    return NULL;
}

static int32_t start_second_thread(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)size, (void)ids, (void)user_data;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}

static void another_thread_gets_busy(void) {
    bolmo_generate_options *options = greedy(3);
    CHECK_OK(bolmo_session_generate(session, options, start_second_thread, NULL, NULL));
    bolmo_generate_options_delete(options);
    size_t length;
    CHECK_OK(bolmo_session_length(session, &length));
}

static int lines;

static void call_in(int32_t level, const char *text, size_t size, void *user_data) {
    (void)level, (void)text, (void)size, (void)user_data;
    bolmo_utf8 *utf8 = NULL;
    size_t length = 5;
    lines++;
    CHECK_STATUS(BOLMO_BUSY, bolmo_utf8_create(&utf8));
    CHECK_SAYS("log callback");
    CHECK_STATUS(BOLMO_BUSY, bolmo_session_length(other, &length));
    CHECK_STATUS(BOLMO_BUSY, bolmo_session_cancel(other));
    CHECK_STATUS(BOLMO_BUSY, bolmo_set_log_callback(BOLMO_LOG_OFF, NULL, NULL));
    CHECK_STATUS(BOLMO_BUSY, bolmo_engine_destroy_device(trained.engine));
    CHECK(utf8 == NULL && length == 5);
    bolmo_utf8_delete(utf8);
    /* These two are allowed. */
    CHECK(strcmp(bolmo_status_name(BOLMO_BUSY), "busy") == 0);
}

static void log_callback_gets_busy(void) {
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_TRACE, call_in, NULL));
    list_adapters();
    bolmo_engine_delete(open_engine());
    CHECK(lines > 0);
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_OFF, call_in, NULL));
    lines = 0;
    list_adapters();
    bolmo_engine_delete(open_engine());
    CHECK(lines == 0);
    bolmo_utf8 *utf8 = NULL;
    CHECK_OK(bolmo_utf8_create(&utf8));
    bolmo_utf8_delete(utf8);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained = open_trained();
    session = session_with(trained.model, "ab");
    other = session_with(trained.model, "ab");
    CHECK_OK(bolmo_session_checkpoint_create(session, &state));
    CHECK_OK(bolmo_sampler_create(NULL, &sampler));
    bolmo_bytes *bytes = NULL;
    const uint8_t *data;
    CHECK_OK(bolmo_session_snapshot(session, &bytes));
    CHECK_OK(bolmo_bytes_get(bytes, &data, &snapshot_size));
    snapshot = malloc(snapshot_size);
    CHECK(snapshot != NULL);
    memcpy(snapshot, data, snapshot_size);
    bolmo_bytes_delete(bytes);
    callbacks_get_busy();
    another_thread_gets_busy();
    log_callback_gets_busy();
    free(snapshot);
    bolmo_sampler_delete(sampler);
    bolmo_session_checkpoint_delete(state);
    bolmo_session_delete(session);
    bolmo_session_delete(other);
    close_trained(trained);
    return end("busy");
}
