/* Every function that needs a model, and constraints, called successfully, with checks of its results. The others are
   in test_setup.c. */
#include "check.h"

static const char prompt[] = "class Reader:";

static int32_t count_progress(uint64_t done, uint64_t total, void *user_data) {
    CHECK(done <= total);
    ++*(int *)user_data;
    return 0;
}

static bolmo_constraint *constraints(void) {
    bolmo_constraint *constraint = NULL, *schema = NULL;
    bolmo_matcher *matcher = NULL, *clone = NULL;
    uint8_t allowed[257];
    size_t shortest = 0;
    bool matches = false;
    CHECK_OK(bolmo_constraint_create_regex("[ab]{3}", 7, &constraint));
    CHECK_OK(bolmo_constraint_create_json_schema("{\"type\": \"boolean\"}", 19, &schema));
    CHECK_OK(bolmo_constraint_matches(constraint, "aba", 3, &matches));
    CHECK(matches);
    CHECK_OK(bolmo_constraint_shortest(constraint, &shortest));
    CHECK_OK(bolmo_matcher_create(constraint, &matcher));
    CHECK_OK(bolmo_matcher_advance(matcher, "ab", 2));
    CHECK_OK(bolmo_matcher_clone(matcher, &clone));
    CHECK_OK(bolmo_matcher_allowed(clone, 0, allowed));
    CHECK(allowed['a'] == 1);
    CHECK_OK(bolmo_matcher_advance(clone, "a", 1));
    CHECK_OK(bolmo_matcher_is_match(clone, &matches));
    CHECK(matches);
    bolmo_matcher_delete(matcher);
    bolmo_matcher_delete(clone);
    bolmo_constraint_delete(schema);
    return constraint;
}

static bolmo_generate_options *all_options(void) {
    bolmo_generate_options *options = NULL;
    CHECK_OK(bolmo_generate_options_create(&options));
    CHECK_OK(bolmo_generate_options_set_max_bytes(options, 20));
    CHECK_OK(bolmo_generate_options_set_temperature(options, 0.5f));
    CHECK_OK(bolmo_generate_options_set_top_k(options, 50));
    CHECK_OK(bolmo_generate_options_set_top_p(options, 0.9f));
    CHECK_OK(bolmo_generate_options_set_min_p(options, 0.01f));
    CHECK_OK(bolmo_generate_options_set_repetition_penalty(options, 1.1f, 32));
    CHECK_OK(bolmo_generate_options_set_byte_bias(options, 'z', -1.0f));
    CHECK_OK(bolmo_generate_options_set_end_bias(options, -100.0f));
    CHECK_OK(bolmo_generate_options_set_boundary_bias(options, 0.5f));
    CHECK_OK(bolmo_generate_options_set_seed(options, 42));
    CHECK_OK(bolmo_generate_options_add_stop(options, "\x01\x02", 2));
    CHECK_OK(bolmo_generate_options_set_constraint(options, NULL));
    return options;
}

typedef struct {
    uint8_t bytes[64];
    size_t size;
} collected;

static int32_t collect(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    collected *to = user_data;
    for (size_t i = 0; i < size; i++) CHECK((ids[i] >= 260 ? ids[i] - 260 : ids[i]) == data[i] + 4);
    CHECK(to->size + size <= sizeof to->bytes);
    memcpy(to->bytes + to->size, data, size);
    to->size += size;
    return 0;
}

static void generation(bolmo_session *session) {
    bolmo_generate_options *options = all_options();
    bolmo_generation *made = NULL;
    collected seen = {{0}, 0};
    const uint8_t *bytes;
    const uint16_t *ids;
    size_t size = 0, count = 0, patches = 0, fused = 0;
    int32_t stop = -1;
    bool matched = true;
    CHECK_OK(bolmo_session_generate(session, options, collect, &seen, &made));
    CHECK_OK(bolmo_generation_stop(made, &stop));
    CHECK(stop == BOLMO_STOP_BUDGET);
    CHECK_OK(bolmo_generation_bytes(made, &bytes, &size));
    CHECK(size == 20);
    CHECK_BYTES(bytes, size, seen.bytes, seen.size);
    CHECK_OK(bolmo_generation_ids(made, &ids, &count));
    CHECK(count == 20);
    for (size_t i = 0; i < count; i++) fused += ids[i] >= 260;
    CHECK_OK(bolmo_generation_patches(made, &patches));
    CHECK(patches == fused);
    CHECK_OK(bolmo_generation_matched(made, &matched));
    CHECK(!matched);
    bolmo_generation_delete(made);
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
    bolmo_generate_options_delete(options);
}

static void sampler(bolmo_session *session) {
    float logits[520];
    uint16_t id = 0, last = 0;
    size_t length = 0, after = 0, count = 0;
    bolmo_sampler *sampler = NULL;
    CHECK_OK(bolmo_sampler_create(NULL, &sampler));
    CHECK_OK(bolmo_session_logits(session, 0.0f, logits, 520));
    CHECK_OK(bolmo_sampler_choose(sampler, session, logits, 520, NULL, &id));
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK_OK(bolmo_session_push(session, id));
    CHECK_OK(bolmo_session_length(session, &after));
    CHECK(after == length + 1);
    CHECK_OK(bolmo_session_ids(session, length, &last, 1, &count));
    CHECK(count == 1 && last == id);
    bolmo_sampler_delete(sampler);
}

static void sessions(const bolmo_model *model) {
    bolmo_session *session = NULL, *clone = NULL, *restored = NULL;
    bolmo_session_checkpoint *start = NULL;
    bolmo_bytes *snapshot = NULL;
    const uint8_t *data;
    uint32_t ids[] = {80, 101};
    size_t length = 0, patches = 0, size = 0;
    uint64_t bytes = 0;
    uint8_t one[4096], other[4096];
    int told = 0;
    CHECK_OK(bolmo_session_create(model, &session));
    CHECK_OK(bolmo_session_append_bos(session));
    CHECK_OK(bolmo_session_append(session, prompt, strlen(prompt), count_progress, &told));
    CHECK(told > 0);
    CHECK_OK(bolmo_session_append_ids(session, ids, 2, NULL, NULL));
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK(length == strlen(prompt) + 3);
    CHECK_OK(bolmo_session_progress(session, &bytes, NULL));
    CHECK(bytes == 2);
    CHECK_OK(bolmo_session_patches(session, &patches));
    CHECK(patches >= 1 && patches < length);
    CHECK_OK(bolmo_session_device_bytes(session, &bytes));
    CHECK(bytes > 0);
    CHECK_OK(bolmo_session_checkpoint_create(session, &start));
    CHECK_OK(bolmo_session_snapshot(session, &snapshot));
    CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
    CHECK_OK(bolmo_session_restore(model, data, size, &restored));
    bolmo_bytes_delete(snapshot);
    CHECK_OK(bolmo_session_clone(session, &clone));

    bolmo_generate_options *options = greedy(40);
    size_t made = generate(session, options, one);
    CHECK(made > 0);
    CHECK_BYTES(other, generate(restored, options, other), one, made);
    CHECK_BYTES(other, generate(clone, options, other), one, made);
    CHECK_OK(bolmo_session_rewind(session, start));
    CHECK_BYTES(other, generate(session, options, other), one, made);

    CHECK_OK(bolmo_session_rewind(session, start));
    CHECK_OK(bolmo_session_cancel(session));
    CHECK_OK(bolmo_session_reset_cancel(session));
    generation(session);
    sampler(session);
    bolmo_generate_options_delete(options);
    bolmo_session_checkpoint_delete(start);
    bolmo_session_delete(restored);
    bolmo_session_delete(clone);
    bolmo_session_delete(session);
}

static void score(const bolmo_model *model) {
    bolmo_score_options *options = NULL;
    bolmo_score *score = NULL, *by_ids = NULL;
    const uint8_t *flags;
    const float *tensor;
    uint32_t ids[] = {1, 80, 81, 82};
    uint8_t given[] = {1, 0, 1, 0};
    double number = 0;
    size_t count = 0, rows = 0, columns = 0;
    int told = 0;
    CHECK_OK(bolmo_score_options_create(&options));
    CHECK_OK(bolmo_score_options_set_tensors(options, true));
    CHECK_OK(bolmo_score_options_set_progress(options, count_progress, &told));
    CHECK_OK(bolmo_model_score(model, prompt, strlen(prompt), options, &score));
    CHECK(told > 0);
    CHECK_OK(bolmo_score_number(score, BOLMO_SCORE_BYTES, &number));
    CHECK(number == (double)strlen(prompt));
    CHECK_OK(bolmo_score_number(score, BOLMO_SCORE_BITS_PER_BYTE_JOINT, &number));
    CHECK(number > 0.0 && number < 20.0);
    CHECK_OK(bolmo_score_boundaries(score, &flags, &count));
    CHECK(count >= strlen(prompt));
    for (int32_t which = BOLMO_TENSOR_ENCODER_OUT; which <= BOLMO_TENSOR_LOGITS; which++) {
        CHECK_OK(bolmo_score_tensor(score, which, &tensor, &rows, &columns));
        CHECK(tensor != NULL && rows > 0 && columns > 0);
    }
    CHECK(columns == 520);
    CHECK_OK(bolmo_score_options_set_tensors(options, false));
    CHECK_OK(bolmo_score_options_set_boundaries(options, given, 4));
    CHECK_OK(bolmo_model_score_ids(model, ids, 4, options, &by_ids));
    CHECK_OK(bolmo_score_boundaries(by_ids, &flags, &count));
    CHECK_BYTES(flags, count, given, 4);
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_score_tensor(by_ids, 0, &tensor, &rows, &columns));
    bolmo_score_options_delete(options);
    bolmo_score_delete(score);
    bolmo_score_delete(by_ids);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained_model trained = open_trained();
    sessions(trained.model);
    score(trained.model);
    close_trained(trained);
    bolmo_constraint_delete(constraints());
    return end("use");
}
