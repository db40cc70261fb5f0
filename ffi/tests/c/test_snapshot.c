/* Snapshots: restored sessions continue as if never interrupted, and damaged snapshots are rejected. Damage under a
   valid checksum is tested in ../snapshots.rs. */
#include "check.h"

static uint64_t random_state = 1;

static uint64_t random_number(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return random_state >> 33;
}

/* A copy of the session's snapshot. The caller frees it. */
static uint8_t *snapshot_of(bolmo_session *session, size_t *size) {
    bolmo_bytes *bytes = NULL;
    const uint8_t *data;
    CHECK_OK(bolmo_session_snapshot(session, &bytes));
    CHECK_OK(bolmo_bytes_get(bytes, &data, size));
    uint8_t *copy = malloc(*size);
    CHECK(copy != NULL);
    memcpy(copy, data, *size);
    bolmo_bytes_delete(bytes);
    return copy;
}

/* A session restored after `prepare` continues like the original, in its state and its output. */
static void check_continues(const bolmo_model *model, bolmo_session *session, const char *more) {
    static uint16_t ids[2][2000];
    size_t size = 0, length = 0, counts[2], sizes[2];
    uint64_t numbers[2];
    uint8_t texts[2][4096];
    uint8_t *data = snapshot_of(session, &size);
    bolmo_session *restored = NULL;
    CHECK_OK(bolmo_session_restore(model, data, size, &restored));
    bolmo_session *both[2] = {session, restored};
    bolmo_generate_options *options = greedy(24);
    CHECK_OK(bolmo_session_length(session, &length));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(bolmo_session_ids(both[i], 0, ids[i], 2000, &counts[i]));
        CHECK_OK(bolmo_session_patches(both[i], &sizes[i]));
        CHECK_OK(bolmo_session_device_bytes(both[i], &numbers[i]));
    }
    CHECK(counts[0] == length && sizes[0] == sizes[1]);
    CHECK_BYTES(ids[0], 2 * counts[0], ids[1], 2 * counts[1]);
    if (length > 0 || strlen(more) > 0) {
        for (int i = 0; i < 2; i++) {
            CHECK_OK(bolmo_session_append(both[i], more, strlen(more), NULL, NULL));
            sizes[i] = generate(both[i], options, texts[i]);
        }
        CHECK_BYTES(texts[0], sizes[0], texts[1], sizes[1]);
    }
    bolmo_generate_options_delete(options);
    bolmo_session_delete(restored);
    free(data);
}

static void restored_sessions_continue(const bolmo_model *model) {
    bolmo_session *session = NULL;
    float logits[520];
    bolmo_generate_options *options = greedy(5);
    /* Empty, after the first id, after text, with its last byte decided, after generated text, with a chosen id. */
    CHECK_OK(bolmo_session_create(model, &session));
    check_continues(model, session, "");
    CHECK_OK(bolmo_session_append_bos(session));
    check_continues(model, session, "");
    bolmo_session_delete(session);
    for (int more = 0; more < 2; more++) {
        const char *text = more ? " and more" : "";
        session = session_with(model, "class Reader:\n    def ");
        check_continues(model, session, text);
        bolmo_session_delete(session);
        session = session_with(model, "class Reader:\n    def ");
        CHECK_OK(bolmo_session_logits(session, 0.0f, logits, 520));
        check_continues(model, session, text);
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
        check_continues(model, session, text);
        CHECK_OK(bolmo_session_push(session, 80 + 260));
        check_continues(model, session, text);
        bolmo_session_delete(session);
    }
    bolmo_generate_options_delete(options);
}

static void snapshots_of_another_model_are_rejected(trained_model trained, const uint8_t *data, size_t size) {
    bolmo_load_options *options = NULL;
    bolmo_model *half = NULL, *again = NULL;
    bolmo_session *session = NULL;
    CHECK_OK(bolmo_load_options_create(&options));
    CHECK_OK(bolmo_load_options_set_format(options, BOLMO_F16));
    CHECK_OK(bolmo_model_load(trained.engine, trained.checkpoint, options, &half));
    CHECK_INVALID(bolmo_session_restore(half, data, size, &session));
    CHECK_SAYS("another model");
    CHECK(session == NULL);
    /* The same files loaded again, also on another engine, are the same model. */
    bolmo_engine *engine = open_engine();
    CHECK_OK(bolmo_model_load(engine, trained.checkpoint, NULL, &again));
    CHECK_OK(bolmo_session_restore(again, data, size, &session));
    bolmo_session_delete(session);
    bolmo_model_delete(again);
    bolmo_engine_delete(engine);
    bolmo_model_delete(half);
    bolmo_load_options_delete(options);
}

static void check_refused(const bolmo_model *model, const uint8_t *data, size_t size) {
    bolmo_session *session = NULL;
    bolmo_status status = bolmo_session_restore(model, data, size, &session);
    /* A version or a model of its own is not damage. */
    CHECK(status == BOLMO_BAD_CHECKPOINT || status == BOLMO_INVALID_ARGUMENT);
    CHECK(session == NULL);
    CHECK_SAYS("snapshot");
}

static void damaged_snapshots_are_rejected(const bolmo_model *model, uint8_t *data, size_t size) {
    size_t step = slow_factor() > 1.0 ? 97 : 1;
    for (size_t cut = 0; cut < size; cut += step) {
        /* A buffer of exactly that size, so that a sanitizer sees every byte beyond it. */
        uint8_t *part = malloc(cut + 1);
        CHECK(part != NULL);
        memcpy(part + 1, data, cut);
        check_refused(model, part + 1, cut);
        free(part);
    }
    for (size_t at = 0; at < size; at += at < 200 ? 1 : step) {
        uint8_t before = data[at];
        data[at] ^= (uint8_t)(1 + random_number() % 255);
        check_refused(model, data, size);
        data[at] = before;
    }
    uint8_t *longer = malloc(size + 8);
    CHECK(longer != NULL);
    memcpy(longer, data, size);
    memset(longer + size, 0, 8);
    for (size_t more = 1; more <= 8; more++) check_refused(model, longer, size + more);
    free(longer);
    printf("snapshot of %zu bytes: every %zu. cut and changed byte refused\n", size, step);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained_model trained = open_trained();
    restored_sessions_continue(trained.model);
    bolmo_session *session = session_with(trained.model, "class Reader:\n    def ");
    size_t size;
    uint8_t *data = snapshot_of(session, &size);
    bolmo_session_delete(session);
    snapshots_of_another_model_are_rejected(trained, data, size);
    damaged_snapshots_are_rejected(trained.model, data, size);
    free(data);
    close_trained(trained);
    return end("snapshot");
}
