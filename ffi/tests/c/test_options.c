/* Options for generating: values out of range change nothing, and options may be changed or deleted while they are
   used. */
#include "refuse.h"

static bolmo_generate_options *options;
static const bolmo_model *model;
static uint8_t before[4096];
static size_t before_size;

/* The text that the options lead to, which shows their values. */
static size_t text_of(uint8_t *text) {
    bolmo_session *session = session_with(model, "def ");
    size_t size = generate(session, options, text);
    bolmo_session_delete(session);
    return size;
}

static void check_unchanged(void) {
    uint8_t text[4096];
    CHECK_BYTES(text, text_of(text), before, before_size);
}

static void values_out_of_range_change_nothing(void) {
    static char long_stop[5000];
    const float not_a_number = 0.0f / 0.0f, infinite = 1.0f / 0.0f;
    const float bad_temperatures[] = {-0.1f, not_a_number, infinite, -infinite};
    const float bad_shares[] = {-0.1f, 1.1f, not_a_number, infinite};
    for (int i = 0; i < 4; i++) {
        REFUSED(bolmo_generate_options_set_temperature(options, bad_temperatures[i]));
        CHECK_SAYS("temperature");
        REFUSED(bolmo_generate_options_set_top_p(options, bad_shares[i]));
        CHECK_SAYS("top_p");
        REFUSED(bolmo_generate_options_set_min_p(options, bad_shares[i]));
        CHECK_SAYS("min_p");
        REFUSED(bolmo_generate_options_set_repetition_penalty(options, bad_temperatures[i], 3));
        CHECK_SAYS("repetition_penalty");
    }
    REFUSED(bolmo_generate_options_set_top_p(options, 0.0f));
    REFUSED(bolmo_generate_options_set_repetition_penalty(options, 0.0f, 3));
    const float not_finite[] = {not_a_number, infinite, -infinite};
    for (int i = 0; i < 3; i++) {
        REFUSED(bolmo_generate_options_set_byte_bias(options, 'e', not_finite[i]));
        CHECK_SAYS("byte_bias");
        REFUSED(bolmo_generate_options_set_end_bias(options, not_finite[i]));
        REFUSED(bolmo_generate_options_set_boundary_bias(options, not_finite[i]));
    }
    REFUSED(bolmo_generate_options_set_max_bytes(options, 0));
    CHECK_SAYS("max_bytes");
    REFUSED(bolmo_generate_options_add_stop(options, "", 0));
    REFUSED(bolmo_generate_options_add_stop(options, NULL, 0));
    REFUSED(bolmo_generate_options_add_stop(options, NULL, 1));
    REFUSED(bolmo_generate_options_add_stop(options, "a", SIZE_MAX));
    memset(long_stop, 'e', sizeof long_stop);
    REFUSED(bolmo_generate_options_add_stop(options, long_stop, sizeof long_stop));
    REFUSED(bolmo_generate_options_create(NULL));
}

static void handles(void) {
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_max_bytes(handle, 1));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_temperature(handle, 1.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_top_k(handle, 1));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_top_p(handle, 1.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_min_p(handle, 0.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_repetition_penalty(handle, 1.0f, 1));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_byte_bias(handle, 0, 0.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_end_bias(handle, 0.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_boundary_bias(handle, 0.0f));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_seed(handle, 0));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_add_stop(handle, "a", 1));
    BAD_HANDLES(bolmo_generate_options, bolmo_generate_options_set_constraint(handle, NULL));
    BAD_HANDLES_FROM(1, bolmo_constraint, bolmo_generate_options_set_constraint(options, handle));
    BAD_DELETES(bolmo_generate_options, bolmo_generate_options_delete);
}

static int calls;

static int32_t change_options(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)size, (void)ids;
    bolmo_generate_options *used = user_data;
    /* The options were read when the call began. */
    if (calls == 0) CHECK_OK(bolmo_generate_options_set_max_bytes(used, 3));
    if (calls == 1) bolmo_generate_options_delete(used);
    if (calls == 2) CHECK_INVALID(bolmo_generate_options_set_max_bytes(used, 4));
    calls++;
    return 0;
}

static void options_may_change_while_they_are_used(void) {
    bolmo_session *session = session_with(model, "def ");
    /* Long enough for several chunks, which come one patch at a time. */
    bolmo_generate_options *used = greedy(60);
    bolmo_generation *generation = NULL;
    const uint8_t *data;
    size_t size = 0;
    CHECK_OK(bolmo_session_generate(session, used, change_options, used, &generation));
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK(size == 60 && calls >= 3);
    CHECK_INVALID(bolmo_session_generate(session, used, NULL, NULL, NULL));
    bolmo_generation_delete(generation);
    bolmo_session_delete(session);
}

/* The effect of each option, where it is visible. */
static void options_have_their_effects(void) {
    uint8_t text[4096], other[4096];
    size_t size;
    CHECK_OK(bolmo_generate_options_set_max_bytes(options, 60));
    size_t greedy_size = text_of(other);
    CHECK(greedy_size == 60);
    /* A stop string inside the expected text ends the text before it. */
    CHECK_OK(bolmo_generate_options_add_stop(options, other + 30, 4));
    size = text_of(text);
    CHECK(size <= 30 && memcmp(text, other, size) == 0);
    bolmo_generate_options_delete(options);

    options = greedy(60);
    CHECK_OK(bolmo_generate_options_set_end_bias(options, 1e6f));
    CHECK(text_of(text) == 0);
    CHECK_OK(bolmo_generate_options_set_end_bias(options, 0.0f));
    CHECK_OK(bolmo_generate_options_set_byte_bias(options, 'Q', 1e6f));
    CHECK(text_of(text) == 60);
    for (int i = 0; i < 60; i++) CHECK(text[i] == 'Q');
    CHECK_OK(bolmo_generate_options_set_byte_bias(options, 'Q', 0.0f));
    CHECK_BYTES(text, text_of(text), other, greedy_size);
    /* Equal seeds draw equally; a single candidate is always drawn. */
    CHECK_OK(bolmo_generate_options_set_temperature(options, 1.0f));
    CHECK_OK(bolmo_generate_options_set_seed(options, 7));
    size = text_of(text);
    CHECK_BYTES(other, text_of(other), text, size);
    CHECK_OK(bolmo_generate_options_set_seed(options, 8));
    CHECK(text_of(other) != size || memcmp(other, text, size) != 0);
    CHECK_OK(bolmo_generate_options_set_top_k(options, 1));
    size = text_of(text);
    CHECK_OK(bolmo_generate_options_set_top_k(options, 0));
    CHECK_OK(bolmo_generate_options_set_min_p(options, 1.0f));
    CHECK(text_of(other) == size);
    CHECK_OK(bolmo_generate_options_set_min_p(options, 0.0f));
    CHECK_OK(bolmo_generate_options_set_top_p(options, 1e-9f));
    CHECK(text_of(other) == size);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    make_no_handles();
    trained_model trained = open_trained();
    model = trained.model;
    options = greedy(24);
    CHECK_OK(bolmo_generate_options_set_temperature(options, 0.7f));
    CHECK_OK(bolmo_generate_options_set_seed(options, 3));
    before_size = text_of(before);
    values_out_of_range_change_nothing();
    handles();
    check_unchanged();
    /* At most 64 stop strings. */
    for (int i = 0; i < 64; i++) CHECK_OK(bolmo_generate_options_add_stop(options, "\x01\x02\x03", 3));
    REFUSED(bolmo_generate_options_add_stop(options, "\x01", 1));
    CHECK_SAYS("64");
    check_unchanged();
    bolmo_generate_options_delete(options);
    options_may_change_while_they_are_used();
    options = greedy(60);
    options_have_their_effects();
    bolmo_generate_options_delete(options);
    close_trained(trained);
    delete_no_handles();
    return end("options");
}
