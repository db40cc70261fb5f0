/* Log-probabilities of a generation and of a score: those of the logits, step by step, and the same in both. */
#include "refuse.h"
#include <math.h>

enum { LOGITS = 520, MOST = 512 };

static trained_model trained;

/* Natural log-probabilities of an id under logits, joint and folded. */
static void expected_logprobs(const float *logits, uint16_t id, double *joint, double *folded) {
    double largest = -INFINITY, sum = 0;
    int plain = id >= 260 ? id - 260 : id;
    for (int i = 0; i < LOGITS; i++) largest = fmax(largest, logits[i]);
    for (int i = 0; i < LOGITS; i++) sum += exp(logits[i] - largest);
    double total = largest + log(sum);
    *joint = logits[id] - total;
    *folded = log(exp(logits[plain] - total) + exp(logits[plain + 260] - total));
}

static void check_close(double found, double expected, double tolerance, size_t at, int line) {
    if (!(fabs(found - expected) <= tolerance))
        fail(__FILE__, line, "at %zu: expected %.7f, found %.7f", at, expected, found);
}

typedef struct {
    const uint16_t *ids;
    const float *joint, *folded;
    size_t count;
} logprobs;

static logprobs logprobs_of(const bolmo_generation *generation) {
    logprobs found;
    size_t count = 0;
    CHECK_OK(bolmo_generation_ids(generation, &found.ids, &found.count));
    CHECK_OK(bolmo_generation_logprobs(generation, BOLMO_LOGPROB_JOINT, &found.joint, &count));
    CHECK(count == found.count);
    CHECK_OK(bolmo_generation_logprobs(generation, BOLMO_LOGPROB_FOLDED, &found.folded, &count));
    CHECK(count == found.count && count > 0);
    for (size_t i = 0; i < count; i++) CHECK(found.joint[i] <= found.folded[i] && found.folded[i] <= 1e-6f);
    return found;
}

/* Another session takes the same ids one by one, and its logits give the same log-probabilities. */
static void check_step_by_step(const char *prompt, float boundary_bias, logprobs found) {
    bolmo_session *session = session_with(trained.model, prompt);
    float logits[LOGITS];
    for (size_t i = 0; i < found.count; i++) {
        double joint, folded;
        CHECK_OK(bolmo_session_logits(session, boundary_bias, logits, LOGITS));
        expected_logprobs(logits, found.ids[i], &joint, &folded);
        check_close(found.joint[i], joint, 1e-5 * (1 + fabs(joint)), i, __LINE__);
        check_close(found.folded[i], folded, 1e-5 * (1 + fabs(folded)), i, __LINE__);
        if (found.ids[i] % 260 != 1) CHECK_OK(bolmo_session_push(session, found.ids[i]));
    }
    bolmo_session_delete(session);
}

/* Scoring the session's text and the end, with the session's patches, gives the same ones. `kept` is how many of the
   ids the session has: not the end. */
static void check_with_score(bolmo_session *session, logprobs found, size_t kept) {
    static uint16_t all[MOST];
    uint32_t plain[MOST];
    uint8_t ends[MOST];
    size_t count = 0, scored = 0;
    bolmo_score_options *options = NULL;
    bolmo_score *score = NULL;
    const float *joint, *folded;
    CHECK_OK(bolmo_session_ids(session, 0, all, MOST, &count));
    CHECK(kept < count && count < MOST);
    size_t first = count - kept;
    for (size_t i = kept; i < found.count; i++) all[count++] = found.ids[i];
    for (size_t i = 0; i < count; i++) {
        ends[i] = all[i] >= 260;
        plain[i] = all[i] - 260u * ends[i];
    }
    CHECK_OK(bolmo_score_options_create(&options));
    CHECK_OK(bolmo_score_options_set_boundaries(options, ends, count));
    CHECK_OK(bolmo_model_score_ids(trained.model, plain, count, options, &score));
    CHECK_OK(bolmo_score_logprobs(score, BOLMO_LOGPROB_JOINT, &joint, &scored));
    CHECK(scored == count - 1);
    CHECK_OK(bolmo_score_logprobs(score, BOLMO_LOGPROB_FOLDED, &folded, &scored));
    CHECK(scored == count - 1);
    for (size_t i = 0; i < found.count; i++) {
        check_close(found.joint[i], joint[first + i - 1], 1e-3, i, __LINE__);
        check_close(found.folded[i], folded[first + i - 1], 1e-3, i, __LINE__);
    }
    bolmo_score_delete(score);
    bolmo_score_options_delete(options);
}

/* Greedy text is the same with them, and they are the model's, whatever the sampling options are. */
static void they_are_those_of_the_model(void) {
    const char *prompt = "class Reader:";
    for (int way = 0; way < 4; way++) {
        bolmo_generate_options *options = greedy(60);
        bolmo_generation *generation = NULL;
        bolmo_session *session = session_with(trained.model, prompt), *without = session_with(trained.model, prompt);
        float boundary_bias = way == 2 ? 1.5f : 0.0f;
        int32_t stop = -1;
        uint8_t text[4096];
        const uint8_t *data;
        size_t size;
        if (way == 1) {
            CHECK_OK(bolmo_generate_options_set_temperature(options, 1.3f));
            CHECK_OK(bolmo_generate_options_set_top_k(options, 30));
            CHECK_OK(bolmo_generate_options_set_byte_bias(options, 'e', -1.0f));
            CHECK_OK(bolmo_generate_options_set_repetition_penalty(options, 1.3f, 32));
        }
        CHECK_OK(bolmo_generate_options_set_boundary_bias(options, boundary_bias));
        CHECK_OK(bolmo_generate_options_set_end_bias(options, way == 3 ? 30.0f : -30.0f));
        size_t plain_size = generate(without, options, text);
        CHECK_OK(bolmo_generate_options_set_logprobs(options, true));
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
        CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
        if (way != 1) CHECK_BYTES(data, size, text, plain_size);
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        logprobs found = logprobs_of(generation);
        /* The end has one as well. */
        CHECK(stop == (way == 3 ? BOLMO_STOP_END : BOLMO_STOP_BUDGET));
        CHECK(found.count == size + (way == 3));
        check_step_by_step(prompt, boundary_bias, found);
        check_with_score(session, found, size);
        bolmo_generation_delete(generation);
        bolmo_generate_options_delete(options);
        bolmo_session_delete(session);
        bolmo_session_delete(without);
    }
}

static int32_t stop_at_once(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids;
    *(size_t *)user_data += size;
    return *(size_t *)user_data >= 9;
}

/* Bytes that a constraint forces, a stop string and a callback that stops: one for each id. */
static void every_id_has_one(void) {
    const char *regex = "(a|b)[xy]forced bytes of some length, then a choice[.!?](and more)?";
    bolmo_constraint *constraint = NULL;
    bolmo_generate_options *options = greedy(200);
    CHECK_OK(bolmo_constraint_create_regex(regex, strlen(regex), &constraint));
    CHECK_OK(bolmo_generate_options_set_constraint(options, constraint));
    for (int way = 0; way < 6; way++) {
        const char *prompt = way % 2 == 0 ? "def " : "";
        bolmo_session *session = session_with(trained.model, prompt);
        bolmo_generation *without = NULL, *generation = NULL;
        size_t size = 0, plain_count = 0, seen = 0;
        const uint16_t *plain_ids;
        int32_t stop = -1;
        if (way == 2) CHECK_OK(bolmo_generate_options_add_stop(options, "bytes of", 8));
        bolmo_piece_callback callback = way >= 4 ? stop_at_once : NULL;
        bolmo_session_checkpoint *start = NULL;
        float logits[LOGITS];
        /* With the decision on the prompt's last byte made before, too. */
        if (way == 1) CHECK_OK(bolmo_session_logits(session, 0.0f, logits, LOGITS));
        CHECK_OK(bolmo_session_checkpoint_create(session, &start));
        CHECK_OK(bolmo_generate_options_set_logprobs(options, false));
        CHECK_OK(bolmo_session_generate(session, options, callback, &seen, &without));
        CHECK_OK(bolmo_generation_ids(without, &plain_ids, &plain_count));
        CHECK_OK(bolmo_session_rewind(session, start));
        CHECK_OK(bolmo_generate_options_set_logprobs(options, true));
        seen = 0;
        CHECK_OK(bolmo_session_generate(session, options, callback, &seen, &generation));
        logprobs found = logprobs_of(generation);
        CHECK_BYTES(found.ids, 2 * found.count, plain_ids, 2 * plain_count);
        CHECK_OK(bolmo_generation_stop(generation, &stop));
        CHECK((stop == BOLMO_STOP_CANCELLED) == (way >= 4));
        CHECK((stop == BOLMO_STOP_STRING) == (way == 2 || way == 3));
        size = found.count - (stop == BOLMO_STOP_END);
        CHECK(size > 15);
        check_with_score(session, found, size);
        bolmo_generation_delete(without);
        bolmo_generation_delete(generation);
        bolmo_session_checkpoint_delete(start);
        bolmo_session_delete(session);
    }
    bolmo_constraint_delete(constraint);
    bolmo_generate_options_delete(options);
}

/* The log-probabilities of a score add up to what it reports. */
static void they_add_up(void) {
    const char *text = "class Reader:\n    def read(self, n):\n        return self.buffer[:n]\n";
    uint32_t ids[MOST] = {1};
    size_t count = 1;
    for (; count <= strlen(text); count++) ids[count] = (unsigned char)text[count - 1] + 4u;
    for (int way = 0; way < 2; way++) {
        bolmo_score *score = NULL;
        if (way == 0) CHECK_OK(bolmo_model_score(trained.model, text, strlen(text), NULL, &score));
        else CHECK_OK(bolmo_model_score_ids(trained.model, ids, count, NULL, &score));
        for (int32_t which = BOLMO_LOGPROB_JOINT; which <= BOLMO_LOGPROB_FOLDED; which++) {
            const float *all;
            double sum = 0, total = 0, bytes = 0;
            size_t found = 0;
            CHECK_OK(bolmo_score_logprobs(score, which, &all, &found));
            CHECK_OK(bolmo_score_number(score, BOLMO_SCORE_BYTES, &bytes));
            CHECK((double)found == bytes && found == strlen(text));
            for (size_t i = 0; i < found; i++) sum += all[i];
            CHECK_OK(bolmo_score_number(score, BOLMO_SCORE_LOG_LIKELIHOOD_JOINT + which, &total));
            CHECK(total < -1);
            check_close(sum, total, 1e-6 * fabs(total), (size_t)which, __LINE__);
        }
        bolmo_score_delete(score);
    }
}

static void rejected(void) {
    bolmo_session *session = session_with(trained.model, "ab");
    bolmo_generate_options *options = greedy(3);
    bolmo_generation *without = NULL, *with = NULL;
    bolmo_score *score = NULL;
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_logprobs(handle, true));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &without));
    CHECK_OK(bolmo_generate_options_set_logprobs(options, true));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &with));
    CHECK_OK(bolmo_model_score(trained.model, "ab", 2, NULL, &score));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_generation_logprobs(without, 0, &out.floats, &out.count));
    CHECK_SAYS("bolmo_generate_options_set_logprobs");
    BAD_HANDLES(bolmo_generation, bolmo_generation_logprobs(handle, 0, &out.floats, &out.count));
    BAD_HANDLES(bolmo_score, bolmo_score_logprobs(handle, 0, &out.floats, &out.count));
    REFUSED(bolmo_generation_logprobs(with, 0, NULL, &out.count));
    REFUSED(bolmo_generation_logprobs(with, 0, &out.floats, NULL));
    REFUSED(bolmo_score_logprobs(score, 0, NULL, &out.count));
    REFUSED(bolmo_score_logprobs(score, 0, &out.floats, NULL));
    for (int32_t which = -1; which <= 2; which += 3) {
        REFUSED(bolmo_generation_logprobs(with, which, &out.floats, &out.count));
        REFUSED(bolmo_score_logprobs(score, which, &out.floats, &out.count));
        CHECK_SAYS("bolmo_logprob");
    }
    bolmo_score_delete(score);
    bolmo_generation_delete(with);
    bolmo_generation_delete(without);
    bolmo_generate_options_delete(options);
    bolmo_session_delete(session);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    make_no_handles();
    trained = open_trained();
    they_are_those_of_the_model();
    every_id_has_one();
    they_add_up();
    rejected();
    close_trained(trained);
    delete_no_handles();
    return end("logprobs");
}
