/* Deleting in every order: what is left works, what was deleted is rejected, and in the end nothing is left. */
#include "check.h"

enum { ENGINE, CHECKPOINT, MODEL, SESSION, STATE, OPTIONS, GENERATION, THINGS };

typedef struct {
    trained_model trained;
    bolmo_session *session;
    bolmo_session_checkpoint *state;
    bolmo_generate_options *options;
    bolmo_generation *generation;
    bool there[THINGS];
} all;

static void make(all *a) {
    a->trained = open_trained();
    a->session = session_with(a->trained.model, "ab");
    CHECK_OK(bolmo_session_checkpoint_create(a->session, &a->state));
    a->options = greedy(1);
    CHECK_OK(bolmo_session_generate(a->session, a->options, NULL, NULL, &a->generation));
    for (int i = 0; i < THINGS; i++) a->there[i] = true;
}

static void delete_one(all *a, int which) {
    switch (which) {
    case ENGINE: bolmo_engine_delete(a->trained.engine); break;
    case CHECKPOINT: bolmo_checkpoint_delete(a->trained.checkpoint); break;
    case MODEL: bolmo_model_delete(a->trained.model); break;
    case SESSION: bolmo_session_delete(a->session); break;
    case STATE: bolmo_session_checkpoint_delete(a->state); break;
    case OPTIONS: bolmo_generate_options_delete(a->options); break;
    default: bolmo_generation_delete(a->generation); break;
    }
    a->there[which] = false;
}

static bolmo_status expected(bool there) { return there ? BOLMO_OK : BOLMO_INVALID_ARGUMENT; }

/* Cheap uses of every object, whether it exists or not. */
static void use(const all *a) {
    const char *text;
    const uint8_t *data;
    uint64_t number;
    size_t size;
    CHECK_STATUS(expected(a->there[ENGINE]), bolmo_engine_text(a->trained.engine, 0, &text, &size));
    CHECK_STATUS(expected(a->there[CHECKPOINT]), bolmo_checkpoint_number(a->trained.checkpoint, 0, &number));
    CHECK_STATUS(expected(a->there[MODEL]), bolmo_model_number(a->trained.model, 0, &number));
    CHECK_STATUS(expected(a->there[SESSION]), bolmo_session_length(a->session, &size));
    CHECK_STATUS(expected(a->there[OPTIONS]), bolmo_generate_options_set_seed(a->options, 1));
    CHECK_STATUS(expected(a->there[GENERATION]), bolmo_generation_bytes(a->generation, &data, &size));
    if (a->there[GENERATION]) CHECK(size == 1);
}

/* Expensive uses, with the device: everything that keeps something else alive still works with it. */
static void use_device(const all *a) {
    bool session = a->there[SESSION], state = a->there[STATE];
    bolmo_session *new_one = NULL;
    CHECK_STATUS(expected(session && state), bolmo_session_rewind(a->session, a->state));
    CHECK_STATUS(expected(session && a->there[OPTIONS]),
                 bolmo_session_generate(a->session, a->options, NULL, NULL, NULL));
    CHECK_STATUS(expected(a->there[MODEL]), bolmo_session_create(a->trained.model, &new_one));
    if (state && a->there[MODEL]) CHECK_OK(bolmo_session_rewind(new_one, a->state));
    bolmo_session_delete(new_one);
}

/* The next order of `n` things, or false after the last one. */
static bool next_order(int *order, int n) {
    int i = n - 2, j = n - 1;
    while (i >= 0 && order[i] > order[i + 1]) i--;
    if (i < 0) return false;
    while (order[j] < order[i]) j--;
    int swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
    for (int from = i + 1, to = n - 1; from < to; from++, to--) {
        swapped = order[from];
        order[from] = order[to];
        order[to] = swapped;
    }
    return true;
}

/* Every order of the five objects that keep each other alive, with the other two at varying places in between. */
static void every_order_of_deletion_works(void) {
    int order[5] = {ENGINE, CHECKPOINT, MODEL, SESSION, STATE}, count = 0;
    do {
        if (count++ % (int)slow_factor() != 0) continue;
        all a;
        make(&a);
        for (int i = 0; i < 5; i++) {
            delete_one(&a, order[i]);
            use(&a);
            use_device(&a);
            if (i == count % 5) delete_one(&a, OPTIONS);
            if (i == count % 3) delete_one(&a, GENERATION);
            /* The second time does nothing. */
            delete_one(&a, order[i]);
        }
        use(&a);
        CHECK(bolmo_handle_count() == 0);
    } while (next_order(order, 5));
    CHECK(count == 120);
}

static int32_t delete_all(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)size, (void)ids;
    all *a = user_data;
    for (int i = 0; i < THINGS; i++) delete_one(a, i);
    CHECK(bolmo_handle_count() == 0);
    return 0;
}

/* A generation whose callback deletes everything runs to its end, and its result is a new handle. */
static void deleting_in_a_generation_works(void) {
    all a;
    bolmo_generation *generation = NULL;
    const uint8_t *data;
    size_t size = 0;
    int32_t stop = -1;
    make(&a);
    CHECK_OK(bolmo_generate_options_set_max_bytes(a.options, 5));
    CHECK_OK(bolmo_session_generate(a.session, a.options, delete_all, &a, &generation));
    use(&a);
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK(size == 5 && stop == BOLMO_STOP_BUDGET);
    bolmo_generation_delete(generation);
}

static int32_t delete_while_told(uint64_t done, uint64_t total, void *user_data) {
    (void)done, (void)total;
    all *a = user_data;
    for (int i = 0; i < THINGS; i++) delete_one(a, i);
    return 0;
}

static void deleting_in_loads_and_appends_works(void) {
    all a;
    bolmo_load_options *options = NULL;
    bolmo_model *model = NULL;
    bolmo_score_options *scoring = NULL;
    bolmo_score *score = NULL;
    double bytes = 0;
    make(&a);
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_OK(bolmo_load_options_set_progress(options, delete_while_told, &a));
    CHECK_OK(bolmo_model_load(a.trained.engine, a.trained.checkpoint, options, &model));
    bolmo_load_options_delete(options);
    bolmo_session *session = session_with(model, "still there");
    bolmo_session_delete(session);
    bolmo_model_delete(model);

    make(&a);
    CHECK_OK(bolmo_session_append(a.session, "some text", 9, delete_while_told, &a));
    CHECK_INVALID(bolmo_session_append(a.session, "some text", 9, NULL, NULL));

    make(&a);
    CHECK_OK(bolmo_score_options_create(&scoring));
    CHECK_OK(bolmo_score_options_set_progress(scoring, delete_while_told, &a));
    CHECK_OK(bolmo_model_score(a.trained.model, "some text", 9, scoring, &score));
    CHECK_OK(bolmo_score_number(score, BOLMO_SCORE_BYTES, &bytes));
    CHECK(bytes == 9);
    bolmo_score_options_delete(scoring);
    bolmo_score_delete(score);
}

/* Deleted handles are not reused, so an old one never means a new object. */
static void handles_are_not_reused(void) {
    bolmo_utf8 *first = NULL, *other = NULL;
    CHECK_OK(bolmo_utf8_create(&first));
    bolmo_utf8_delete(first);
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(bolmo_utf8_create(&other));
        CHECK(other != first);
        bolmo_utf8_delete(first);
        CHECK(bolmo_handle_count() == 1);
        bolmo_utf8_delete(other);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    handles_are_not_reused();
    every_order_of_deletion_works();
    deleting_in_a_generation_works();
    deleting_in_loads_and_appends_works();
    return end("order");
}
