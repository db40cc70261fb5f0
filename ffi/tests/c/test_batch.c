/* Generating on several sessions together: the same texts as alone, whoever joins, leaves or fails. */
#include "refuse.h"
#include <pthread.h>
#include <time.h>

enum { MANY = 9, MOST = 4096 };

static trained_model trained;
static const char *const prompts[MANY] = {
    "def ", "class Reader:", "import ", "    return ", "\"\"\"", "x = [", "# ", "\xe4\xbd\xa0", "for line in "};

typedef struct {
    uint8_t bytes[MOST];
    size_t size;
    int ends;
} text;

/* The options of session `i`: greedy and drawn, of different lengths, and one with a constraint, one with
   log-probabilities and one with a stop string. */
static bolmo_generate_options *options_of(int i) {
    bolmo_generate_options *options = greedy(12 + 7 * (size_t)i);
    if (i % 3 == 1) {
        CHECK_OK(bolmo_generate_options_set_temperature(options, 0.9f));
        CHECK_OK(bolmo_generate_options_set_seed(options, (uint64_t)i));
    }
    if (i == 2) {
        const char *regex = "(os|sys|json)\\.[a-z]{3,9}\\(forced[ab]\\)";
        bolmo_constraint *constraint = NULL;
        CHECK_OK(bolmo_constraint_create_regex(regex, strlen(regex), &constraint));
        CHECK_OK(bolmo_generate_options_set_constraint(options, constraint));
        bolmo_constraint_delete(constraint);
    }
    if (i == 5) CHECK_OK(bolmo_generate_options_set_logprobs(options, true));
    if (i == 6) CHECK_OK(bolmo_generate_options_add_stop(options, "e", 1));
    return options;
}

/* What each session writes alone. */
static text alone[MANY];

static void copy_text(const bolmo_generation *generation, text *to) {
    const uint8_t *data;
    CHECK_OK(bolmo_generation_bytes(generation, &data, &to->size));
    CHECK(to->size <= MOST);
    memcpy(to->bytes, data, to->size);
}

static void generate_alone(void) {
    for (int i = 0; i < MANY; i++) {
        bolmo_session *session = session_with(trained.model, prompts[i]);
        bolmo_generate_options *options = options_of(i);
        bolmo_generation *generation = NULL;
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
        copy_text(generation, &alone[i]);
        CHECK(alone[i].size > 0);
        bolmo_generation_delete(generation);
        bolmo_generate_options_delete(options);
        bolmo_session_delete(session);
    }
}

/* A callback that collects the texts. */
static text received[64];

static int32_t collect(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    text *to = &((text *)user_data)[index];
    CHECK(index < 64 && to->ends == 0);
    if (data == NULL) {
        CHECK(size == 0 && ids == NULL);
        to->ends++;
        return 0;
    }
    CHECK(size > 0 && to->size + size <= MOST);
    for (size_t i = 0; i < size; i++) CHECK((ids[i] >= 260 ? ids[i] - 260 : ids[i]) == data[i] + 4);
    memcpy(to->bytes + to->size, data, size);
    to->size += size;
    return 0;
}

static void check_equal_to_alone(const text *found, int i) {
    if (!same_bytes(found->bytes, found->size, alone[i].bytes, alone[i].size))
        fail(__FILE__, __LINE__, "session %d writes \"%.*s\" in a batch and \"%.*s\" alone", i, (int)found->size,
             (const char *)found->bytes, (int)alone[i].size, (const char *)alone[i].bytes);
}

static void a_fixed_number_of_sessions_writes_as_alone(void) {
    bolmo_session *sessions[MANY];
    bolmo_generate_options *options[MANY];
    bolmo_generation *generations[MANY];
    bolmo_status statuses[MANY];
    size_t length = 0;
    for (int i = 0; i < MANY; i++) {
        sessions[i] = session_with(trained.model, prompts[i]);
        options[i] = options_of(i);
    }
    memset(received, 0, sizeof received);
    const bolmo_generate_options *const *read_only = (const bolmo_generate_options *const *)options;
    CHECK_OK(bolmo_generate_batch(sessions, read_only, MANY, collect, received, generations, statuses));
    for (int i = 0; i < MANY; i++) {
        text result;
        CHECK(statuses[i] == BOLMO_OK && received[i].ends == 1);
        copy_text(generations[i], &result);
        check_equal_to_alone(&result, i);
        check_equal_to_alone(&received[i], i);
        CHECK_OK(bolmo_session_length(sessions[i], &length));
        CHECK(length > strlen(prompts[i]) + result.size);
        bolmo_generation_delete(generations[i]);
    }
    /* Nothing that is not wanted is needed, and no session may be there. */
    CHECK_OK(bolmo_generate_batch(sessions, NULL, 2, NULL, NULL, NULL, NULL));
    CHECK_OK(bolmo_generate_batch(NULL, NULL, 0, NULL, NULL, NULL, NULL));
    for (int i = 0; i < MANY; i++) {
        bolmo_generate_options_delete(options[i]);
        bolmo_session_delete(sessions[i]);
    }
}

/* A session that fails has its own status, and the first failure is the call's. */
static void failures_are_of_one_session(void) {
    bolmo_session *good = session_with(trained.model, prompts[0]), *empty = NULL, *deleted = NULL;
    bolmo_generate_options *options = options_of(0), *gone = greedy(1);
    bolmo_generation *generations[6];
    bolmo_status statuses[6];
    text result;
    CHECK_OK(bolmo_session_create(trained.model, &empty));
    CHECK_OK(bolmo_session_create(trained.model, &deleted));
    bolmo_session_delete(deleted);
    bolmo_generate_options_delete(gone);
    bolmo_session *sessions[6] = {empty, good, good, NULL, deleted, empty};
    const bolmo_generate_options *all[6] = {NULL, options, options, options, NULL, gone};
    memset(received, 0, sizeof received);
    CHECK_INVALID(bolmo_generate_batch(sessions, all, 6, collect, received, generations, statuses));
    CHECK_SAYS("empty");
    const bolmo_status expected[6] = {BOLMO_INVALID_ARGUMENT, BOLMO_OK, BOLMO_BUSY, BOLMO_INVALID_ARGUMENT,
                                      BOLMO_INVALID_ARGUMENT, BOLMO_INVALID_ARGUMENT};
    for (int i = 0; i < 6; i++) {
        CHECK(statuses[i] == expected[i] && received[i].ends == 1);
        CHECK((generations[i] != NULL) == (expected[i] == BOLMO_OK));
    }
    copy_text(generations[1], &result);
    check_equal_to_alone(&result, 0);
    bolmo_generation_delete(generations[1]);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(good);
    bolmo_session_delete(empty);
}

/* A batch whose sessions come and go. */
static bolmo_batch *batch;
static bolmo_session *joined[64];
static int prompt_of[64], rounds_of[MANY], join_at[MANY];

static void join(int i) {
    bolmo_generate_options *options = options_of(i);
    size_t index = SIZE_MAX;
    bolmo_session *session = session_with(trained.model, prompts[i]);
    CHECK_OK(bolmo_batch_add(batch, session, options, &index));
    CHECK(index < 64);
    joined[index] = session;
    prompt_of[index] = i;
    bolmo_generate_options_delete(options);
    CHECK_STATUS(BOLMO_BUSY, bolmo_session_append(session, "a", 1, NULL, NULL));
    CHECK_SAYS("in use");
    CHECK_STATUS(BOLMO_BUSY, bolmo_batch_add(batch, session, NULL, &index));
}

/* Takes a result, compares it and writes with the session again, until each has written twice. */
static void take(size_t index) {
    bolmo_generation *generation = NULL;
    int i = prompt_of[index];
    text result;
    CHECK_OK(bolmo_batch_generation(batch, index, &generation));
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_batch_generation(batch, index, &generation));
    CHECK_SAYS("handed out");
    copy_text(generation, &result);
    check_equal_to_alone(&result, i);
    bolmo_generation_delete(generation);
    bolmo_session_delete(joined[index]);
    joined[index] = NULL;
    if (++rounds_of[i] < 2) join(i);
}

static int32_t come_and_go(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    static int pieces;
    bolmo_generation *generation = NULL;
    collect(index, data, size, ids, user_data);
    if (data == NULL) {
        take(index);
        return 0;
    }
    CHECK_STATUS(BOLMO_BUSY, bolmo_batch_generation(batch, index, &generation));
    CHECK_STATUS(BOLMO_BUSY, bolmo_batch_run(batch, NULL, NULL));
    for (int i = 0; i < MANY; i++)
        if (join_at[i] == pieces) join(i);
    pieces++;
    return 0;
}

static void sessions_join_and_leave_in_the_callback(void) {
    CHECK_OK(bolmo_batch_create(&batch));
    CHECK_OK(bolmo_batch_run(batch, NULL, NULL));
    memset(received, 0, sizeof received);
    for (int i = 0; i < MANY; i++) join_at[i] = 4 * i - 8;
    join(0);
    join(1);
    CHECK_OK(bolmo_batch_run(batch, come_and_go, received));
    for (int i = 0; i < MANY; i++) CHECK(rounds_of[i] == 2);
    for (int i = 0; i < 2 * MANY; i++) {
        CHECK(received[i].ends == 1);
        check_equal_to_alone(&received[i], prompt_of[i]);
    }
    bolmo_batch_delete(batch);
}

/* Ends session 0 by the return value and session 1 by a cancel, after some bytes. */
static int32_t end_two(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    collect(index, data, size, ids, user_data);
    if (data == NULL) return 0;
    if (index == 1 && received[1].size >= 5) CHECK_OK(bolmo_session_cancel(joined[1]));
    return index == 0 && received[0].size >= 5;
}

static void a_session_leaves_by_itself(void) {
    int32_t stop = -1;
    CHECK_OK(bolmo_batch_create(&batch));
    memset(received, 0, sizeof received);
    for (int i = 0; i < 5; i++) join(4 + i);
    /* One that is cancelled before the run writes nothing. */
    CHECK_OK(bolmo_session_cancel(joined[2]));
    CHECK_OK(bolmo_batch_run(batch, end_two, received));
    for (size_t i = 0; i < 5; i++) {
        bolmo_generation *generation = NULL;
        text result;
        CHECK_OK(bolmo_batch_generation(batch, i, &generation));
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        CHECK((stop == BOLMO_STOP_CANCELLED) == (i < 3));
        copy_text(generation, &result);
        CHECK_BYTES(result.bytes, result.size, received[i].bytes, received[i].size);
        const text *whole = &alone[4 + i];
        if (i < 2) CHECK(result.size >= 5 && result.size < whole->size);
        if (i == 2) CHECK(result.size == 0);
        CHECK(memcmp(result.bytes, whole->bytes, result.size) == 0);
        if (i > 2) check_equal_to_alone(&result, 4 + (int)i);
        bolmo_generation_delete(generation);
        /* The session is free, and can go on. */
        CHECK_OK(bolmo_session_generate(joined[i], NULL, NULL, NULL, NULL));
        bolmo_session_delete(joined[i]);
    }
    bolmo_batch_delete(batch);
}

/* Other threads add sessions to a batch that runs, look at it, and try to run it. */
static volatile int running;

static void *add_from_a_thread(void *number) {
    int first = (int)(intptr_t)number;
    for (int i = first; i < MANY; i += 3) {
        bolmo_generation *generation = NULL;
        bolmo_generate_options *options = options_of(i);
        bolmo_session *session = session_with(trained.model, prompts[i]);
        size_t index = 0;
        text result;
        CHECK_OK(bolmo_batch_add(batch, session, options, &index));
        CHECK(__atomic_load_n(&running, __ATOMIC_ACQUIRE));
        if (i == first) CHECK_STATUS(BOLMO_BUSY, bolmo_batch_run(batch, NULL, NULL));
        bolmo_status status;
        while ((status = bolmo_batch_generation(batch, index, &generation)) == BOLMO_BUSY) {
            const struct timespec moment = {0, 1000000};
            nanosleep(&moment, NULL);
        }
        CHECK(status == BOLMO_OK);
        copy_text(generation, &result);
        check_equal_to_alone(&result, i);
        bolmo_generation_delete(generation);
        bolmo_generate_options_delete(options);
        bolmo_session_delete(session);
    }
    return NULL;
}

/* Keeps the batch running until the others are done. */
static int32_t wait_for_others(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)size, (void)ids, (void)user_data;
    if (index == 0 && data != NULL) {
        __atomic_store_n(&running, 1, __ATOMIC_RELEASE);
        return !__atomic_load_n(&running, __ATOMIC_ACQUIRE);
    }
    return 0;
}

static void *run_it(void *session) {
    (void)session;
    CHECK_OK(bolmo_batch_run(batch, wait_for_others, NULL));
    return NULL;
}

static void sessions_join_from_other_threads(void) {
    pthread_t runner, threads[3];
    size_t index;
    bolmo_generate_options *endless = greedy(1000000);
    bolmo_session *first = session_with(trained.model, "def ");
    CHECK_OK(bolmo_generate_options_set_end_bias(endless, -1000.0f));
    CHECK_OK(bolmo_batch_create(&batch));
    CHECK_OK(bolmo_batch_add(batch, first, endless, &index));
    CHECK(pthread_create(&runner, NULL, run_it, NULL) == 0);
    while (!__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
        const struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, add_from_a_thread, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK_OK(bolmo_session_cancel(first));
    CHECK(pthread_join(runner, NULL) == 0);
    bolmo_generate_options_delete(endless);
    bolmo_session_delete(first);
    bolmo_batch_delete(batch);
}

/* Deletes the batch and a session in the middle of a run, which goes on to its end. */
static int32_t delete_both(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    collect(index, data, size, ids, user_data);
    bolmo_batch_delete(batch);
    bolmo_session_delete(joined[1]);
    CHECK_INVALID(bolmo_batch_add(batch, joined[0], NULL, &out.size));
    return 0;
}

static void deleting_is_safe_at_any_time(void) {
    size_t length = 0;
    CHECK_OK(bolmo_batch_create(&batch));
    memset(received, 0, sizeof received);
    join(0);
    join(1);
    CHECK_OK(bolmo_batch_run(batch, delete_both, received));
    for (int i = 0; i < 2; i++) check_equal_to_alone(&received[i], i);
    CHECK_OK(bolmo_session_length(joined[0], &length));
    bolmo_session_delete(joined[0]);

    /* Sessions that did not run are free afterwards, and as they were. */
    CHECK_OK(bolmo_batch_create(&batch));
    join(0);
    join(1);
    bolmo_session_delete(joined[1]);
    bolmo_batch_delete(batch);
    bolmo_generate_options *options = options_of(0);
    text result;
    result.size = generate(joined[0], options, result.bytes);
    check_equal_to_alone(&result, 0);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(joined[0]);
}

/* Two models on two engines, one of which is lost in the middle. */
static bolmo_engine *lost;

static int32_t lose(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    collect(index, data, size, ids, user_data);
    if (index == 0 && data != NULL && received[0].size >= 5) CHECK_OK(bolmo_engine_destroy_device(lost));
    return 0;
}

static void a_lost_device_fails_its_own_sessions(void) {
    trained_model other = open_trained();
    bolmo_session *sessions[6];
    bolmo_generation *generations[6];
    bolmo_generate_options *options[6];
    bolmo_status statuses[6];
    lost = other.engine;
    for (int i = 0; i < 6; i++) {
        sessions[i] = session_with(i % 2 == 0 ? other.model : trained.model, prompts[i]);
        options[i] = i % 2 == 0 ? greedy(1000) : options_of(i);
        CHECK_OK(bolmo_generate_options_set_end_bias(options[i], i % 2 == 0 ? -1000.0f : 0.0f));
    }
    memset(received, 0, sizeof received);
    const bolmo_generate_options *const *read_only = (const bolmo_generate_options *const *)options;
    CHECK_STATUS(BOLMO_DEVICE_LOST, bolmo_generate_batch(sessions, read_only, 6, lose, received, generations, statuses));
    CHECK_SAYS("lost");
    for (int i = 0; i < 6; i++) {
        text result;
        CHECK(received[i].ends == 1);
        if (i % 2 == 0) {
            size_t length = 0;
            CHECK(statuses[i] == BOLMO_DEVICE_LOST && generations[i] == NULL);
            CHECK_OK(bolmo_session_length(sessions[i], &length));
            CHECK(length == 1 + strlen(prompts[i]) + received[i].size);
        } else {
            CHECK(statuses[i] == BOLMO_OK);
            copy_text(generations[i], &result);
            check_equal_to_alone(&result, i);
            bolmo_generation_delete(generations[i]);
        }
        bolmo_generate_options_delete(options[i]);
        bolmo_session_delete(sessions[i]);
    }
    close_trained(other);
}

static void rejected(void) {
    static _Alignas(16) uint8_t room[64];
    bolmo_session *session = session_with(trained.model, "ab"), *sessions[1] = {session};
    bolmo_batch *made = NULL;
    REFUSED(bolmo_generate_batch(NULL, NULL, 1, NULL, NULL, &out.generation, NULL));
    REFUSED(bolmo_generate_batch(sessions, NULL, SIZE_MAX, NULL, NULL, &out.generation, NULL));
    REFUSED(bolmo_generate_batch(sessions, NULL, 1, NULL, NULL, (void *)(room + 1), NULL));
    REFUSED(bolmo_generate_batch(sessions, NULL, 1, NULL, NULL, NULL, (void *)(room + 1)));
    REFUSED(bolmo_generate_batch((void *)(room + 1), NULL, 1, NULL, NULL, NULL, NULL));
    REFUSED(bolmo_generate_batch(sessions, (void *)(room + 1), 1, NULL, NULL, NULL, NULL));
    REFUSED(bolmo_batch_create(NULL));
    CHECK_OK(bolmo_batch_create(&made));
    BAD_HANDLES(bolmo_batch, bolmo_batch_add(handle, session, NULL, &out.size));
    BAD_HANDLES(bolmo_session, bolmo_batch_add(made, handle, NULL, &out.size));
    BAD_HANDLES_FROM(1, bolmo_generate_options, bolmo_batch_add(made, session, handle, &out.size));
    BAD_HANDLES(bolmo_batch, bolmo_batch_run(handle, NULL, NULL));
    BAD_HANDLES(bolmo_batch, bolmo_batch_generation(handle, 0, &out.generation));
    BAD_DELETES(bolmo_batch, bolmo_batch_delete);
    REFUSED(bolmo_batch_add(made, session, NULL, NULL));
    REFUSED(bolmo_batch_generation(made, 0, NULL));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_batch_generation(made, 0, &out.generation));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_batch_generation(made, SIZE_MAX, &out.generation));
    /* None of these has taken the session. */
    CHECK_OK(bolmo_session_append(session, "c", 1, NULL, NULL));
    CHECK_OK(bolmo_session_create(trained.model, &sessions[0]));
    CHECK_OK(bolmo_batch_add(made, sessions[0], NULL, &out.size));
    CHECK_OK(bolmo_batch_run(made, NULL, NULL));
    REFUSED(bolmo_batch_generation(made, 0, &out.generation));
    CHECK_SAYS("empty");
    bolmo_session_delete(sessions[0]);
    bolmo_batch_delete(made);
    bolmo_session_delete(session);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    make_no_handles();
    trained = open_trained();
    generate_alone();
    a_fixed_number_of_sessions_writes_as_alone();
    failures_are_of_one_session();
    sessions_join_and_leave_in_the_callback();
    a_session_leaves_by_itself();
    sessions_join_from_other_threads();
    deleting_is_safe_at_any_time();
    a_lost_device_fails_its_own_sessions();
    rejected();
    close_trained(trained);
    delete_no_handles();
    return end("batch");
}
