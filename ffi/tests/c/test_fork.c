/* Children of fork(): objects of the parent return an error instead of waiting for threads that don't exist, and can be
   deleted. The CPU device can be opened anew. A hang ends by the child's alarm. */
#include "check.h"
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 16, SECONDS = 120 };

static uint8_t expected[4096];
static size_t expected_size;

/* Objects of the parent. */
typedef struct {
    trained_model trained;
    bolmo_session *session, *empty;
    bolmo_session_checkpoint *checkpoint;
    bolmo_generate_options *options;
} objects;

static void wait_for(pid_t child) {
    int status = 0;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) fail(__FILE__, __LINE__, "the child was ended by signal %d", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define CHECK_FORKED(call)                                                                                             \
    do {                                                                                                               \
        CHECK_STATUS(BOLMO_DEVICE_LOST, call);                                                                         \
        CHECK_SAYS("forked");                                                                                          \
    } while (0)

/* Whatever needs the device is refused, also when it is tried again. */
static void calls_are_refused(const objects *all) {
    bolmo_session *session = NULL;
    bolmo_session_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    bolmo_bytes *bytes = NULL;
    float logits[520];
    size_t length = 0;
    for (int i = 0; i < 2; i++) {
        CHECK_FORKED(bolmo_session_append(all->session, "ab", 2, NULL, NULL));
        CHECK_FORKED(bolmo_session_append_bos(all->empty));
        CHECK_FORKED(bolmo_session_logits(all->session, 0.0f, logits, 520));
        CHECK_FORKED(bolmo_session_generate(all->session, all->options, NULL, NULL, NULL));
        CHECK_FORKED(bolmo_session_snapshot(all->session, &bytes));
        CHECK_FORKED(bolmo_session_clone(all->session, &session));
        CHECK_FORKED(bolmo_session_checkpoint_create(all->session, &checkpoint));
        CHECK_FORKED(bolmo_session_rewind(all->session, all->checkpoint));
        CHECK_FORKED(bolmo_session_create(all->trained.model, &session));
        CHECK_FORKED(bolmo_model_load(all->trained.engine, all->trained.checkpoint, NULL, &model));
    }
    CHECK(bytes == NULL && session == NULL && checkpoint == NULL && model == NULL);
    /* What the host knows is still there. */
    CHECK_OK(bolmo_session_length(all->session, &length));
    CHECK(length > 1);
}

static void delete_all(const objects *all, bool engine_first) {
    if (engine_first) bolmo_engine_delete(all->trained.engine);
    bolmo_session_checkpoint_delete(all->checkpoint);
    bolmo_session_delete(all->session);
    bolmo_session_delete(all->empty);
    close_trained(all->trained);
}

/* A device of the child's own works like the parent's. */
static void the_cpu_works(const bolmo_generate_options *options) {
    uint8_t text[4096];
    trained_model own = {open_adapter("cpu"), NULL, NULL};
    CHECK_OK(bolmo_checkpoint_open(model_folder, strlen(model_folder), &own.checkpoint));
    CHECK_OK(bolmo_model_load(own.engine, own.checkpoint, NULL, &own.model));
    bolmo_session *session = session_with(own.model, "def ");
    CHECK_BYTES(text, generate(session, options, text), expected, expected_size);
    bolmo_session_delete(session);
    close_trained(own);
}

static void in_child(const objects *all, int kind) {
    alarm(SECONDS);
    switch (kind) {
    case 0: calls_are_refused(all); break;
    case 1: delete_all(all, false); break;
    case 2: delete_all(all, true); break;
    case 3:
        calls_are_refused(all);
        CHECK_OK(bolmo_engine_destroy_device(all->trained.engine));
        calls_are_refused(all);
        delete_all(all, true);
        break;
    case 4: the_cpu_works(all->options); break;
    case 5:
        delete_all(all, false);
        the_cpu_works(all->options);
        bolmo_generate_options_delete(all->options);
        CHECK(bolmo_handle_count() == 0);
        break;
    default: break;
    }
    fflush(NULL);
    _exit(0);
}

typedef struct {
    pid_t child;
    bool in_child;
} forking;

/* Forks within a call of the library. */
static int32_t fork_once(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)size, (void)ids;
    forking *this = user_data;
    if (this->child != 0 || this->in_child) return 0;
    fflush(NULL);
    this->child = fork();
    this->in_child = this->child == 0;
    if (this->in_child) alarm(SECONDS);
    return 0;
}

static void a_fork_within_a_call_ends_the_call(const objects *all) {
    bolmo_session *session = session_with(all->trained.model, "def ");
    forking state = {0, false};
    bolmo_generation *generation = NULL;
    bolmo_status status = bolmo_session_generate(session, all->options, fork_once, &state, &generation);
    if (state.in_child) {
        CHECK(status == BOLMO_DEVICE_LOST);
        CHECK_SAYS("forked");
        bolmo_session_delete(session);
        delete_all(all, false);
        fflush(NULL);
        _exit(0);
    }
    CHECK_OK(status);
    wait_for(state.child);
    const uint8_t *data;
    size_t size;
    CHECK_OK(bolmo_generation_bytes(generation, &data, &size));
    CHECK_BYTES(data, size, expected, expected_size);
    bolmo_generation_delete(generation);
    bolmo_session_delete(session);
}

static void check_adapter(const char *adapter) {
    uint8_t text[4096];
    objects all = {{open_adapter(adapter), NULL, NULL}, NULL, NULL, NULL, greedy(BYTES)};
    CHECK_OK(bolmo_checkpoint_open(model_folder, strlen(model_folder), &all.trained.checkpoint));
    CHECK_OK(bolmo_model_load(all.trained.engine, all.trained.checkpoint, NULL, &all.trained.model));
    all.session = session_with(all.trained.model, "def ");
    CHECK_OK(bolmo_session_create(all.trained.model, &all.empty));
    CHECK_OK(bolmo_session_checkpoint_create(all.session, &all.checkpoint));
    expected_size = generate(all.session, all.options, expected);
    a_fork_within_a_call_ends_the_call(&all);
    for (int kind = 0; kind <= 6; kind++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) in_child(&all, kind);
        wait_for(child);
        /* What the child did changes nothing for the parent. */
        CHECK_OK(bolmo_session_rewind(all.session, all.checkpoint));
        CHECK_BYTES(text, generate(all.session, all.options, text), expected, expected_size);
    }
    delete_all(&all, false);
    bolmo_generate_options_delete(all.options);
    CHECK(bolmo_handle_count() == 0);
    printf("forks on %s are refused\n", adapter);
}

/* Whether there is a usable adapter of this kind. */
static bool is_there(const char *wanted) {
    bolmo_engine_options *options = NULL;
    bolmo_engine *engine = NULL;
    CHECK_OK(bolmo_engine_options_create(&options));
    CHECK_OK(bolmo_engine_options_set_adapter(options, wanted, strlen(wanted)));
    bolmo_status status = bolmo_engine_create(options, &engine);
    CHECK(status == BOLMO_OK || status == BOLMO_NOT_FOUND);
    bolmo_engine_options_delete(options);
    bolmo_engine_delete(engine);
    return status == BOLMO_OK;
}

int main(int argc, char **argv) {
    begin(argc, argv);
    check_adapter("cpu");
    if (is_there("software")) check_adapter("software");
    return end("fork");
}
