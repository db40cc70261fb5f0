/* Constraints: generated text matches, whatever the model prefers; invalid patterns are rejected; matchers. */
#include "check.h"

static bolmo_constraint *regex(const char *pattern) {
    bolmo_constraint *constraint = NULL;
    CHECK_OK(bolmo_constraint_create_regex(pattern, strlen(pattern), &constraint));
    return constraint;
}

static bolmo_constraint *schema(const char *text) {
    bolmo_constraint *constraint = NULL;
    CHECK_OK(bolmo_constraint_create_json_schema(text, strlen(text), &constraint));
    return constraint;
}

static bool matches(const bolmo_constraint *constraint, const void *text, size_t size) {
    bool yes = false;
    CHECK_OK(bolmo_constraint_matches(constraint, text, size, &yes));
    return yes;
}

/* Generates text after text at several temperatures and seeds, with budgets from the shortest match on. */
static void always_matches(const bolmo_model *model, bolmo_constraint *constraint) {
    const float temperatures[] = {0.0f, 0.8f, 1.5f, 10.0f};
    size_t shortest = 0;
    CHECK_OK(bolmo_constraint_shortest(constraint, &shortest));
    bolmo_session *session = session_with(model, "answer: ");
    bolmo_session_checkpoint *start = NULL;
    CHECK_OK(bolmo_session_checkpoint_create(session, &start));
    for (int i = 0; i < repetitions(16); i++) {
        bolmo_generate_options *options = greedy(shortest + (size_t)(i % 4) * 9 + (shortest == 0));
        bolmo_generation *generation = NULL;
        const uint8_t *data;
        size_t size = 0;
        bool matched = false;
        CHECK_OK(bolmo_generate_options_set_temperature(options, temperatures[i % 4]));
        CHECK_OK(bolmo_generate_options_set_seed(options, (uint64_t)i));
        CHECK_OK(bolmo_generate_options_set_constraint(options, constraint));
        CHECK_OK(bolmo_session_rewind(session, start));
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
        CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
        CHECK_OK(bolmo_generation_matched(generation, &matched));
        if (!matched || !matches(constraint, data, size))
            fail(__FILE__, __LINE__, "seed %d: \"%.*s\" does not match", i, (int)size, (const char *)data);
        bolmo_generation_delete(generation);
        bolmo_generate_options_delete(options);
    }
    bolmo_session_checkpoint_delete(start);
    bolmo_session_delete(session);
    bolmo_constraint_delete(constraint);
}

static void generated_text_matches(const bolmo_model *model) {
    always_matches(model, regex("(yes|no), because [a-z ]{10,60}\\."));
    always_matches(model, regex("[0-9]{4}-[0-9]{2}-[0-9]{2}"));
    always_matches(model, regex("(?s-u:.){7}"));
    always_matches(model, regex("\xc3\xa9+|[\xe4\xb8\x80-\xe9\xbf\xbf]{2}"));
    always_matches(model, regex("a*"));
    always_matches(model, schema("{\"type\": \"boolean\"}"));
    always_matches(model, schema("{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, "
                                 "\"age\": {\"type\": \"integer\"}}, \"required\": [\"name\", \"age\"]}"));
    always_matches(model, schema("{\"enum\": [\"red\", \"green\", 7, null]}"));
}

/* Texts with a single possible match, and the reason why they end. */
static void determined_text_is_complete(const bolmo_model *model) {
    const char *text = "nothing else will do";
    bolmo_constraint *constraint = regex(text);
    bolmo_generate_options *options = greedy(100);
    CHECK_OK(bolmo_generate_options_set_constraint(options, constraint));
    bolmo_constraint_delete(constraint);
    bolmo_session *session = session_with(model, "x");
    bolmo_generation *generation = NULL;
    const uint8_t *data;
    size_t size = 0, length = 0;
    int32_t stop = -1;
    bool matched = false;
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK_BYTES(data, size, text, strlen(text));
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK(stop == BOLMO_STOP_COMPLETE);
    CHECK_OK(bolmo_generation_matched(generation, &matched));
    CHECK(matched);
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK(length == 2 + strlen(text));
    bolmo_generation_delete(generation);

    /* With too small a budget the text ends before it matches, and says so. */
    CHECK_OK(bolmo_generate_options_set_max_bytes(options, 7));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK_BYTES(data, size, text, 7);
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK_OK(bolmo_generation_matched(generation, &matched));
    CHECK(stop == BOLMO_STOP_BUDGET && !matched);
    bolmo_generation_delete(generation);

    /* A text that is cut by a stop string doesn't match either. */
    CHECK_OK(bolmo_generate_options_set_max_bytes(options, 100));
    CHECK_OK(bolmo_generate_options_add_stop(options, "else", 4));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_stop(generation, &stop));
    CHECK_OK(bolmo_generation_matched(generation, &matched));
    CHECK(stop == BOLMO_STOP_STRING && !matched);
    bolmo_generation_delete(generation);

    /* Without a constraint nothing matches. */
    CHECK_OK(bolmo_generate_options_set_constraint(options, NULL));
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    CHECK_OK(bolmo_generation_matched(generation, &matched));
    CHECK(!matched);
    bolmo_generation_delete(generation);
    bolmo_session_delete(session);
    bolmo_generate_options_delete(options);
}

static void refuse_regex(bolmo_status status, const char *pattern) {
    bolmo_constraint *constraint = NULL;
    CHECK_STATUS(status, bolmo_constraint_create_regex(pattern, strlen(pattern), &constraint));
    CHECK(constraint == NULL && strlen(bolmo_last_error_message()) > 0);
}

static void refuse_schema(bolmo_status status, const char *text) {
    bolmo_constraint *constraint = NULL;
    CHECK_STATUS(status, bolmo_constraint_create_json_schema(text, strlen(text), &constraint));
    CHECK(constraint == NULL && strlen(bolmo_last_error_message()) > 0);
}

static void invalid_patterns_are_rejected(void) {
    static char deep[60000];
    refuse_regex(BOLMO_INVALID_ARGUMENT, "(");
    refuse_regex(BOLMO_INVALID_ARGUMENT, "a{3,1}");
    refuse_regex(BOLMO_INVALID_ARGUMENT, "[z-a]");
    refuse_regex(BOLMO_INVALID_ARGUMENT, "[a&&b]");
    /* Automata that would grow without bounds. */
    refuse_regex(BOLMO_UNSUPPORTED, "(a{1000}){1000}");
    refuse_regex(BOLMO_UNSUPPORTED, "(?:[ab]*a[ab]{60})");
    refuse_schema(BOLMO_INVALID_ARGUMENT, "");
    refuse_schema(BOLMO_INVALID_ARGUMENT, "{\"type\": ");
    refuse_schema(BOLMO_INVALID_ARGUMENT, "[]");
    refuse_schema(BOLMO_INVALID_ARGUMENT, "{\"enum\": []}");
    refuse_schema(BOLMO_UNSUPPORTED, "{\"type\": \"string\", \"nosuchkeyword\": 1, \"not\": {\"type\": \"string\"}}");
    /* Nested more deeply than any real schema. */
    memset(deep, '(', sizeof deep - 1);
    bolmo_constraint *constraint = NULL;
    CHECK(bolmo_constraint_create_regex(deep, sizeof deep - 1, &constraint) != BOLMO_OK);
    memset(deep, '[', sizeof deep - 1);
    CHECK(bolmo_constraint_create_json_schema(deep, sizeof deep - 1, &constraint) != BOLMO_OK);
    CHECK(constraint == NULL);
}

static void matchers_follow_a_text(void) {
    bolmo_constraint *constraint = regex("ab?c*(def|g)");
    bolmo_matcher *matcher = NULL, *clone = NULL;
    uint8_t allowed[257];
    size_t shortest = 0;
    bool match = true;
    CHECK_OK(bolmo_constraint_shortest(constraint, &shortest));
    CHECK(shortest == 2);
    CHECK(matches(constraint, "abccdef", 7) && matches(constraint, "ag", 2));
    CHECK(!matches(constraint, "abccde", 6) && !matches(constraint, "xag", 3) && !matches(constraint, "agx", 3));
    CHECK(!matches(constraint, NULL, 0));
    CHECK_OK(bolmo_matcher_create(constraint, &matcher));
    bolmo_constraint_delete(constraint);
    CHECK_OK(bolmo_matcher_allowed(matcher, 0, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 'a'));
    CHECK_OK(bolmo_matcher_advance(matcher, NULL, 0));
    CHECK_OK(bolmo_matcher_advance(matcher, "a", 1));
    CHECK_OK(bolmo_matcher_allowed(matcher, 0, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 'b' || i == 'c' || i == 'd' || i == 'g'));
    /* Within one byte only g completes a match, within two also bytes before it; if none can, all are allowed. */
    CHECK_OK(bolmo_matcher_allowed(matcher, 1, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 'g'));
    CHECK_OK(bolmo_matcher_allowed(matcher, 2, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 'b' || i == 'c' || i == 'g'));
    CHECK_OK(bolmo_matcher_allowed(matcher, SIZE_MAX, allowed));
    CHECK(allowed['d'] == 1);
    /* A byte that isn't allowed changes nothing, not even partially. */
    CHECK_INVALID(bolmo_matcher_advance(matcher, "cx", 2));
    CHECK_OK(bolmo_matcher_clone(matcher, &clone));
    CHECK_OK(bolmo_matcher_advance(matcher, "bg", 2));
    CHECK_OK(bolmo_matcher_is_match(matcher, &match));
    CHECK(match);
    CHECK_OK(bolmo_matcher_allowed(matcher, 0, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 256));
    CHECK_OK(bolmo_matcher_is_match(clone, &match));
    CHECK(!match);
    CHECK_OK(bolmo_matcher_advance(clone, "de", 2));
    CHECK_OK(bolmo_matcher_allowed(clone, 0, allowed));
    for (int i = 0; i < 257; i++) CHECK(allowed[i] == (i == 'f'));
    bolmo_matcher_delete(matcher);
    CHECK_OK(bolmo_matcher_advance(clone, "f", 1));
    bolmo_matcher_delete(clone);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    matchers_follow_a_text();
    invalid_patterns_are_rejected();
    trained_model trained = open_trained();
    determined_text_is_complete(trained.model);
    generated_text_matches(trained.model);
    close_trained(trained);
    return end("constraint");
}
