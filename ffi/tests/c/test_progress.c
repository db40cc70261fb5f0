/* How far a session is, seen from another thread while it works, and from its callbacks. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

static bolmo_session *session;
static atomic_bool watching, ended;
static atomic_uint seen_lengths;

/* Reads the counts of the session until the work has ended. */
static void *watch(void *unused) {
    (void)unused;
    size_t last_length = 0, last_patches = 0;
    uint64_t last_done = 0;
    while (!atomic_load(&ended)) {
        size_t length = 0, patches = 0;
        uint64_t done = 0, total = 0, bytes = 0;
        CHECK_OK(bolmo_session_progress(session, &done, &total));
        CHECK_OK(bolmo_session_length(session, &length));
        CHECK_OK(bolmo_session_patches(session, &patches));
        CHECK_OK(bolmo_session_device_bytes(session, &bytes));
        /* A new task begins at 0. */
        CHECK(done <= total && (done >= last_done || done == 0));
        CHECK(length >= last_length && patches >= last_patches && bytes > 0);
        if (length != last_length) atomic_fetch_add(&seen_lengths, 1);
        last_done = done, last_length = length, last_patches = patches;
        atomic_store(&watching, true);
    }
    return NULL;
}

static void check_progress(uint64_t done, uint64_t total) {
    uint64_t found_done = 77, found_total = 77;
    CHECK_OK(bolmo_session_progress(session, &found_done, &found_total));
    if (found_done != done || found_total != total) {
        fail(__FILE__, __LINE__, "expected %" PRIu64 " of %" PRIu64 ", found %" PRIu64 " of %" PRIu64, done, total,
             found_done, found_total);
    }
}

static size_t pieces, received;

static int32_t piece(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids, (void)user_data;
    uint64_t done = 0, total = 0;
    size_t length = 0;
    received += size;
    pieces++;
    CHECK_OK(bolmo_session_progress(session, &done, &total));
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK(total == 200 && done >= received && done <= length);
    return 0;
}

static size_t chunks;

static int32_t appended(uint64_t done, uint64_t total, void *user_data) {
    (void)user_data;
    uint64_t found_done = 0, found_total = 0;
    chunks++;
    CHECK_OK(bolmo_session_progress(session, &found_done, &found_total));
    CHECK(found_done == done && found_total == total);
    return 0;
}

static int32_t stop_at_once(uint64_t done, uint64_t total, void *user_data) {
    (void)done, (void)total, (void)user_data;
    return 1;
}

/* Clones, restored and rewound sessions show their own counts. */
static void copies(const bolmo_model *model) {
    bolmo_session *clone = NULL, *restored = NULL;
    bolmo_session_checkpoint *checkpoint = NULL;
    bolmo_bytes *snapshot = NULL;
    const uint8_t *data;
    size_t size, length = 0, patches = 0, found = 0;
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK_OK(bolmo_session_patches(session, &patches));
    CHECK_OK(bolmo_session_clone(session, &clone));
    CHECK_OK(bolmo_session_checkpoint_create(session, &checkpoint));
    CHECK_OK(bolmo_session_snapshot(session, &snapshot));
    CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
    CHECK_OK(bolmo_session_restore(model, data, size, &restored));
    CHECK_OK(bolmo_session_append(session, "more text", 9, NULL, NULL));
    bolmo_session *const all[] = {clone, restored};
    for (size_t i = 0; i < 2; i++) {
        uint64_t bytes = 0, done = 7, total = 7;
        CHECK_OK(bolmo_session_length(all[i], &found));
        CHECK(found == length);
        CHECK_OK(bolmo_session_patches(all[i], &found));
        CHECK(found == patches);
        CHECK_OK(bolmo_session_device_bytes(all[i], &bytes));
        CHECK(bytes > 0);
        CHECK_OK(bolmo_session_progress(all[i], &done, &total));
        CHECK(done == 0 && total == 0);
    }
    CHECK_OK(bolmo_session_length(session, &found));
    CHECK(found == length + 9);
    CHECK_OK(bolmo_session_rewind(session, checkpoint));
    CHECK_OK(bolmo_session_length(session, &found));
    CHECK(found == length);
    CHECK_OK(bolmo_session_patches(session, &found));
    CHECK(found == patches);
    bolmo_bytes_delete(snapshot);
    bolmo_session_checkpoint_delete(checkpoint);
    bolmo_session_delete(clone);
    bolmo_session_delete(restored);
}

int main(int argc, char **argv) {
    static char text[6000];
    begin(argc, argv);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "def main(x): return x\n"[i % 22];
    trained_model trained = open_trained();
    CHECK_OK(bolmo_session_create(trained.model, &session));
    check_progress(0, 0);
    CHECK_OK(bolmo_session_append_bos(session));
    check_progress(1, 1);

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, watch, NULL) == 0);
    while (!atomic_load(&watching)) continue;
    size_t size = (size_t)repetitions(sizeof text);
    CHECK_OK(bolmo_session_append(session, text, size, appended, NULL));
    atomic_store(&ended, true);
    CHECK(pthread_join(thread, NULL) == 0);
    check_progress(size, size);
    CHECK(chunks >= 2);
    /* At least the last one; several, unless the other thread had no turn. */
    printf("%zu chunks, %u lengths seen\n", chunks, atomic_load(&seen_lengths));

    bolmo_generate_options *options = greedy(200);
    CHECK_OK(bolmo_generate_options_set_end_bias(options, -1000.0f));
    atomic_store(&ended, false);
    atomic_store(&watching, false);
    atomic_store(&seen_lengths, 0);
    check_progress(size, size);
    CHECK_OK(bolmo_session_generate(session, options, piece, NULL, NULL));
    check_progress(200, 200);
    CHECK(received == 200 && pieces > 1);

    /* A call that was cancelled keeps its counts. */
    CHECK_STATUS(BOLMO_CANCELLED, bolmo_session_append(session, text, 100, stop_at_once, NULL));
    check_progress(0, 100);
    CHECK_OK(bolmo_session_progress(session, NULL, NULL));

    copies(trained.model);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
    close_trained(trained);
    return end("progress");
}
