/* A device that is destroyed before, between and during calls: BOLMO_DEVICE_LOST from then on, and a new engine works.
 */
#include "check.h"

#define LOST(call)                                                                                                     \
    do {                                                                                                               \
        CHECK_STATUS(BOLMO_DEVICE_LOST, call);                                                                         \
        CHECK_SAYS("lost");                                                                                            \
    } while (0)

/* Everything that needs the device fails; what is known without it is still returned. */
static void check_lost(trained_model trained, bolmo_session *session, bolmo_session_checkpoint *state, const void *data,
                       size_t size) {
    bolmo_model *model = NULL;
    bolmo_session *new_one = NULL;
    bolmo_score *score = NULL;
    bolmo_bytes *bytes = NULL;
    const char *text;
    uint64_t number;
    size_t length = 0;
    LOST(bolmo_model_load(trained.engine, trained.checkpoint, NULL, &model));
    LOST(bolmo_session_create(trained.model, &new_one));
    LOST(bolmo_session_restore(trained.model, data, size, &new_one));
    LOST(bolmo_model_score(trained.model, "text", 4, NULL, &score));
    /* Rewinding comes first: it makes sessions usable again after other failures, but not after this one. */
    LOST(bolmo_session_rewind(session, state));
    LOST(bolmo_session_append(session, "text", 4, NULL, NULL));
    LOST(bolmo_session_generate(session, NULL, NULL, NULL, NULL));
    LOST(bolmo_session_snapshot(session, &bytes));
    CHECK(model == NULL && new_one == NULL && score == NULL && bytes == NULL);
    CHECK_OK(bolmo_engine_text(trained.engine, BOLMO_ADAPTER_NAME, &text, NULL));
    CHECK_OK(bolmo_model_number(trained.model, BOLMO_MODEL_PARAMETERS, &number));
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK(length > 0);
    CHECK_OK(bolmo_engine_destroy_device(trained.engine));
}

typedef struct {
    bolmo_engine *engine;
    size_t at, seen;
} destroyer;

static int32_t destroy_in_piece(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids;
    destroyer *this = user_data;
    this->seen += size;
    if (this->seen == this->at) CHECK_OK(bolmo_engine_destroy_device(this->engine));
    return 0;
}

static int32_t destroy_in_progress(uint64_t done, uint64_t total, void *user_data) {
    destroyer *this = user_data;
    if (done >= this->at && done < total) CHECK_OK(bolmo_engine_destroy_device(this->engine));
    return 0;
}

enum { BETWEEN, IN_GENERATION, IN_APPEND, IN_SCORE, IN_LOAD, WAYS };

static void lose(int way, const void *data, size_t size) {
    trained_model trained = open_trained();
    bolmo_session *session = session_with(trained.model, "class ");
    bolmo_session_checkpoint *state = NULL;
    bolmo_generation *generation = NULL;
    bolmo_score *score = NULL;
    bolmo_model *model = NULL;
    destroyer this = {trained.engine, 3, 0};
    static char text[9000];
    size_t length = 0;
    memset(text, 'a', sizeof text);
    CHECK_OK(bolmo_session_checkpoint_create(session, &state));
    switch (way) {
    case BETWEEN: CHECK_OK(bolmo_engine_destroy_device(trained.engine)); break;
    case IN_GENERATION:
        LOST(bolmo_session_generate(session, NULL, destroy_in_piece, &this, &generation));
        /* The session keeps what the callback received. */
        CHECK(this.seen == 3 && generation == NULL);
        CHECK_OK(bolmo_session_length(session, &length));
        CHECK(length == 7 + 3);
        break;
    case IN_APPEND: LOST(bolmo_session_append(session, text, sizeof text, destroy_in_progress, &this)); break;
    case IN_SCORE: {
        bolmo_score_options *options = NULL;
        CHECK_OK(bolmo_score_options_create(&options));
        CHECK_OK(bolmo_score_options_set_progress(options, destroy_in_progress, &this));
        LOST(bolmo_model_score(trained.model, text, sizeof text, options, &score));
        bolmo_score_options_delete(options);
        break;
    }
    default: {
        bolmo_load_options *options = NULL;
        CHECK_OK(bolmo_load_options_create(&options));
        CHECK_OK(bolmo_load_options_set_progress(options, destroy_in_progress, &this));
        LOST(bolmo_model_load(trained.engine, trained.checkpoint, options, &model));
        bolmo_load_options_delete(options);
    }
    }
    CHECK(score == NULL && model == NULL);
    check_lost(trained, session, state, data, size);

    /* A new engine, and the model loaded again from the same checkpoint. */
    bolmo_engine *engine = open_engine();
    CHECK_OK(bolmo_model_load(engine, trained.checkpoint, NULL, &model));
    bolmo_session *restored = NULL;
    uint8_t out[4096];
    bolmo_generate_options *options = greedy(4);
    CHECK_OK(bolmo_session_restore(model, data, size, &restored));
    CHECK(generate(restored, options, out) > 0);
    /* A checkpoint from the lost device cannot be used here. */
    CHECK_INVALID(bolmo_session_rewind(restored, state));
    bolmo_generate_options_delete(options);
    bolmo_session_delete(restored);
    bolmo_session_delete(session);
    bolmo_session_checkpoint_delete(state);
    bolmo_model_delete(model);
    bolmo_engine_delete(engine);
    close_trained(trained);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained_model trained = open_trained();
    bolmo_session *session = session_with(trained.model, "class ");
    bolmo_bytes *snapshot = NULL;
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_session_snapshot(session, &snapshot));
    CHECK_OK(bolmo_bytes_get(snapshot, &data, &size));
    for (int way = 0; way < WAYS; way++) lose(way, data, size);
    /* Other engines are not affected. */
    bolmo_generate_options *options = greedy(4);
    uint8_t out[4096];
    CHECK(generate(session, options, out) > 0);
    bolmo_generate_options_delete(options);
    bolmo_bytes_delete(snapshot);
    bolmo_session_delete(session);
    close_trained(trained);
    return end("lost");
}
