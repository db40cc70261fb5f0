/* Training: every function called successfully with checks of its results, and every misuse. */
#include "refuse.h"

#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A folder with a tokenizer.json, unless the second argument names one. */
#ifndef BOLMO_TOKENIZER
#define BOLMO_TOKENIZER "tests/golden/infer/subword_tokenizer"
#endif

#define STEPS 40

static const char *tokenizer = BOLMO_TOKENIZER;
static bolmo_engine *engine;

/* A temporary folder of this run. */
static char work[1024];
/* Sentences to memorize, and the same sentences in another order. */
static char text[8192], held_out[2048];

static const char *in_work(const char *name) {
    static char paths[4][2048];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static bool is_there(const char *name) { return access(in_work(name), F_OK) == 0; }

static void write_texts(void) {
    static const char *sentences[] = {"The cat sat on the mat.\n", "A dog ran to the door.\n", "<|endoftext|>\n"};
    for (int i = 0; strlen(text) + 64 < sizeof text; i++) strcat(text, sentences[i % 7 == 6 ? 2 : i % 2]);
    for (int i = 0; strlen(held_out) + 64 < sizeof held_out; i++) strcat(held_out, sentences[i % 3 != 0]);
}

static void set_override(bolmo_trainer_options *options, const char *key, const char *value) {
    char pair[4096];
    snprintf(pair, sizeof pair, "%s=%s", key, value);
    CHECK_OK(bolmo_trainer_options_set_override(options, pair, strlen(pair)));
}

/* Options for a run in the folder `name`, complete except for its model. */
static bolmo_trainer_options *options_of(int32_t kind, const char *name) {
    static const char toml[] = "seed = 7\n"
                               "[model]\n"
                               "[data]\n"
                               "[batch]\nrows = 4\nsubwords = 16\n"
                               "[optimiser]\nsteps = 1\nrate = 1e-2\nwarmup = 0.05\n"
                               "[every]\nevaluate_batches = 2\n";
    char steps[16];
    bolmo_trainer_options *options = NULL;
    CHECK_OK(bolmo_trainer_options_create(&options));
    CHECK_OK(bolmo_trainer_options_set_kind(options, kind));
    CHECK_OK(bolmo_trainer_options_set_config(options, toml, strlen(toml)));
    snprintf(steps, sizeof steps, "%d", STEPS);
    set_override(options, "optimiser.steps", steps);
    set_override(options, "out", in_work(name));
    set_override(options, "data.tokenizer", tokenizer);
    CHECK_OK(bolmo_trainer_options_add_text(options, text, strlen(text)));
    CHECK_OK(bolmo_trainer_options_add_held_out_text(options, held_out, strlen(held_out)));
    return options;
}

/* Options for a new, tiny model. */
static bolmo_trainer_options *small(const char *name) {
    bolmo_trainer_options *options = options_of(BOLMO_TRAIN_SUBWORD, name);
    set_override(options, "model.new", "{ hidden_size = 32, layers = 1, heads = 2, intermediate_size = 64 }");
    return options;
}

static bolmo_trainer *open_trainer(bolmo_trainer_options *options) {
    bolmo_trainer *trainer = NULL;
    CHECK_OK(bolmo_trainer_create(engine, options, &trainer));
    bolmo_trainer_options_delete(options);
    return trainer;
}

/* A number of a JSON object. */
static double number(const char *json, size_t size, const char *key) {
    char copy[4096], name[64];
    CHECK(size > 2 && size < sizeof copy && json[0] == '{' && json[size - 1] == '}');
    memcpy(copy, json, size);
    copy[size] = '\0';
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *at = strstr(copy, name);
    if (at == NULL) fail(__FILE__, __LINE__, "no %s in %s", key, copy);
    return strtod(at + strlen(name), NULL);
}

static double evaluated(bolmo_trainer *trainer, const char *key) {
    bolmo_bytes *metrics = NULL;
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_trainer_evaluate(trainer, &metrics));
    CHECK_OK(bolmo_bytes_get(metrics, &data, &size));
    double value = number((const char *)data, size, key);
    bolmo_bytes_delete(metrics);
    return value;
}

static uint64_t steps_of(const bolmo_trainer *trainer) {
    uint64_t steps = UINT64_MAX;
    CHECK_OK(bolmo_trainer_steps(trainer, &steps));
    return steps;
}

/* What a callback does at a step, and what it has seen. */
typedef struct {
    bolmo_trainer *trainer;
    /* The calls after which it stops, cancels, or tests what another thread may do; 0 for none. */
    int stop_at, cancel_at, thread_at;
    /* The call that suspends the engine, and what another thread does afterwards. */
    int suspend_at;
    void *(*afterwards)(void *);
    pthread_t other;
    int calls;
    double losses[STEPS];
} watch;

static void check_busy(bolmo_trainer *trainer) {
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_step(trainer, 1, NULL, NULL));
    CHECK_SAYS("in use");
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_steps(trainer, &out.number));
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_evaluate(trainer, &out.bytes));
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_save(trainer));
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_export(trainer, "busy", 4));
}

static void *other_thread(void *trainer) {
    check_busy(trainer);
    CHECK_OK(bolmo_trainer_cancel(trainer));
    return NULL;
}

static int32_t see(const char *metrics, size_t size, void *user_data) {
    watch *this = user_data;
    pthread_t thread;
    int call = ++this->calls;
    CHECK(call <= STEPS);
    this->losses[call - 1] = number(metrics, size, "loss");
    CHECK(number(metrics, size, "step") >= call && number(metrics, size, "bits_per_byte") > 0);
    if (call == 1) check_busy(this->trainer);
    if (call == this->cancel_at) CHECK_OK(bolmo_trainer_cancel(this->trainer));
    if (call == this->thread_at) {
        CHECK(pthread_create(&thread, NULL, other_thread, this->trainer) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    if (call == this->suspend_at) {
        CHECK_OK(bolmo_engine_suspend(engine));
        CHECK(pthread_create(&this->other, NULL, this->afterwards, this->trainer) == 0);
    }
    return call == this->stop_at;
}

static void *resume_later(void *trainer) {
    struct timespec time = {0, 50000000};
    nanosleep(&time, NULL);
    /* The next step waits. */
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_steps(trainer, &out.number));
    CHECK_OK(bolmo_engine_resume(engine));
    return NULL;
}

static void *cancel_later(void *trainer) {
    struct timespec time = {0, 50000000};
    nanosleep(&time, NULL);
    CHECK_OK(bolmo_trainer_cancel(trainer));
    return NULL;
}

/* Runs steps with the given actions. */
#define STEP(status, count, seen) CHECK_STATUS(status, bolmo_trainer_step((seen)->trainer, count, see, seen))

static double mean(const double *values, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += values[i];
    return sum / count;
}

/* The losses fall; a snapshot continues exactly as the run did; the exported model is the trained one. */
static void losses_fall_and_snapshots_continue(void) {
    bolmo_trainer_options *options = small("run");
    watch seen = {.trainer = open_trainer(options)};
    CHECK(steps_of(seen.trainer) == 0);
    double before = evaluated(seen.trainer, "loss");
    STEP(BOLMO_OK, 30, &seen);
    CHECK(seen.calls == 30 && steps_of(seen.trainer) == 30);
    double first = mean(seen.losses, 5), last = mean(seen.losses + 25, 5);
    printf("loss %g, then %g\n", first, last);
    CHECK(last < 0.7 * first && evaluated(seen.trainer, "loss") < 0.8 * before);
    CHECK_OK(bolmo_trainer_save(seen.trainer));
    CHECK(is_there("run/snapshots/step-00000030/state.json"));
    seen.calls = 0;
    STEP(BOLMO_OK, 4, &seen);

    /* From the snapshot, with an engine that is deleted at once. */
    options = small("run");
    bolmo_engine *own = open_engine();
    watch again = {.trainer = NULL};
    /* A folder has one trainer at a time. */
    REFUSED_WITH(BOLMO_BUSY, bolmo_trainer_create(own, options, &out.trainer));
    CHECK_SAYS("in use by process");
    bolmo_trainer_delete(seen.trainer);
    REFUSED(bolmo_trainer_create(own, options, &out.trainer));
    CHECK_SAYS("holds a run already");
    CHECK_OK(bolmo_trainer_options_set_resume(options, 1));
    CHECK_OK(bolmo_trainer_create(own, options, &again.trainer));
    bolmo_trainer_options_delete(options);
    bolmo_engine_delete(own);
    CHECK(steps_of(again.trainer) == 30);
    STEP(BOLMO_OK, 4, &again);
    CHECK(again.calls == 4 && memcmp(seen.losses, again.losses, 4 * sizeof *seen.losses) == 0);
    seen.trainer = again.trainer;

    /* No steps are left after the end of the schedule. */
    seen.calls = 0;
    STEP(BOLMO_OK, UINT64_MAX, &seen);
    CHECK(seen.calls == STEPS - 34 && steps_of(seen.trainer) == STEPS);
    CHECK_OK(bolmo_trainer_step(seen.trainer, 1, NULL, NULL));
    CHECK(steps_of(seen.trainer) == STEPS);

    CHECK_OK(bolmo_trainer_export(seen.trainer, in_work("subword"), strlen(in_work("subword"))));
    CHECK_OK(bolmo_trainer_export(seen.trainer, in_work("subword"), strlen(in_work("subword"))));
    CHECK(is_there("subword/config.json") && is_there("subword/tokenizer.json"));
    options = options_of(BOLMO_TRAIN_SUBWORD, "further");
    set_override(options, "model.source", in_work("subword"));
    bolmo_trainer *further = open_trainer(options);
    CHECK(evaluated(further, "loss") == evaluated(seen.trainer, "loss"));
    bolmo_trainer_delete(further);
    bolmo_trainer_delete(seen.trainer);
}

/* The exported model as the source of a byte-level one, which then loads and generates. */
static void both_stages_make_a_byte_level_model(void) {
    bolmo_trainer_options *options = options_of(BOLMO_TRAIN_STAGE1, "stage1");
    set_override(options, "model.source", in_work("subword"));
    set_override(options, "model.local",
                 "{ encoder_layers = 1, decoder_layers = 1, heads = 2, intermediate_size = 64 }");
    bolmo_trainer *trainer = open_trainer(options);
    CHECK_OK(bolmo_trainer_step(trainer, 2, NULL, NULL));
    CHECK(evaluated(trainer, "bytes_per_patch") >= 1);
    CHECK_OK(bolmo_trainer_export(trainer, in_work("bytes"), strlen(in_work("bytes"))));
    bolmo_trainer_delete(trainer);

    bolmo_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    uint8_t written[4096];
    CHECK_OK(bolmo_checkpoint_open(in_work("bytes"), strlen(in_work("bytes")), &checkpoint));
    CHECK_OK(bolmo_model_load(engine, checkpoint, NULL, &model));
    bolmo_session *session = session_with(model, "The cat");
    bolmo_generate_options *bytes = greedy(4);
    CHECK(generate(session, bytes, written) <= 4);
    bolmo_generate_options_delete(bytes);
    bolmo_session_delete(session);
    bolmo_model_delete(model);
    bolmo_checkpoint_delete(checkpoint);
}

static void steps_can_be_stopped(void) {
    watch seen = {.trainer = open_trainer(small("stopped")), .stop_at = 2};
    STEP(BOLMO_CANCELLED, 5, &seen);
    CHECK_SAYS("3 steps left");
    CHECK(steps_of(seen.trainer) == 2);
    /* At the end nothing is left to stop, and no request remains for the next call. */
    seen = (watch){.trainer = seen.trainer, .stop_at = 2};
    STEP(BOLMO_OK, 2, &seen);
    seen = (watch){.trainer = seen.trainer, .cancel_at = 1};
    STEP(BOLMO_CANCELLED, 5, &seen);
    CHECK(steps_of(seen.trainer) == 5);
    seen = (watch){.trainer = seen.trainer, .thread_at = 3};
    STEP(BOLMO_CANCELLED, 5, &seen);
    CHECK(steps_of(seen.trainer) == 8);
    /* A request that comes too late for a call hits the next one, unless it is withdrawn. */
    seen = (watch){.trainer = seen.trainer, .cancel_at = 1};
    STEP(BOLMO_OK, 1, &seen);
    STEP(BOLMO_OK, 0, &seen);
    STEP(BOLMO_CANCELLED, 1, &seen);
    CHECK(steps_of(seen.trainer) == 9);
    CHECK_OK(bolmo_trainer_cancel(seen.trainer));
    CHECK_OK(bolmo_trainer_reset_cancel(seen.trainer));
    STEP(BOLMO_OK, 1, &seen);
    CHECK(steps_of(seen.trainer) == 10);
    /* Nothing was saved, so the folder is free. */
    CHECK(!is_there("stopped/snapshots"));
    bolmo_trainer_delete(seen.trainer);
}

static void steps_pause_with_the_engine(void) {
    watch wanted = {.trainer = open_trainer(small("undisturbed"))};
    STEP(BOLMO_OK, 6, &wanted);
    watch seen = {.trainer = open_trainer(small("suspended")), .suspend_at = 2, .afterwards = resume_later};
    STEP(BOLMO_OK, 4, &seen);
    CHECK(pthread_join(seen.other, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(seen.losses[i] == wanted.losses[i]);
    seen = (watch){.trainer = seen.trainer, .suspend_at = 1, .afterwards = cancel_later};
    STEP(BOLMO_CANCELLED, 2, &seen);
    CHECK_SAYS("1 steps left");
    CHECK(pthread_join(seen.other, NULL) == 0);
    CHECK(seen.losses[0] == wanted.losses[4]);
    /* Calls that begin while the engine is suspended change nothing. */
    REFUSED_WITH(BOLMO_SUSPENDED, bolmo_trainer_step(seen.trainer, 1, NULL, NULL));
    REFUSED_WITH(BOLMO_SUSPENDED, bolmo_trainer_evaluate(seen.trainer, &out.bytes));
    REFUSED_WITH(BOLMO_SUSPENDED, bolmo_trainer_save(seen.trainer));
    REFUSED_WITH(BOLMO_SUSPENDED, bolmo_trainer_export(seen.trainer, in_work("none"), strlen(in_work("none"))));
    bolmo_trainer_options *options = small("refused");
    REFUSED_WITH(BOLMO_SUSPENDED, bolmo_trainer_create(engine, options, &out.trainer));
    bolmo_trainer_options_delete(options);
    CHECK(!is_there("none") && steps_of(seen.trainer) == 5);
    CHECK_OK(bolmo_engine_resume(engine));
    seen = (watch){.trainer = seen.trainer};
    STEP(BOLMO_OK, 1, &seen);
    CHECK(seen.losses[0] == wanted.losses[5]);
    bolmo_trainer_delete(seen.trainer);
    bolmo_trainer_delete(wanted.trainer);
}

static void wrong_options_are_rejected(void) {
    bolmo_trainer_options *options = NULL;
    REFUSED(bolmo_trainer_options_create(NULL));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_set_kind(handle, BOLMO_TRAIN_STAGE2));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_set_config(handle, "a", 1));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_set_override(handle, "a=1", 3));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_add_text(handle, "a", 1));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_add_held_out_text(handle, "a", 1));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_options_set_resume(handle, 1));
    BAD_DELETES(bolmo_trainer_options, bolmo_trainer_options_delete);

    CHECK_OK(bolmo_trainer_options_create(&options));
    REFUSED(bolmo_trainer_options_set_kind(options, -1));
    REFUSED(bolmo_trainer_options_set_kind(options, 3));
    REFUSED(bolmo_trainer_options_set_config(options, NULL, 1));
    REFUSED(bolmo_trainer_options_set_config(options, "\xff", 1));
    CHECK_SAYS("UTF-8");
    REFUSED(bolmo_trainer_options_set_override(options, NULL, 1));
    REFUSED(bolmo_trainer_options_set_override(options, "seed", 4));
    CHECK_SAYS("key=value");
    REFUSED(bolmo_trainer_options_set_override(options, "", 0));
    REFUSED(bolmo_trainer_options_add_text(options, NULL, 1));
    REFUSED(bolmo_trainer_options_add_text(options, "a\xc3", 2));
    REFUSED(bolmo_trainer_options_add_text(options, "a", SIZE_MAX));
    REFUSED(bolmo_trainer_options_add_held_out_text(options, NULL, 1));
    REFUSED(bolmo_trainer_options_add_held_out_text(options, "\xff", 1));

    /* Missing settings are named one after the other. */
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("bolmo_trainer_options_set_kind");
    CHECK_OK(bolmo_trainer_options_set_kind(options, BOLMO_TRAIN_SUBWORD));
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("bolmo_trainer_options_set_config");
    CHECK_OK(bolmo_trainer_options_set_config(options, "", 0));
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("out");
    CHECK_OK(bolmo_trainer_options_set_config(options, "[model", 6));
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    const char *toml = "out = 'nowhere'\n[model]\n[data]\n[optimiser]\nsteps = 1\nrate = 0.1\n";
    CHECK_OK(bolmo_trainer_options_set_config(options, toml, strlen(toml)));
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("nothing to train on");
    bolmo_trainer_options_delete(options);

    options = small("refused");
    REFUSED(bolmo_trainer_create(NULL, options, &out.trainer));
    REFUSED(bolmo_trainer_create(engine, NULL, &out.trainer));
    REFUSED(bolmo_trainer_create(engine, options, NULL));
    BAD_HANDLES(bolmo_engine, bolmo_trainer_create(handle, options, &out.trainer));
    BAD_HANDLES(bolmo_trainer_options, bolmo_trainer_create(engine, handle, &out.trainer));
    set_override(options, "data.tokenizer", in_work("nowhere"));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("tokenizer.json");
    set_override(options, "optimiser.stpes", "3");
    REFUSED(bolmo_trainer_create(engine, options, &out.trainer));
    CHECK_SAYS("stpes");
    CHECK(!is_there("refused"));
    bolmo_trainer_options_delete(options);
}

static void misuse_is_rejected(void) {
    static uint8_t room[64];
    make_no_handles();
    wrong_options_are_rejected();
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_step(handle, 1, NULL, NULL));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_cancel(handle));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_reset_cancel(handle));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_steps(handle, &out.number));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_evaluate(handle, &out.bytes));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_save(handle));
    BAD_HANDLES(bolmo_trainer, bolmo_trainer_export(handle, "a", 1));
    BAD_DELETES(bolmo_trainer, bolmo_trainer_delete);

    bolmo_trainer *trainer = open_trainer(small("refused"));
    REFUSED(bolmo_trainer_steps(trainer, NULL));
    REFUSED(bolmo_trainer_steps(trainer, (uint64_t *)(void *)(room + 1)));
    REFUSED(bolmo_trainer_evaluate(trainer, NULL));
    REFUSED(bolmo_trainer_export(trainer, NULL, 1));
    REFUSED(bolmo_trainer_export(trainer, "", 0));
    REFUSED(bolmo_trainer_export(trainer, "a\0b", 3));
    CHECK(mkdir(in_work("full"), 0755) == 0);
    FILE *file = fopen(in_work("full/notes.txt"), "wb");
    CHECK(file != NULL && fputs("mine\n", file) >= 0 && fclose(file) == 0);
    REFUSED(bolmo_trainer_export(trainer, in_work("full"), strlen(in_work("full"))));
    CHECK(is_there("full/notes.txt"));
    bolmo_trainer_delete(trainer);
    delete_no_handles();
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)kind, (void)place;
    return remove(path);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    if (argc > 2) tokenizer = argv[2];
    const char *temporary = getenv("TMPDIR");
    snprintf(work, sizeof work, "%s/bolmo-train-XXXXXX", temporary == NULL ? "/tmp" : temporary);
    CHECK(mkdtemp(work) != NULL);
    write_texts();
    engine = open_engine();
    misuse_is_rejected();
    losses_fall_and_snapshots_continue();
    both_stages_make_a_byte_level_model();
    steps_can_be_stopped();
    steps_pause_with_the_engine();
    bolmo_engine_delete(engine);
    CHECK(nftw(work, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
    return end("train");
}
