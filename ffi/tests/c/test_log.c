/* What is logged at each level: a handful of lines about the work at INFO, more at DEBUG, and never the model's text. */
#include "check.h"
#include <pthread.h>

typedef struct {
    int lines, of_level[6];
    char text[1 << 20];
    size_t size;
} recording;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void record(int32_t level, const char *text, size_t size, void *user_data) {
    recording *log = user_data;
    CHECK(level >= BOLMO_LOG_ERROR && level <= BOLMO_LOG_TRACE && memchr(text, '\0', size) == NULL);
    pthread_mutex_lock(&mutex);
    log->lines++;
    log->of_level[level]++;
    if (log->size + size + 2 < sizeof log->text) {
        memcpy(log->text + log->size, text, size);
        log->size += size;
        log->text[log->size++] = '\n';
        log->text[log->size] = '\0';
    }
    pthread_mutex_unlock(&mutex);
}

static int count(const recording *log, const char *part) {
    int found = 0;
    for (const char *at = log->text; (at = strstr(at, part)) != NULL; at++) found++;
    return found;
}

#define SECRET "zxqv"

/* Everything from an engine to a restored session. */
static void work(recording *log, int32_t level) {
    memset(log, 0, sizeof *log);
    CHECK_OK(bolmo_set_log_callback(level, record, log));
    trained_model trained = open_trained();
    bolmo_session *session = session_with(trained.model, SECRET " def "), *restored = NULL;
    bolmo_session_checkpoint *checkpoint = NULL;
    bolmo_generate_options *options = greedy(24);
    bolmo_bytes *snapshot = NULL;
    bolmo_score *score = NULL;
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_session_checkpoint_create(session, &checkpoint));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
    CHECK_OK(bolmo_session_rewind(session, checkpoint));
    CHECK_OK(bolmo_session_snapshot(session, &snapshot));
    CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
    CHECK_OK(bolmo_session_restore(trained.model, data, size, &restored));
    CHECK_OK(bolmo_model_score(trained.model, SECRET, strlen(SECRET), NULL, &score));
    CHECK_OK(bolmo_engine_destroy_device(trained.engine));
    bolmo_score_delete(score);
    bolmo_bytes_delete(snapshot);
    bolmo_generate_options_delete(options);
    bolmo_session_checkpoint_delete(checkpoint);
    bolmo_session_delete(restored);
    bolmo_session_delete(session);
    close_trained(trained);
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_OFF, NULL, NULL));
    if (count(log, SECRET) != 0) fail(__FILE__, __LINE__, "the log has a text of the model: %s", log->text);
    for (int32_t above = level + 1; above <= BOLMO_LOG_TRACE; above++) CHECK(log->of_level[above] == 0);
    printf("level %d: %d lines\n", (int)level, log->lines);
}

/* These lines occur this often, and the log is otherwise short. */
static void expect(const recording *log, const char *part, int times) {
    int found = count(log, part);
    if (found != times) fail(__FILE__, __LINE__, "\"%s\": expected %d, found %d in\n%s", part, times, found, log->text);
}

static void expect_work(const recording *log) {
    expect(log, "engine opened: ", 1);
    expect(log, "checkpoint opened: ", 1);
    expect(log, "model loaded: ", 1);
    expect(log, "generated 24 bytes, ", 1);
    expect(log, "stop: Budget", 1);
    expect(log, "scored 4 bytes, ", 1);
    expect(log, "destroyed by the program", 1);
}

int main(int argc, char **argv) {
    static recording log;
    begin(argc, argv);
    work(&log, BOLMO_LOG_WARN);
    expect(&log, "engine", 0);
    int before = log.lines;

    work(&log, BOLMO_LOG_INFO);
    expect_work(&log);
    CHECK(log.of_level[BOLMO_LOG_INFO] == 6 && log.lines <= 6 + before);

    work(&log, BOLMO_LOG_DEBUG);
    expect_work(&log);
    const char *adapter = getenv("BOLMO_ADAPTER");
    CHECK(count(&log, "adapter 0: ") >= 1 && count(&log, "used: ") >= 1);
    /* Two appends; scoring makes a session as well. */
    expect(&log, "appended ", 2);
    expect(&log, "session created: ", 3);
    expect(&log, "session rewound to 10 ids", 1);
    expect(&log, "snapshot of 10 ids: ", 1);
    expect(&log, "session restored from ", 1);
    /* Nothing for each byte or each submission. */
    CHECK(log.of_level[BOLMO_LOG_DEBUG] > 8 && log.lines < 60);
    if (adapter != NULL && strcmp(adapter, "cpu") != 0) CHECK(count(&log, "kernels compiled") == 1);

    work(&log, BOLMO_LOG_TRACE);
    expect_work(&log);
    CHECK(count(&log, "submitted ") > 10);
    CHECK(log.of_level[BOLMO_LOG_TRACE] == count(&log, "submitted "));
    CHECK(log.lines < 1000);
    return end("log");
}
