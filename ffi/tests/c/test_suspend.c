/* Suspending an engine: nothing of its calls goes on until it is resumed, then all do, with the same results. New calls
   are refused meanwhile and can be repeated. */
#include "check.h"
#include <pthread.h>
#include <time.h>

#define SUSPENDED(call)                                                                                                \
    do {                                                                                                               \
        CHECK_STATUS(BOLMO_SUSPENDED, call);                                                                           \
        CHECK_SAYS("resume");                                                                                          \
    } while (0)

static trained_model trained;

static void pause_for(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* A call on another thread: what it does, how far it is and what became of it. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint64_t told;
    bool ended;
    int what;
    bolmo_session *session;
    bolmo_status status;
    bolmo_generation *generation;
    bolmo_score *score;
    bolmo_model *model;
} work;

enum { GENERATE, APPEND, SCORE, LOAD, CALLS };
enum { TEXT = 20000, BYTES = 400 };

static char text[TEXT];

static void tell(work *this, uint64_t told, bool ended) {
    CHECK(pthread_mutex_lock(&this->lock) == 0);
    this->told = told;
    this->ended = ended;
    CHECK(pthread_cond_signal(&this->more) == 0 && pthread_mutex_unlock(&this->lock) == 0);
}

static int32_t on_piece(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    work *this = user_data;
    (void)data, (void)ids;
    tell(this, this->told + size, false);
    return 0;
}

static int32_t on_progress(uint64_t done, uint64_t total, void *user_data) {
    (void)total;
    tell(user_data, done, false);
    return 0;
}

static void run(work *this) {
    switch (this->what) {
    case GENERATE: {
        bolmo_generate_options *options = greedy(BYTES);
        this->status = bolmo_session_generate(this->session, options, on_piece, this, &this->generation);
        bolmo_generate_options_delete(options);
        break;
    }
    case APPEND: this->status = bolmo_session_append(this->session, text, TEXT, on_progress, this); break;
    case SCORE: {
        bolmo_score_options *options = NULL;
        CHECK_OK(bolmo_score_options_create(&options));
        CHECK_OK(bolmo_score_options_set_progress(options, on_progress, this));
        this->status = bolmo_model_score(trained.model, text, TEXT, options, &this->score);
        bolmo_score_options_delete(options);
        break;
    }
    default: {
        bolmo_load_options *options = NULL;
        CHECK_OK(bolmo_load_options_create(&options));
        CHECK_OK(bolmo_load_options_set_progress(options, on_progress, this));
        this->status = bolmo_model_load(trained.engine, trained.checkpoint, options, &this->model);
        bolmo_load_options_delete(options);
    }
    }
}

static void *run_on_thread(void *user_data) {
    work *this = user_data;
    run(this);
    tell(this, this->told, true);
    return NULL;
}

static work new_work(int what) {
    work this = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .what = what};
    if (what == GENERATE || what == APPEND) this.session = session_with(trained.model, what == APPEND ? "" : "class ");
    return this;
}

static void delete_work(work *this) {
    bolmo_session_delete(this->session);
    bolmo_generation_delete(this->generation);
    bolmo_score_delete(this->score);
    bolmo_model_delete(this->model);
    CHECK(pthread_mutex_destroy(&this->lock) == 0 && pthread_cond_destroy(&this->more) == 0);
}

/* Waits until the call has told of `told`. Returns false if it has ended before. */
static bool wait_for(work *this, uint64_t told) {
    CHECK(pthread_mutex_lock(&this->lock) == 0);
    while (this->told < told && !this->ended) CHECK(pthread_cond_wait(&this->more, &this->lock) == 0);
    bool runs = !this->ended;
    CHECK(pthread_mutex_unlock(&this->lock) == 0);
    return runs;
}

/* The call tells nothing and does not end. What it had done before, it may still tell. */
static void check_paused(work *this) {
    uint64_t before, told = UINT64_MAX;
    int attempts = 0;
    do {
        CHECK(attempts++ < 20);
        before = told;
        pause_for(100);
        CHECK(pthread_mutex_lock(&this->lock) == 0);
        told = this->told;
        CHECK(!this->ended && pthread_mutex_unlock(&this->lock) == 0);
    } while (told != before);
}

static void check_same(bolmo_session *one, bolmo_session *other) {
    static uint8_t out[2][4096];
    bolmo_generate_options *options = greedy(40);
    size_t size = generate(one, options, out[0]), other_size = generate(other, options, out[1]);
    CHECK_BYTES(out[0], size, out[1], other_size);
    bolmo_generate_options_delete(options);
}

static void check_equal(const work *this, const work *wanted) {
    CHECK_OK(this->status);
    switch (this->what) {
    case GENERATE: {
        const uint8_t *data, *wanted_data;
        size_t size, wanted_size;
        CHECK_OK(bolmo_generation_bytes(this->generation, &data, &size));
        CHECK_OK(bolmo_generation_bytes(wanted->generation, &wanted_data, &wanted_size));
        CHECK_BYTES(data, size, wanted_data, wanted_size);
        break;
    }
    case APPEND: check_same(this->session, wanted->session); break;
    case SCORE: {
        double bits, wanted_bits;
        CHECK_OK(bolmo_score_number(this->score, BOLMO_SCORE_BITS_PER_BYTE_JOINT, &bits));
        CHECK_OK(bolmo_score_number(wanted->score, BOLMO_SCORE_BITS_PER_BYTE_JOINT, &wanted_bits));
        CHECK(bits == wanted_bits);
        break;
    }
    default: {
        bolmo_session *one = session_with(this->model, "def "), *other = session_with(trained.model, "def ");
        check_same(one, other);
        bolmo_session_delete(one);
        bolmo_session_delete(other);
    }
    }
}

/* Everything that needs the device is refused, and the session stays as it is. */
static void check_refused(bolmo_session *session, bolmo_session_checkpoint *state, const void *data, size_t size) {
    bolmo_session *new_one = NULL;
    bolmo_session_checkpoint *new_state = NULL;
    bolmo_model *model = NULL;
    bolmo_score *score = NULL;
    bolmo_bytes *bytes = NULL;
    size_t before, after;
    uint64_t released = 1;
    CHECK_OK(bolmo_session_length(session, &before));
    SUSPENDED(bolmo_model_load(trained.engine, trained.checkpoint, NULL, &model));
    SUSPENDED(bolmo_session_create(trained.model, &new_one));
    SUSPENDED(bolmo_session_restore(trained.model, data, size, &new_one));
    SUSPENDED(bolmo_session_clone(session, &new_one));
    SUSPENDED(bolmo_model_score(trained.model, "text", 4, NULL, &score));
    SUSPENDED(bolmo_session_append(session, "text", 4, NULL, NULL));
    SUSPENDED(bolmo_session_generate(session, NULL, NULL, NULL, NULL));
    SUSPENDED(bolmo_session_snapshot(session, &bytes));
    SUSPENDED(bolmo_session_checkpoint_create(session, &new_state));
    SUSPENDED(bolmo_session_rewind(session, state));
    CHECK_OK(bolmo_engine_suspend(trained.engine));
    CHECK_OK(bolmo_engine_trim(trained.engine, NULL));
    CHECK_OK(bolmo_engine_trim(trained.engine, &released));
    CHECK(released == 0);
    CHECK_OK(bolmo_session_length(session, &after));
    CHECK(before == after);
}

static void a_call_pauses_and_goes_on(int what) {
    static const uint64_t points[CALLS] = {30, 3000, 3000, 20000};
    pthread_t thread;
    work wanted = new_work(what), this = new_work(what);
    bolmo_session *other = session_with(trained.model, "import "), *same = session_with(trained.model, "import ");
    bolmo_session_checkpoint *state = NULL;
    bolmo_bytes *snapshot = NULL;
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_session_checkpoint_create(other, &state));
    CHECK_OK(bolmo_session_snapshot(other, &snapshot));
    CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
    run(&wanted);
    CHECK_OK(wanted.status);
    CHECK(pthread_create(&thread, NULL, run_on_thread, &this) == 0);
    CHECK(wait_for(&this, points[what]));
    CHECK_OK(bolmo_engine_suspend(trained.engine));
    check_paused(&this);
    check_refused(other, state, data, size);
    CHECK_OK(bolmo_engine_resume(trained.engine));
    CHECK_OK(bolmo_engine_resume(trained.engine));
    CHECK(pthread_join(thread, NULL) == 0);
    check_equal(&this, &wanted);
    check_same(other, same);
    delete_work(&this);
    delete_work(&wanted);
    bolmo_session_delete(other);
    bolmo_session_delete(same);
    bolmo_session_checkpoint_delete(state);
    bolmo_bytes_delete(snapshot);
}

static void a_paused_call_is_cancelled(int what) {
    pthread_t thread;
    work this = new_work(what);
    size_t held;
    CHECK(pthread_create(&thread, NULL, run_on_thread, &this) == 0);
    CHECK(wait_for(&this, 100));
    CHECK_OK(bolmo_engine_suspend(trained.engine));
    check_paused(&this);
    CHECK_OK(bolmo_session_cancel(this.session));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_OK(bolmo_session_length(this.session, &held));
    if (what == GENERATE) {
        int32_t stop;
        CHECK_OK(this.status);
        CHECK_OK(bolmo_generation_stop(this.generation, &stop));
        CHECK(stop == BOLMO_STOP_CANCELLED);
    } else {
        CHECK(this.status == BOLMO_CANCELLED && held > 100 && held < TEXT);
    }
    SUSPENDED(bolmo_session_append(this.session, "more", 4, NULL, NULL));
    CHECK_OK(bolmo_engine_resume(trained.engine));
    if (what == APPEND) {
        bolmo_session *whole = session_with(trained.model, "");
        CHECK_OK(bolmo_session_append(whole, text, TEXT, NULL, NULL));
        CHECK_OK(bolmo_session_append(this.session, text + held - 1, TEXT - held + 1, NULL, NULL));
        check_same(this.session, whole);
        bolmo_session_delete(whole);
    }
    delete_work(&this);
}

static void a_paused_call_ends_with_the_device(int what) {
    pthread_t thread;
    trained_model kept = trained;
    trained = open_trained();
    work this = new_work(what);
    CHECK(pthread_create(&thread, NULL, run_on_thread, &this) == 0);
    CHECK(wait_for(&this, 50));
    CHECK_OK(bolmo_engine_suspend(trained.engine));
    check_paused(&this);
    CHECK_OK(bolmo_engine_destroy_device(trained.engine));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(this.status == BOLMO_DEVICE_LOST);
    CHECK_STATUS(BOLMO_DEVICE_LOST, bolmo_engine_suspend(trained.engine));
    CHECK_STATUS(BOLMO_DEVICE_LOST, bolmo_engine_resume(trained.engine));
    delete_work(&this);
    close_trained(trained);
    trained = kept;
}

static pthread_t resumer;

static void *resume_later(void *user_data) {
    (void)user_data;
    pause_for(50);
    CHECK_OK(bolmo_engine_resume(trained.engine));
    return NULL;
}

/* Suspends in the callback at 60 bytes. Later callbacks come after the resume. */
static int32_t suspend_in_piece(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    size_t *seen = user_data, before = *seen;
    (void)data, (void)ids;
    *seen += size;
    if (before < 60 && *seen >= 60) {
        bolmo_session *session = NULL;
        CHECK_OK(bolmo_engine_suspend(trained.engine));
        SUSPENDED(bolmo_session_create(trained.model, &session));
        CHECK(pthread_create(&resumer, NULL, resume_later, NULL) == 0);
    }
    return 0;
}

static void a_callback_suspends_its_own_engine(void) {
    work wanted = new_work(GENERATE), this = new_work(GENERATE);
    bolmo_generate_options *options = greedy(BYTES);
    size_t seen = 0;
    run(&wanted);
    this.status = bolmo_session_generate(this.session, options, suspend_in_piece, &seen, &this.generation);
    CHECK(seen > 60 && pthread_join(resumer, NULL) == 0);
    check_equal(&this, &wanted);
    bolmo_generate_options_delete(options);
    delete_work(&this);
    delete_work(&wanted);
}

static void *suspend_and_resume(void *user_data) {
    (void)user_data;
    for (int i = 0; i < repetitions(40); i++) {
        CHECK_OK(bolmo_engine_suspend(trained.engine));
        CHECK_OK(bolmo_engine_trim(trained.engine, NULL));
        CHECK_OK(bolmo_engine_resume(trained.engine));
        pause_for(1);
    }
    return NULL;
}

static void threads_suspend_at_the_same_time(void) {
    pthread_t thread, others[2];
    work wanted = new_work(GENERATE), this = new_work(GENERATE);
    run(&wanted);
    CHECK(pthread_create(&thread, NULL, run_on_thread, &this) == 0);
    CHECK(wait_for(&this, 10));
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&others[i], NULL, suspend_and_resume, NULL) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(others[i], NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    check_equal(&this, &wanted);
    delete_work(&this);
    delete_work(&wanted);
}

enum { MEMBERS = 3 };

/* A batch that another thread runs: how many bytes each session has told of, and which have ended. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    size_t told[MEMBERS];
    bool ended[MEMBERS];
    bolmo_batch *batch;
} batch_work;

static int32_t on_batch(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    batch_work *this = user_data;
    (void)ids;
    CHECK(pthread_mutex_lock(&this->lock) == 0);
    this->told[index] += size;
    if (!data) this->ended[index] = true;
    CHECK(pthread_cond_signal(&this->more) == 0 && pthread_mutex_unlock(&this->lock) == 0);
    return 0;
}

static void *run_batch(void *user_data) {
    batch_work *this = user_data;
    CHECK_OK(bolmo_batch_run(this->batch, on_batch, this));
    return NULL;
}

/* Of a batch that is paused, the session that is cancelled ends at once, and the others go on with the same text. The
   second session takes turns with the others, because its logits go to the host. */
static void a_paused_batch_ends_what_is_cancelled(size_t cancelled) {
    work wanted = new_work(GENERATE);
    run(&wanted);
    batch_work this = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};
    bolmo_session *sessions[MEMBERS];
    CHECK_OK(bolmo_batch_create(&this.batch));
    for (size_t i = 0; i < MEMBERS; i++) {
        bolmo_generate_options *options = greedy(BYTES);
        CHECK_OK(bolmo_generate_options_set_logprobs(options, i == 1));
        sessions[i] = session_with(trained.model, "class ");
        size_t index = MEMBERS;
        CHECK_OK(bolmo_batch_add(this.batch, sessions[i], options, &index));
        CHECK(index == i);
        bolmo_generate_options_delete(options);
    }
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_batch, &this) == 0);
    CHECK(pthread_mutex_lock(&this.lock) == 0);
    for (size_t i = 0; i < MEMBERS; i++) {
        while (this.told[i] < 10) CHECK(pthread_cond_wait(&this.more, &this.lock) == 0);
    }
    CHECK(pthread_mutex_unlock(&this.lock) == 0);
    CHECK_OK(bolmo_engine_suspend(trained.engine));
    CHECK_OK(bolmo_session_cancel(sessions[cancelled]));
    struct timespec limit;
    CHECK(clock_gettime(CLOCK_REALTIME, &limit) == 0);
    limit.tv_sec += 60;
    CHECK(pthread_mutex_lock(&this.lock) == 0);
    while (!this.ended[cancelled]) CHECK(pthread_cond_timedwait(&this.more, &this.lock, &limit) == 0);
    for (size_t i = 0; i < MEMBERS; i++) CHECK(this.ended[i] == (i == cancelled));
    CHECK(pthread_mutex_unlock(&this.lock) == 0);
    CHECK_OK(bolmo_engine_resume(trained.engine));
    CHECK(pthread_join(thread, NULL) == 0);
    const uint8_t *bytes, *expected;
    size_t size, expected_size;
    CHECK_OK(bolmo_generation_bytes(wanted.generation, &expected, &expected_size));
    for (size_t i = 0; i < MEMBERS; i++) {
        bolmo_generation *generation = NULL;
        int32_t stop = -1;
        const uint16_t *ids;
        const float *logprobs;
        size_t id_count = 0, count = 0;
        CHECK_OK(bolmo_batch_generation(this.batch, i, &generation));
        CHECK_OK(bolmo_generation_bytes(generation, &bytes, &size));
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        CHECK((stop == BOLMO_STOP_CANCELLED) == (i == cancelled));
        CHECK(size == this.told[i] && size <= expected_size && memcmp(bytes, expected, size) == 0);
        CHECK(i == cancelled || size == expected_size);
        CHECK_OK(bolmo_generation_ids(generation, &ids, &id_count));
        if (i == 1) {
            CHECK_OK(bolmo_generation_logprobs(generation, BOLMO_LOGPROB_JOINT, &logprobs, &count));
            CHECK(count == id_count);
        }
        bolmo_generation_delete(generation);
        bolmo_session_delete(sessions[i]);
    }
    bolmo_batch_delete(this.batch);
    CHECK(pthread_mutex_destroy(&this.lock) == 0 && pthread_cond_destroy(&this.more) == 0);
    delete_work(&wanted);
}

static void trimmed_memory_comes_back(void) {
    bolmo_session *one = session_with(trained.model, "class "), *other = session_with(trained.model, "class ");
    uint64_t released = 0;
    CHECK_OK(bolmo_engine_trim(trained.engine, &released));
    CHECK(released > 100000);
    check_same(one, other);
    bolmo_session_delete(one);
    bolmo_session_delete(other);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    const char *line = "    for line in self.lines: yield line.rstrip()\n";
    for (size_t i = 0; i < TEXT; i++) text[i] = line[i % strlen(line)];
    CHECK(strcmp(bolmo_status_name(BOLMO_SUSPENDED), "suspended") == 0);
    trained = open_trained();
    CHECK_OK(bolmo_engine_resume(trained.engine));
    for (int what = 0; what < CALLS; what++) a_call_pauses_and_goes_on(what);
    a_paused_call_is_cancelled(GENERATE);
    a_paused_call_is_cancelled(APPEND);
    for (int what = 0; what < SCORE; what++) a_paused_call_ends_with_the_device(what);
    a_callback_suspends_its_own_engine();
    threads_suspend_at_the_same_time();
    for (size_t i = 0; i < MEMBERS; i++) a_paused_batch_ends_what_is_cancelled(i);
    trimmed_memory_comes_back();
    close_trained(trained);
    return end("suspend");
}
