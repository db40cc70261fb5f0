/* bolmo_model_session_bytes and bolmo_checkpoint_session_bytes: never less than what sessions take as they grow. */
#include "check.h"

/* Device memory of the session and its number of patches, which it compares with what was said. */
static void compare(const trained_model *trained, const bolmo_session *session) {
    size_t patches = 0;
    uint64_t held = 0, model_bytes = 0, any_bytes = 0;
    CHECK_OK(bolmo_session_patches(session, &patches));
    CHECK_OK(bolmo_session_device_bytes(session, &held));
    CHECK_OK(bolmo_model_session_bytes(trained->model, patches, &model_bytes));
    CHECK_OK(bolmo_checkpoint_session_bytes(trained->checkpoint, patches, &any_bytes));
    if (held > model_bytes || model_bytes > any_bytes) {
        fail(__FILE__, __LINE__, "%zu patches: %" PRIu64 " bytes held, %" PRIu64 " on this device, %" PRIu64 " on any",
             patches, held, model_bytes, any_bytes);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    trained_model trained = open_trained();
    uint64_t per_patch = 0, state = 0, few = 0, many = 0, most = 0, work = 0, any_work = 0;
    CHECK_OK(bolmo_model_number(trained.model, BOLMO_MODEL_PATCH_BYTES, &per_patch));
    CHECK_OK(bolmo_model_number(trained.model, BOLMO_MODEL_STATE_BYTES, &state));
    CHECK_OK(bolmo_model_number(trained.model, BOLMO_MODEL_WORK_BYTES, &work));
    CHECK_OK(bolmo_checkpoint_number(trained.checkpoint, BOLMO_MODEL_WORK_BYTES, &any_work));
    CHECK(work > 0 && work <= any_work);
    CHECK_OK(bolmo_model_session_bytes(trained.model, 0, &few));
    CHECK(few > state);
    CHECK_OK(bolmo_model_session_bytes(trained.model, 1000, &many));
    /* 1024 patches, and 512 that are copied. */
    CHECK(many >= few + 1536 * per_patch && many < few + 2600 * per_patch);
    CHECK_OK(bolmo_model_session_bytes(trained.model, SIZE_MAX, &most));
    CHECK(most > UINT64_MAX / 2);

    static char text[20000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i * 7 % 26);
    bolmo_session *session = session_with(trained.model, "");
    bolmo_generate_options *options = greedy(16);
    compare(&trained, session);
    size_t size = (size_t)repetitions((int)sizeof text);
    for (size_t at = 0; at < size; at += 500) {
        CHECK_OK(bolmo_session_append(session, text + at, size - at < 500 ? size - at : 500, NULL, NULL));
        compare(&trained, session);
        CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, NULL));
        compare(&trained, session);
    }
    bolmo_session *clone = NULL;
    CHECK_OK(bolmo_session_clone(session, &clone));
    CHECK_OK(bolmo_session_append(clone, text, 500, NULL, NULL));
    compare(&trained, clone);
    bolmo_session_delete(clone);
    bolmo_session_delete(session);
    bolmo_generate_options_delete(options);
    close_trained(trained);
    return end("memory");
}
