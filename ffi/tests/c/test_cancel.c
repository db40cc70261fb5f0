/* bolmo_session_cancel from another thread: how fast it stops a running call, and that it may come at any time. */
#include "check.h"
#include <pthread.h>
#include <time.h>

static trained_model trained;
static bolmo_session *session;
static double asked;

static double milliseconds(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void pause_for(long microseconds) {
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static void *cancel_after(void *user_data) {
    pause_for(*(long *)user_data);
    asked = milliseconds();
    CHECK_OK(bolmo_session_cancel(session));
    return NULL;
}

enum { TRIES = 10, TEXT = 200000, MEASURED = 10000 };

typedef struct { double last, longest; } chunk_times;

static int32_t measure(uint64_t done, uint64_t total, void *user_data) {
    chunk_times *these = user_data;
    double now = milliseconds();
    (void)done;
    (void)total;
    if (now - these->last > these->longest) these->longest = now - these->last;
    these->last = now;
    return 0;
}

/* Cancels a long text at various moments. Returns whether all cancels were in time: within 100 ms, or, where prefill
   chunks take long, as on a busy machine, within two of them. The whole text takes hundreds of chunks. */
static int cancel_stops_a_prefill_in_time(void) {
    static char text[TEXT];
    const char *line = "    for line in self.lines: yield line.rstrip()\n";
    double worst = 0, bound = 100 * slow_factor();
    int parts = 0;
    for (size_t i = 0; i < TEXT; i++) text[i] = line[i % strlen(line)];
    session = session_with(trained.model, "");
    chunk_times undisturbed = {milliseconds(), 0};
    CHECK_OK(bolmo_session_append(session, text, MEASURED, measure, &undisturbed));
    bolmo_session_delete(session);
    if (2 * undisturbed.longest > bound) bound = 2 * undisturbed.longest;
    printf("prefill chunks take up to %.1f ms\n", undisturbed.longest);
    printf("append returned after bolmo_session_cancel in ms:");
    for (int i = 0; i < repetitions(TRIES); i++) {
        session = session_with(trained.model, "");
        long delay = (long)((100000 + 23000 * i) * slow_factor());
        size_t length = 0;
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_after, &delay) == 0);
        CHECK_STATUS(BOLMO_CANCELLED, bolmo_session_append(session, text, TEXT, NULL, NULL));
        double took = milliseconds() - asked;
        CHECK(pthread_join(thread, NULL) == 0);
        printf(" %.1f", took);
        if (took > worst) worst = took;
        CHECK_OK(bolmo_session_length(session, &length));
        CHECK(length >= 1 && length < TEXT);
        if (length > 1) parts++;
        /* The session continues from there, also if no chunk was complete. */
        CHECK_OK(bolmo_session_append(session, text + length - 1, 10, NULL, NULL));
        bolmo_session_delete(session);
    }
    printf(" (at most %.0f)\n", bound);
    fflush(stdout);
    /* Sanitizers may make a chunk take longer than all delays. */
    CHECK(parts > 0 || slow_factor() > 1);
    return worst <= bound;
}

static void cancel_stops_a_generation_in_time(void) {
    double worst = 0, bound = 100 * slow_factor();
    bolmo_generate_options *options = greedy(100000);
    CHECK_OK(bolmo_generate_options_set_end_bias(options, -1e6f));
    session = session_with(trained.model, "def ");
    for (int i = 0; i < repetitions(TRIES); i++) {
        long delay = (long)((20000 + 5000 * i) * slow_factor());
        bolmo_generation *generation = NULL;
        int32_t stop = -1;
        const uint8_t *data;
        size_t size = 0;
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_after, &delay) == 0);
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
        double took = milliseconds() - asked;
        if (took > worst) worst = took;
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
        CHECK(stop == BOLMO_STOP_CANCELLED && size < 100000);
        bolmo_generation_delete(generation);
    }
    printf("generate returned after at most %.1f ms\n", worst);
    fflush(stdout);
    CHECK(worst <= bound);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
}

static volatile int racing;

static void *cancel_all_the_time(void *unused) {
    (void)unused;
    while (__atomic_load_n(&racing, __ATOMIC_RELAXED)) {
        CHECK_OK(bolmo_session_cancel(session));
        pause_for(50);
    }
    return NULL;
}

/* Requests that come before, during and after short calls: each call succeeds or is cancelled, and the session stays
   intact. */
static void cancel_at_any_time_leaves_the_session_intact(void) {
    int cancelled = 0, tries = repetitions(1000);
    pthread_t thread;
    bolmo_session_checkpoint *start = NULL;
    bolmo_generate_options *options = greedy(2);
    session = session_with(trained.model, "ab");
    CHECK_OK(bolmo_session_checkpoint_create(session, &start));
    __atomic_store_n(&racing, 1, __ATOMIC_RELAXED);
    CHECK(pthread_create(&thread, NULL, cancel_all_the_time, NULL) == 0);
    for (int i = 0; i < tries; i++) {
        size_t length = 0;
        CHECK_OK(bolmo_session_rewind(session, start));
        bolmo_status status = bolmo_session_append(session, "c", 1, NULL, NULL);
        CHECK(status == BOLMO_OK || status == BOLMO_CANCELLED);
        CHECK_OK(bolmo_session_length(session, &length));
        CHECK(length == (status == BOLMO_OK ? 4u : 3u));
        cancelled += status == BOLMO_CANCELLED;
        if (i % 10 == 0) CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
        if (i % 3 == 0) CHECK_OK(bolmo_session_reset_cancel(session));
    }
    __atomic_store_n(&racing, 0, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_OK(bolmo_session_reset_cancel(session));
    CHECK_OK(bolmo_session_rewind(session, start));
    uint8_t text[4096], expected[4096];
    bolmo_session *fresh = session_with(trained.model, "ab");
    size_t size = generate(session, options, text);
    CHECK_BYTES(expected, generate(fresh, options, expected), text, size);
    printf("%d of %d short calls were cancelled\n", cancelled, tries);
    bolmo_session_delete(fresh);
    bolmo_session_checkpoint_delete(start);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained = open_trained();
    cancel_stops_a_generation_in_time();
    cancel_at_any_time_leaves_the_session_intact();
    /* Other programs on the machine may take its processors for a while: one quiet round is enough. */
    int in_time = 0;
    for (int round = 0; round < 3 && !in_time; round++) in_time = cancel_stops_a_prefill_in_time();
    CHECK(in_time);
    close_trained(trained);
    return end("cancel");
}
