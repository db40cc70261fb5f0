/* Many threads on one model: the same bytes as alone, separate messages, and sessions that are deleted while they work.
 */
#include "check.h"
#include <pthread.h>

enum { THREADS = 8, BYTES = 32 };

static trained_model trained;
static const char *const prompts[THREADS] = {
    "def ", "class Reader:", "import ", "    return ", "\"\"\"", "x = [", "# ", "\xe4\xbd\xa0"};

typedef struct {
    const char *prompt;
    uint8_t text[4096];
    size_t size;
} writer;

static void *write_text(void *user_data) {
    writer *this = user_data;
    bolmo_session *session = session_with(trained.model, this->prompt);
    bolmo_generate_options *options = greedy(BYTES);
    this->size = generate(session, options, this->text);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
    return NULL;
}

static void threads_generate_the_same_as_alone(void) {
    static writer alone[THREADS], together[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        alone[i].prompt = together[i].prompt = prompts[i];
        write_text(&alone[i]);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, write_text, &together[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_BYTES(together[i].text, together[i].size, alone[i].text, alone[i].size);
    }
}

/* All threads create, clone, snapshot and delete sessions at once, on one model. */
static void *make_and_delete(void *user_data) {
    bolmo_session_checkpoint *shared = user_data;
    for (int i = 0; i < repetitions(10); i++) {
        bolmo_session *session = NULL, *clone = NULL, *restored = NULL;
        bolmo_bytes *snapshot = NULL;
        const uint8_t *data;
        size_t size;
        CHECK_OK(bolmo_session_create(trained.model, &session));
        CHECK_OK(bolmo_session_rewind(session, shared));
        CHECK_OK(bolmo_session_append(session, "ab", 2, NULL, NULL));
        CHECK_OK(bolmo_session_clone(session, &clone));
        CHECK_OK(bolmo_session_snapshot(clone, &snapshot));
        CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
        CHECK_OK(bolmo_session_restore(trained.model, data, size, &restored));
        CHECK_OK(bolmo_session_length(restored, &size));
        CHECK(size == 5);
        bolmo_session_delete(session);
        bolmo_session_delete(clone);
        bolmo_session_delete(restored);
        bolmo_bytes_delete(snapshot);
    }
    return NULL;
}

static void threads_create_and_delete_sessions(void) {
    pthread_t threads[THREADS];
    bolmo_session *session = session_with(trained.model, "ab");
    bolmo_session_checkpoint *shared = NULL;
    CHECK_OK(bolmo_session_checkpoint_create(session, &shared));
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, make_and_delete, shared) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    bolmo_session_delete(session);
    bolmo_session_checkpoint_delete(shared);
}

static pthread_barrier_t barrier;

static void *fail_in_its_own_way(void *user_data) {
    long number = (long)(intptr_t)user_data;
    char path[64];
    CHECK(strcmp(bolmo_last_error_message(), "") == 0);
    for (int i = 0; i < 200; i++) {
        bolmo_checkpoint *checkpoint = NULL;
        snprintf(path, sizeof path, "/no/such/folder/%ld.%d", number, i);
        CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open(path, strlen(path), &checkpoint));
        const char *message = bolmo_last_error_message();
        if (i % 50 == 0) pthread_barrier_wait(&barrier);
        /* Still this thread's own message, at the same address until its next failure; successes don't change it. */
        CHECK(bolmo_handle_count() == 3);
        CHECK(message == bolmo_last_error_message());
        CHECK_SAYS(path);
    }
    return NULL;
}

static void threads_have_their_own_messages(void) {
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, fail_in_its_own_way, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&barrier);
}

static void *delete_session(void *session) {
    pthread_barrier_wait(&barrier);
    bolmo_session_delete(session);
    return NULL;
}

static int32_t wait_at_first(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids;
    size_t *seen = user_data;
    if (*seen == 0) pthread_barrier_wait(&barrier);
    *seen += size;
    return 0;
}

/* A session whose handle is deleted by another thread finishes its call. */
static void a_deleted_session_finishes_its_call(void) {
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    bolmo_generate_options *options = greedy(BYTES);
    for (int i = 0; i < repetitions(10); i++) {
        bolmo_session *session = session_with(trained.model, "def ");
        bolmo_generation *generation = NULL;
        pthread_t thread;
        size_t patches = 0, seen = 0;
        int32_t stop = -1;
        CHECK(pthread_create(&thread, NULL, delete_session, session) == 0);
        CHECK_OK(bolmo_session_generate(session, options, wait_at_first, &seen, &generation));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        CHECK_OK(bolmo_generation_patches(generation, &patches));
        CHECK(stop == BOLMO_STOP_BUDGET && seen == BYTES);
        CHECK_INVALID(bolmo_session_length(session, &patches));
        bolmo_generation_delete(generation);
    }
    bolmo_generate_options_delete(options);
    pthread_barrier_destroy(&barrier);
}

static void count_lines(int32_t level, const char *text, size_t size, void *user_data) {
    (void)level, (void)text, (void)size;
    CHECK(*(volatile int *)user_data == 1);
}

static void *make_engines(void *unused) {
    (void)unused;
    for (int i = 0; i < repetitions(5); i++) {
        list_adapters();
        bolmo_engine_delete(open_engine());
    }
    return NULL;
}

/* Log callbacks are set and removed while other threads log: after the call the previous one no longer runs. */
static void removed_log_callbacks_no_longer_run(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, make_engines, NULL) == 0);
    for (int i = 0; i < 2000; i++) {
        int alive = 1;
        CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_TRACE, count_lines, &alive));
        CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_OFF, NULL, NULL));
        *(volatile int *)&alive = 0;
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained = open_trained();
    threads_have_their_own_messages();
    threads_generate_the_same_as_alone();
    threads_create_and_delete_sessions();
    a_deleted_session_finishes_its_call();
    removed_log_callbacks_no_longer_run();
    close_trained(trained);
    return end("threads");
}
