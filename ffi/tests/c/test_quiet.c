/* Standard error belongs to the host: looking for adapters and using them prints nothing, also where there is no
   display. */
#include "check.h"
#include <fcntl.h>
#include <unistd.h>

static void use_engine(const char *adapter) {
    bolmo_engine_options *options = NULL;
    bolmo_engine *engine = NULL;
    CHECK_OK(bolmo_engine_options_create(&options));
    CHECK_OK(bolmo_engine_options_set_adapter(options, adapter, strlen(adapter)));
    bolmo_status status = bolmo_engine_create(options, &engine);
    bolmo_engine_options_delete(options);
    /* Not every machine has a software driver. */
    CHECK(status == BOLMO_OK || status == BOLMO_NOT_FOUND);
    if (status != BOLMO_OK) return;
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_model *model = NULL;
    uint8_t text[4096];
    CHECK_OK(bolmo_checkpoint_open(model_folder, strlen(model_folder), &checkpoint));
    CHECK_OK(bolmo_model_load(engine, checkpoint, NULL, &model));
    bolmo_session *session = session_with(model, "def ");
    bolmo_generate_options *generate_options = greedy(4);
    CHECK(generate(session, generate_options, text) > 0);
    bolmo_generate_options_delete(generate_options);
    bolmo_session_delete(session);
    bolmo_model_delete(model);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_engine_delete(engine);
}

/* What `work` prints to standard error fails the test. */
static void check_silent(const char *what, void (*work)(void)) {
    char path[] = "/tmp/bolmo-quiet-XXXXXX", text[1000];
    int file = mkstemp(path), before = dup(STDERR_FILENO);
    CHECK(file >= 0 && before >= 0);
    CHECK(unlink(path) == 0);
    fflush(stderr);
    CHECK(dup2(file, STDERR_FILENO) == STDERR_FILENO);
    work();
    fflush(stderr);
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
    ssize_t size = pread(file, text, sizeof text - 1, 0);
    CHECK(size >= 0);
    text[size] = '\0';
    if (size > 0) fail(__FILE__, __LINE__, "%s: standard error has %s", what, text);
    close(file);
    close(before);
}

static void use_the_best(void) { use_engine("auto"); }
static void use_the_cpu(void) { use_engine("cpu"); }
static void use_software(void) { use_engine("software"); }

static void check_all(const char *display) {
    printf("%s\n", display);
    check_silent("list of adapters", list_adapters);
    check_silent("the CPU device", use_the_cpu);
    check_silent("the best adapter", use_the_best);
    check_silent("a software adapter", use_software);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    static const char *const variables[] = {"XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) CHECK(unsetenv(variables[i]) == 0);
    check_all("without a display");
    CHECK(setenv("XDG_RUNTIME_DIR", "/nowhere", 1) == 0);
    CHECK(setenv("WAYLAND_DISPLAY", "nothing", 1) == 0);
    CHECK(setenv("DISPLAY", ":4321", 1) == 0);
    check_all("with a display that does not answer");
    return end("quiet");
}
