/* For tests of rejected calls: places for results that must not change, and invalid handles. */
#ifndef REFUSE_H
#define REFUSE_H

#include "check.h"

/* A place for every kind of result. */
typedef struct {
    bolmo_adapters *adapters;
    bolmo_bytes *bytes;
    bolmo_checkpoint *checkpoint;
    bolmo_checkpoint_builder *builder;
    bolmo_constraint *constraint;
    bolmo_engine *engine;
    bolmo_engine_options *engine_options;
    bolmo_generate_options *options;
    bolmo_generation *generation;
    bolmo_load_options *load_options;
    bolmo_matcher *matcher;
    bolmo_merge_options *merge_options;
    bolmo_model *model;
    bolmo_sampler *sampler;
    bolmo_score *score;
    bolmo_score_options *score_options;
    bolmo_session *session;
    bolmo_session_checkpoint *session_checkpoint;
    bolmo_trainer *trainer;
    bolmo_trainer_options *trainer_options;
    bolmo_utf8 *utf8;
    const char *text;
    const uint8_t *data;
    const uint16_t *id_list;
    const float *floats;
    size_t size, count, columns;
    uint64_t number;
    double real;
    int32_t integer;
    uint16_t ids[8];
    float logits[520];
    uint8_t flags[257];
    bool yes;
} results;

static results out;

/* Checks that the call returns `status` with a message and changes no result. */
#define REFUSED_WITH(status, call)                                                                                     \
    do {                                                                                                               \
        static results before;                                                                                         \
        memset(&before, 0, sizeof before);                                                                             \
        before.size = before.count = 77;                                                                               \
        before.number = 777;                                                                                           \
        memcpy(&out, &before, sizeof out);                                                                             \
        size_t handles = bolmo_handle_count();                                                                         \
        CHECK_STATUS(status, call);                                                                                    \
        if (memcmp(&out, &before, sizeof out) != 0) fail(__FILE__, __LINE__, "%s: a result was written", #call);       \
        if (bolmo_handle_count() != handles) fail(__FILE__, __LINE__, "%s: a handle was made or lost", #call);         \
    } while (0)

#define REFUSED(call) REFUSED_WITH(BOLMO_INVALID_ARGUMENT, call)

/* Invalid handles: NULL first, then a deleted one, one of another type, and numbers. */
#define NO_HANDLES 8
static void *no_handles[NO_HANDLES];
static bolmo_generate_options *of_another_type;
static bolmo_utf8 *of_a_third_type;

static inline void make_no_handles(void) {
    static uint64_t aligned;
    bolmo_utf8 *deleted = NULL;
    CHECK_OK(bolmo_utf8_create(&deleted));
    bolmo_utf8_delete(deleted);
    bolmo_utf8_delete(deleted);
    bolmo_utf8_delete(NULL);
    CHECK_OK(bolmo_generate_options_create(&of_another_type));
    CHECK_OK(bolmo_utf8_create(&of_a_third_type));
    no_handles[0] = NULL;
    no_handles[1] = deleted;
    no_handles[2] = of_another_type;
    no_handles[3] = (void *)(uintptr_t)1;
    no_handles[4] = (void *)UINTPTR_MAX;
    no_handles[5] = &aligned;
    no_handles[6] = (void *)((uintptr_t)of_another_type + 1);
    no_handles[7] = (void *)((uintptr_t)deleted + ((uintptr_t)1 << 40));
}

static inline void delete_no_handles(void) {
    bolmo_generate_options_delete(of_another_type);
    bolmo_utf8_delete(of_a_third_type);
}

/* `call` uses `handle` of `type`; every invalid handle is rejected. FROM is 1 where NULL is allowed. */
#define BAD_HANDLES_FROM(from, type, call)                                                                             \
    for (int bad = from; bad < NO_HANDLES; bad++) {                                                                    \
        void *none = no_handles[bad];                                                                                  \
        if (none == of_another_type && strcmp(#type, "bolmo_generate_options") == 0) none = of_a_third_type;           \
        type *handle = none;                                                                                           \
        REFUSED(call);                                                                                                 \
    }
#define BAD_HANDLES(type, call) BAD_HANDLES_FROM(0, type, call)

/* Deleting an invalid handle does nothing. */
#define BAD_DELETES(type, delete_one)                                                                                  \
    for (int bad = 0; bad < NO_HANDLES; bad++) {                                                                       \
        void *none = no_handles[bad];                                                                                  \
        if (none == of_another_type && strcmp(#type, "bolmo_generate_options") == 0) none = of_a_third_type;           \
        size_t handles = bolmo_handle_count();                                                                         \
        delete_one((type *)none);                                                                                      \
        CHECK(bolmo_handle_count() == handles);                                                                        \
    }

#endif
