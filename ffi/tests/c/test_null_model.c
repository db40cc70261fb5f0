/* As test_null.c, for the functions that need a model. */
#include "refuse.h"

static _Alignas(16) uint8_t room[64];
#define ODD ((void *)(room + 1))

static void models(trained_model trained) {
    REFUSED(bolmo_model_load(trained.engine, trained.checkpoint, NULL, NULL));
    REFUSED(bolmo_model_load(trained.engine, trained.checkpoint, NULL, ODD));
    BAD_HANDLES(bolmo_engine, bolmo_model_load(handle, trained.checkpoint, NULL, &out.model));
    BAD_HANDLES(bolmo_checkpoint, bolmo_model_load(trained.engine, handle, NULL, &out.model));
    BAD_HANDLES_FROM(1, bolmo_load_options, bolmo_model_load(trained.engine, trained.checkpoint, handle, &out.model));
    BAD_HANDLES(bolmo_model, bolmo_model_number(handle, 0, &out.number));
    BAD_HANDLES(bolmo_model, bolmo_model_device_bytes(handle, &out.number));
    BAD_HANDLES(bolmo_model, bolmo_model_mapped_bytes(handle, &out.number));
    REFUSED(bolmo_model_mapped_bytes(trained.model, NULL));
    BAD_HANDLES(bolmo_engine, bolmo_checkpoint_mapped_bytes(trained.checkpoint, handle, 0, &out.number));
    REFUSED(bolmo_checkpoint_mapped_bytes(trained.checkpoint, trained.engine, 0, NULL));
    BAD_HANDLES(bolmo_model, bolmo_model_session_bytes(handle, 1, &out.number));
    REFUSED(bolmo_model_session_bytes(trained.model, 1, NULL));
    REFUSED(bolmo_model_session_bytes(trained.model, 1, ODD));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_session_bytes(handle, 1, &out.number));
    REFUSED(bolmo_checkpoint_session_bytes(trained.checkpoint, 1, NULL));
    BAD_HANDLES(bolmo_model, bolmo_model_fingerprint(handle, out.flags));
    BAD_HANDLES(bolmo_model, bolmo_model_warning(handle, 0, &out.text, &out.size));
    BAD_HANDLES(bolmo_model, bolmo_session_create(handle, &out.session));
    BAD_HANDLES(bolmo_model, bolmo_session_restore(handle, room, sizeof room, &out.session));
    BAD_HANDLES(bolmo_model, bolmo_model_score(handle, "ab", 2, NULL, &out.score));
    BAD_DELETES(bolmo_model, bolmo_model_delete);
    REFUSED(bolmo_model_number(trained.model, 0, NULL));
    REFUSED(bolmo_model_number(trained.model, 0, ODD));
    REFUSED(bolmo_model_number(trained.model, 11, &out.number));
    REFUSED(bolmo_model_number(trained.model, INT32_MAX, &out.number));
    REFUSED(bolmo_model_device_bytes(trained.model, NULL));
    REFUSED(bolmo_model_fingerprint(trained.model, NULL));
    REFUSED(bolmo_model_warning(trained.model, 0, NULL, &out.size));
    BAD_HANDLES(bolmo_model, bolmo_model_warning_count(handle, &out.size));
    REFUSED(bolmo_model_warning_count(trained.model, NULL));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_model_warning(trained.model, SIZE_MAX, &out.text, &out.size));
    REFUSED(bolmo_engine_text(trained.engine, 0, NULL, &out.size));
    REFUSED(bolmo_engine_text(trained.engine, 5, &out.text, &out.size));
    REFUSED(bolmo_engine_text(trained.engine, 0, &out.text, ODD));
    REFUSED(bolmo_engine_number(trained.engine, 0, NULL));
    REFUSED(bolmo_engine_number(trained.engine, -1, &out.number));
}

static void sessions(const bolmo_model *model) {
    bolmo_session *session = NULL;
    uint32_t ids[] = {80, 81}, bad_ids[] = {80, 2}, large_ids[] = {80, 4000000000u};
    size_t length = 0;
    REFUSED(bolmo_session_create(model, NULL));
    REFUSED(bolmo_session_create(model, ODD));
    CHECK_OK(bolmo_session_create(model, &session));
    BAD_HANDLES(bolmo_session, bolmo_session_clone(handle, &out.session));
    BAD_HANDLES(bolmo_session, bolmo_session_append_bos(handle));
    BAD_HANDLES(bolmo_session, bolmo_session_append(handle, "a", 1, NULL, NULL));
    BAD_HANDLES(bolmo_session, bolmo_session_append_ids(handle, ids, 2, NULL, NULL));
    BAD_HANDLES(bolmo_session, bolmo_session_cancel(handle));
    BAD_HANDLES(bolmo_session, bolmo_session_reset_cancel(handle));
    BAD_HANDLES(bolmo_session, bolmo_session_progress(handle, &out.number, NULL));
    REFUSED(bolmo_session_progress(session, ODD, NULL));
    BAD_HANDLES(bolmo_session, bolmo_session_length(handle, &out.size));
    BAD_HANDLES(bolmo_session, bolmo_session_ids(handle, 0, out.ids, 8, &out.size));
    BAD_HANDLES(bolmo_session, bolmo_session_patches(handle, &out.size));
    BAD_HANDLES(bolmo_session, bolmo_session_device_bytes(handle, &out.number));
    BAD_HANDLES(bolmo_session, bolmo_session_checkpoint_create(handle, &out.session_checkpoint));
    BAD_HANDLES(bolmo_session, bolmo_session_snapshot(handle, &out.bytes));
    BAD_HANDLES(bolmo_session_checkpoint, bolmo_session_rewind(session, handle));
    BAD_HANDLES(bolmo_session, bolmo_session_logits(handle, 0.0f, out.logits, 520));
    BAD_HANDLES(bolmo_session, bolmo_session_push(handle, 80));
    BAD_HANDLES(bolmo_session, bolmo_session_generate(handle, NULL, NULL, NULL, &out.generation));
    BAD_DELETES(bolmo_session, bolmo_session_delete);
    BAD_DELETES(bolmo_session_checkpoint, bolmo_session_checkpoint_delete);

    /* A session without text has nothing to continue. */
    REFUSED(bolmo_session_logits(session, 0.0f, out.logits, 520));
    CHECK_SAYS("empty");
    REFUSED(bolmo_session_push(session, 80));
    REFUSED(bolmo_session_generate(session, NULL, NULL, NULL, &out.generation));
    CHECK_OK(bolmo_session_append(session, NULL, 0, NULL, NULL));
    CHECK_OK(bolmo_session_append_ids(session, NULL, 0, NULL, NULL));
    REFUSED(bolmo_session_append(session, NULL, 1, NULL, NULL));
    REFUSED(bolmo_session_append(session, "a", SIZE_MAX, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, NULL, 1, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, ids, SIZE_MAX, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, ids, SIZE_MAX / 4, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, ODD, 1, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, bad_ids, 2, NULL, NULL));
    REFUSED(bolmo_session_append_ids(session, large_ids, 2, NULL, NULL));
    CHECK_OK(bolmo_session_length(session, &length));
    CHECK(length == 0);
    CHECK_OK(bolmo_session_append_ids(session, ids, 2, NULL, NULL));
    REFUSED(bolmo_session_clone(session, NULL));
    REFUSED(bolmo_session_length(session, NULL));
    REFUSED(bolmo_session_length(session, ODD));
    REFUSED(bolmo_session_ids(session, 0, NULL, 8, &out.size));
    REFUSED(bolmo_session_ids(session, 0, out.ids, 8, NULL));
    REFUSED(bolmo_session_ids(session, 0, ODD, 8, &out.size));
    CHECK_OK(bolmo_session_ids(session, SIZE_MAX, out.ids, 8, &out.size));
    CHECK(out.size == 0);
    CHECK_OK(bolmo_session_ids(session, 0, NULL, 0, &out.size));
    CHECK(out.size == 0);
    CHECK_OK(bolmo_session_ids(session, 1, out.ids, SIZE_MAX, &out.size));
    CHECK(out.size == 1);
    REFUSED(bolmo_session_patches(session, NULL));
    REFUSED(bolmo_session_device_bytes(session, NULL));
    REFUSED(bolmo_session_checkpoint_create(session, NULL));
    REFUSED(bolmo_session_snapshot(session, NULL));
    REFUSED(bolmo_session_restore(model, NULL, 1, &out.session));
    REFUSED(bolmo_session_restore(model, room, SIZE_MAX, &out.session));
    REFUSED(bolmo_session_restore(model, room, sizeof room, NULL));
    REFUSED_WITH(BOLMO_BAD_CHECKPOINT, bolmo_session_restore(model, NULL, 0, &out.session));
    REFUSED_WITH(BOLMO_BAD_CHECKPOINT, bolmo_session_restore(model, room, sizeof room, &out.session));
    REFUSED(bolmo_session_logits(session, 0.0f, NULL, 520));
    REFUSED(bolmo_session_logits(session, 0.0f, out.logits, 519));
    REFUSED(bolmo_session_logits(session, 0.0f / 0.0f, out.logits, 520));
    REFUSED(bolmo_session_logits(session, 0.0f, ODD, 520));
    for (int id = 0; id < 70000; id += id < 530 ? 1 : 6947) {
        int plain = id >= 260 && id < 520 ? id - 260 : id;
        if (id > UINT16_MAX || plain == 1 || (plain >= 4 && plain < 260)) continue;
        REFUSED(bolmo_session_push(session, (uint16_t)id));
    }

    bolmo_generation *generation = NULL;
    BAD_HANDLES_FROM(1, bolmo_generate_options, bolmo_session_generate(session, handle, NULL, NULL, &out.generation));
    REFUSED(bolmo_session_generate(session, NULL, NULL, NULL, ODD));
    bolmo_generate_options *options = greedy(2);
    CHECK_OK(bolmo_session_generate(session, options, NULL, NULL, &generation));
    bolmo_generate_options_delete(options);
    BAD_HANDLES(bolmo_generation, bolmo_generation_stop(handle, &out.integer));
    BAD_HANDLES(bolmo_generation, bolmo_generation_bytes(handle, &out.data, &out.size));
    BAD_HANDLES(bolmo_generation, bolmo_generation_ids(handle, &out.id_list, &out.size));
    BAD_HANDLES(bolmo_generation, bolmo_generation_patches(handle, &out.size));
    BAD_HANDLES(bolmo_generation, bolmo_generation_matched(handle, &out.yes));
    BAD_DELETES(bolmo_generation, bolmo_generation_delete);
    REFUSED(bolmo_generation_stop(generation, NULL));
    REFUSED(bolmo_generation_bytes(generation, NULL, &out.size));
    REFUSED(bolmo_generation_bytes(generation, &out.data, NULL));
    REFUSED(bolmo_generation_ids(generation, NULL, &out.size));
    REFUSED(bolmo_generation_ids(generation, &out.id_list, NULL));
    REFUSED(bolmo_generation_patches(generation, NULL));
    REFUSED(bolmo_generation_matched(generation, NULL));
    bolmo_generation_delete(generation);

    bolmo_bytes *snapshot = NULL;
    CHECK_OK(bolmo_session_snapshot(session, &snapshot));
    REFUSED(bolmo_bytes_get(snapshot, NULL, &out.size));
    REFUSED(bolmo_bytes_get(snapshot, &out.data, NULL));
    bolmo_bytes_delete(snapshot);
    REFUSED(bolmo_bytes_get(snapshot, &out.data, &out.size));
    bolmo_session_delete(session);
    bolmo_session_delete(session);
    REFUSED(bolmo_session_length(session, &out.size));
}

static void samplers(const bolmo_model *model) {
    bolmo_session *session = session_with(model, "ab");
    bolmo_sampler *sampler = NULL;
    float logits[520], faulty[520];
    uint8_t none[257] = {0};
    CHECK_OK(bolmo_session_logits(session, 0.0f, logits, 520));
    memcpy(faulty, logits, sizeof faulty);
    faulty[7] = 0.0f / 0.0f;
    REFUSED(bolmo_sampler_create(NULL, NULL));
    BAD_HANDLES_FROM(1, bolmo_generate_options, bolmo_sampler_create(handle, &out.sampler));
    CHECK_OK(bolmo_sampler_create(NULL, &sampler));
    BAD_HANDLES(bolmo_sampler, bolmo_sampler_choose(handle, session, logits, 520, NULL, out.ids));
    BAD_HANDLES(bolmo_session, bolmo_sampler_choose(sampler, handle, logits, 520, NULL, out.ids));
    BAD_DELETES(bolmo_sampler, bolmo_sampler_delete);
    REFUSED(bolmo_sampler_choose(sampler, session, NULL, 520, NULL, out.ids));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, 519, NULL, out.ids));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, 0, NULL, out.ids));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, SIZE_MAX, NULL, out.ids));
    REFUSED(bolmo_sampler_choose(sampler, session, ODD, 520, NULL, out.ids));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, 520, NULL, NULL));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, 520, NULL, ODD));
    REFUSED(bolmo_sampler_choose(sampler, session, logits, 520, none, out.ids));
    REFUSED_WITH(BOLMO_BAD_CHECKPOINT, bolmo_sampler_choose(sampler, session, faulty, 520, NULL, out.ids));
    bolmo_sampler_delete(sampler);
    bolmo_session_delete(session);
}

static void scores(const bolmo_model *model) {
    bolmo_score_options *options = NULL;
    bolmo_score *score = NULL;
    uint32_t ids[] = {1, 80}, bad_ids[] = {1, 260};
    uint8_t flags[] = {0, 1}, not_a_flag[] = {1, 2};
    REFUSED(bolmo_score_options_create(NULL));
    CHECK_OK(bolmo_score_options_create(&options));
    BAD_HANDLES(bolmo_score_options, bolmo_score_options_set_boundaries(handle, flags, 2));
    BAD_HANDLES(bolmo_score_options, bolmo_score_options_set_tensors(handle, true));
    BAD_HANDLES(bolmo_score_options, bolmo_score_options_set_progress(handle, NULL, NULL));
    BAD_HANDLES_FROM(1, bolmo_score_options, bolmo_model_score(model, "ab", 2, handle, &out.score));
    BAD_HANDLES(bolmo_model, bolmo_model_score_ids(handle, ids, 2, NULL, &out.score));
    BAD_DELETES(bolmo_score_options, bolmo_score_options_delete);
    REFUSED(bolmo_score_options_set_boundaries(options, NULL, 2));
    REFUSED(bolmo_score_options_set_boundaries(options, flags, SIZE_MAX));
    REFUSED(bolmo_score_options_set_boundaries(options, not_a_flag, 2));
    REFUSED(bolmo_model_score(model, NULL, 2, NULL, &out.score));
    REFUSED(bolmo_model_score(model, "", 0, NULL, &out.score));
    REFUSED(bolmo_model_score(model, "ab", SIZE_MAX, NULL, &out.score));
    REFUSED(bolmo_model_score(model, "ab", 2, NULL, NULL));
    REFUSED(bolmo_model_score_ids(model, NULL, 2, NULL, &out.score));
    REFUSED(bolmo_model_score_ids(model, ids, 1, NULL, &out.score));
    REFUSED(bolmo_model_score_ids(model, bad_ids, 2, NULL, &out.score));
    REFUSED(bolmo_model_score_ids(model, ids, SIZE_MAX, NULL, &out.score));
    REFUSED(bolmo_model_score_ids(model, ODD, 2, NULL, &out.score));
    CHECK_OK(bolmo_score_options_set_boundaries(options, flags, 2));
    REFUSED(bolmo_model_score_ids(model, ids, 2, options, &out.score));
    CHECK_SAYS("first position");
    REFUSED(bolmo_model_score(model, "abcdef", 6, options, &out.score));
    CHECK_OK(bolmo_score_options_set_boundaries(options, NULL, 0));
    CHECK_OK(bolmo_model_score_ids(model, ids, 2, options, &score));
    bolmo_score_options_delete(options);
    BAD_HANDLES(bolmo_score, bolmo_score_number(handle, 0, &out.real));
    BAD_HANDLES(bolmo_score, bolmo_score_boundaries(handle, &out.data, &out.size));
    BAD_HANDLES(bolmo_score, bolmo_score_tensor(handle, 0, &out.floats, &out.size, &out.columns));
    BAD_DELETES(bolmo_score, bolmo_score_delete);
    REFUSED(bolmo_score_number(score, 0, NULL));
    REFUSED(bolmo_score_number(score, 6, &out.real));
    REFUSED(bolmo_score_boundaries(score, NULL, &out.size));
    REFUSED(bolmo_score_boundaries(score, &out.data, NULL));
    REFUSED(bolmo_score_tensor(score, 0, NULL, &out.size, &out.columns));
    REFUSED(bolmo_score_tensor(score, 0, &out.floats, NULL, &out.columns));
    REFUSED(bolmo_score_tensor(score, 0, &out.floats, &out.size, NULL));
    bolmo_score_delete(score);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    make_no_handles();
    trained_model trained = open_trained();
    models(trained);
    sessions(trained.model);
    samplers(trained.model);
    scores(trained.model);
    close_trained(trained);
    delete_no_handles();
    return end("null_model");
}
