/* Greedy generations of the trained golden model equal those of the reference implementation, id by id: in one call,
   step by step, and in pieces. */
#include "check.h"

enum { MOST = 512 };

typedef struct {
    uint32_t prompt[MOST];
    uint16_t emitted[MOST];
    /* Number of emitted ids before the first choice that is too close to rely on. */
    size_t prompt_count, emitted_count, safe;
} golden;

/* The ids that the callback received. */
typedef struct {
    uint8_t bytes[MOST];
    uint16_t ids[MOST];
    size_t size;
} pieces;

static int32_t collect(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    pieces *to = user_data;
    CHECK(size > 0 && to->size + size <= MOST);
    memcpy(to->bytes + to->size, data, size);
    memcpy(to->ids + to->size, ids, size * sizeof *ids);
    to->size += size;
    return 0;
}

static bool read_golden(FILE *file, golden *next) {
    if (fscanf(file, "%zu %zu %zu", &next->prompt_count, &next->emitted_count, &next->safe) != 3) return false;
    CHECK(next->prompt_count <= MOST && next->emitted_count <= MOST && next->safe <= next->emitted_count);
    for (size_t i = 0; i < next->prompt_count; i++) CHECK(fscanf(file, "%" SCNu32, &next->prompt[i]) == 1);
    for (size_t i = 0; i < next->emitted_count; i++) CHECK(fscanf(file, "%" SCNu16, &next->emitted[i]) == 1);
    return true;
}

static bolmo_session *session_of(const bolmo_model *model, const golden *want) {
    bolmo_session *session = NULL;
    CHECK_OK(bolmo_session_create(model, &session));
    CHECK_OK(bolmo_session_append_ids(session, want->prompt, want->prompt_count, NULL, NULL));
    return session;
}

/* The first emitted id is the decision on the prompt's last byte. */
static void check_decided(bolmo_session *session, const golden *want) {
    uint16_t decided = 0;
    size_t count = 0;
    CHECK_OK(bolmo_session_ids(session, want->prompt_count - 1, &decided, 1, &count));
    CHECK(count == 1 && decided == want->emitted[0]);
}

static void one_call_equals_the_reference(const bolmo_model *model, const golden *want) {
    bolmo_session *session = session_of(model, want);
    bolmo_generate_options *options = greedy(want->emitted_count - 1);
    bolmo_generation *generation = NULL;
    pieces seen = {{0}, {0}, 0};
    const uint8_t *data;
    const uint16_t *ids;
    size_t size = 0, count = 0;
    CHECK_OK(bolmo_session_generate(session, options, collect, &seen, &generation));
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK_OK(bolmo_generation_ids(generation, &ids, &count));
    CHECK(count >= want->safe - 1);
    CHECK_BYTES(ids, 2 * (want->safe - 1), want->emitted + 1, 2 * (want->safe - 1));
    CHECK_BYTES(seen.bytes, seen.size, data, size);
    CHECK_BYTES(seen.ids, 2 * seen.size, ids, 2 * size);
    for (size_t i = 0; i < size; i++) CHECK(data[i] == (ids[i] >= 260 ? ids[i] - 260 : ids[i]) - 4);
    check_decided(session, want);
    bolmo_generation_delete(generation);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
}

static void single_steps_equal_the_reference(const bolmo_model *model, const golden *want) {
    bolmo_session *session = session_of(model, want);
    bolmo_sampler *sampler = NULL;
    float logits[520];
    CHECK_OK(bolmo_sampler_create(NULL, &sampler));
    for (size_t i = 1; i < want->safe; i++) {
        uint16_t id = 0;
        CHECK_OK(bolmo_session_logits(session, 0.0f, logits, 520));
        CHECK_OK(bolmo_sampler_choose(sampler, session, logits, 520, NULL, &id));
        CHECK(id == want->emitted[i]);
        if (id == 1 || id == 261) break;
        CHECK_OK(bolmo_session_push(session, id));
    }
    check_decided(session, want);
    bolmo_sampler_delete(sampler);
    bolmo_session_delete(session);
}

/* The prompt in two pieces, and the generation in calls of a few bytes. */
static void pieces_equal_the_reference(const bolmo_model *model, const golden *want) {
    bolmo_session *session = NULL;
    bolmo_generate_options *options = greedy(5);
    size_t half = want->prompt_count / 2, count = 0;
    uint16_t ids[2 * MOST];
    CHECK_OK(bolmo_session_create(model, &session));
    CHECK_OK(bolmo_session_append_ids(session, want->prompt, half, NULL, NULL));
    CHECK_OK(bolmo_session_append_ids(session, want->prompt + half, want->prompt_count - half, NULL, NULL));
    for (size_t made = 1; made < want->safe; made += 5)
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
    CHECK_OK(bolmo_session_ids(session, want->prompt_count - 1, ids, 2 * MOST, &count));
    for (size_t i = 0; i < want->safe && i < count; i++) CHECK(ids[i] == want->emitted[i]);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained_model trained = open_trained();
    FILE *file = fopen(GOLDEN_FOLDER "/generations.txt", "r");
    CHECK(file != NULL);
    static golden want;
    int compared = 0;
    while (read_golden(file, &want)) {
        one_call_equals_the_reference(trained.model, &want);
        single_steps_equal_the_reference(trained.model, &want);
        pieces_equal_the_reference(trained.model, &want);
        compared++;
    }
    fclose(file);
    CHECK(compared >= 4);
    printf("%d generations are the reference's\n", compared);
    close_trained(trained);
    return end("generate");
}
