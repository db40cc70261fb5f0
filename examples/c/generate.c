/* Continues a prompt, and writes bytes as they are generated. Ctrl-C ends it cleanly. */

#include <bolmo.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library must not be called from a signal handler: it only sets a flag, which the callbacks return. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

static int32_t show_progress(uint64_t done, uint64_t total, void *what) {
    const char *end = done == total ? "\n" : "";
    if (total > 0) fprintf(stderr, "\r%s %3.0f %%%s", (char *)what, 100.0 * (double)done / (double)total, end);
    return interrupted;
}

static int32_t write_piece(const uint8_t *data, size_t size, const uint16_t *ids, void *failed) {
    (void)ids;
    if (fwrite(data, 1, size, stdout) != size || fflush(stdout) != 0) *(int *)failed = errno ? errno : EIO;
    return *(int *)failed != 0 || interrupted;
}

static int usage(const char *name) {
    fprintf(stderr, "usage: %s MODEL_FOLDER PROMPT [--max-bytes N] [--temperature T] [--seed N]\n", name);
    fprintf(stderr, "       [--subwords FILE] [--adapter NAME]\n");
    return 2;
}

/* Parses a whole number of at least `least`. Returns 0 if the text is not one. */
static int parse_number(const char *text, uint64_t least, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *number >= least;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc % 2 == 0) return usage(argv[0]);
    const char *folder = argv[1], *prompt = argv[2], *subwords = NULL, *adapter = "";
    uint64_t max_bytes = 256, seed = 0;
    float temperature = 0.0f;
    for (int i = 3; i < argc; i += 2) {
        const char *value = argv[i + 1];
        char *end;
        int good = 1;
        if (strcmp(argv[i], "--max-bytes") == 0) good = parse_number(value, 1, &max_bytes) && max_bytes <= SIZE_MAX;
        else if (strcmp(argv[i], "--seed") == 0) good = parse_number(value, 0, &seed);
        else if (strcmp(argv[i], "--temperature") == 0) {
            temperature = strtof(value, &end);
            good = end != value && *end == '\0';
        }
        else if (strcmp(argv[i], "--subwords") == 0) subwords = value;
        else if (strcmp(argv[i], "--adapter") == 0) adapter = value;
        else return usage(argv[0]);
        if (!good) return usage(argv[0]);
    }
    if (signal(SIGINT, on_interrupt) == SIG_ERR) {
        perror("error: signal");
        return 1;
    }

    bolmo_engine_options *engine_options = NULL;
    bolmo_engine *engine = NULL;
    bolmo_checkpoint *checkpoint = NULL;
    bolmo_load_options *load_options = NULL;
    bolmo_model *model = NULL;
    bolmo_session *session = NULL;
    bolmo_generate_options *options = NULL;
    bolmo_generation *generation = NULL;
    int write_error = 0, exit_status = 1;
    size_t bytes = 0, patches = 0;
    const uint8_t *text;
    const char *name;
    int32_t stop = 0;
    bolmo_status status;

#define TRY(call) do { status = (call); if (status != BOLMO_OK) goto end; } while (0)
    TRY(bolmo_engine_options_create(&engine_options));
    TRY(bolmo_engine_options_set_adapter(engine_options, adapter, strlen(adapter)));
    TRY(bolmo_engine_create(engine_options, &engine));
    TRY(bolmo_checkpoint_open(folder, strlen(folder), &checkpoint));
    TRY(bolmo_load_options_create(&load_options));
    TRY(bolmo_load_options_set_progress(load_options, show_progress, "loading"));
    if (subwords) TRY(bolmo_load_options_set_tokenizer_path(load_options, subwords, strlen(subwords)));
    TRY(bolmo_model_load(engine, checkpoint, load_options, &model));
    TRY(bolmo_generate_options_create(&options));
    TRY(bolmo_generate_options_set_max_bytes(options, (size_t)max_bytes));
    TRY(bolmo_generate_options_set_temperature(options, temperature));
    TRY(bolmo_generate_options_set_seed(options, seed));
    TRY(bolmo_session_create(model, &session));
    TRY(bolmo_session_append_bos(session));
    TRY(bolmo_session_append(session, prompt, strlen(prompt), show_progress, "reading the prompt"));

    TRY(bolmo_session_generate(session, options, write_piece, &write_error, &generation));
    TRY(bolmo_generation_stop(generation, &stop));
    TRY(bolmo_generation_patches(generation, &patches));
    TRY(bolmo_generation_bytes(generation, &text, &bytes));
    TRY(bolmo_engine_text(engine, BOLMO_ADAPTER_NAME, &name, NULL));
    fprintf(stderr, "\n%zu bytes, %zu patches, stop: %s, %s\n", bytes, patches, bolmo_stop_name(stop), name);
    exit_status = write_error ? 1 : interrupted ? 130 : 0;
end:
    if (status == BOLMO_CANCELLED) exit_status = 130; /* the shell's exit status after Ctrl-C */
    else if (status != BOLMO_OK)
        fprintf(stderr, "error: %s: %s\n", bolmo_status_name(status), bolmo_last_error_message());
    if (write_error) fprintf(stderr, "error: standard output: %s\n", strerror(write_error));
    bolmo_generation_delete(generation);
    bolmo_session_delete(session);
    bolmo_generate_options_delete(options);
    bolmo_model_delete(model);
    bolmo_load_options_delete(load_options);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_engine_delete(engine);
    bolmo_engine_options_delete(engine_options);
    return exit_status;
}
