/* For each line of standard input, generates from one state, and prints the process's CPU time per byte in seconds.
 * usage: bench MODEL_FOLDER BYTES */

#define _POSIX_C_SOURCE 200809L
#include <bolmo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static size_t received;

static int32_t count(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
    (void)data, (void)ids, (void)user_data;
    received += size;
    return 0;
}

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void check(bolmo_status status) {
    if (status == BOLMO_OK) return;
    fprintf(stderr, "error: %s\n", bolmo_last_error_message());
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const char *prompt = "This is a story about Mia,";
    size_t bytes = strtoull(argv[2], NULL, 10);
    bolmo_engine_options *options;
    bolmo_engine *engine;
    bolmo_checkpoint *folder;
    bolmo_model *model;
    bolmo_session *session;
    bolmo_session_checkpoint *start;
    bolmo_generate_options *generate;
    check(bolmo_engine_options_create(&options));
    check(bolmo_engine_options_set_adapter(options, "cpu", 3));
    check(bolmo_engine_create(options, &engine));
    check(bolmo_checkpoint_open(argv[1], strlen(argv[1]), &folder));
    check(bolmo_model_load(engine, folder, NULL, &model));
    check(bolmo_session_create(model, &session));
    check(bolmo_session_append_bos(session));
    check(bolmo_session_append(session, prompt, strlen(prompt), NULL, NULL));
    check(bolmo_session_checkpoint_create(session, &start));
    check(bolmo_generate_options_create(&generate));
    check(bolmo_generate_options_set_max_bytes(generate, bytes));
    check(bolmo_generate_options_set_end_bias(generate, -1000.0f));
    for (int c; (c = getchar()) != EOF;) {
        if (c != '\n') continue;
        check(bolmo_session_rewind(session, start));
        received = 0;
        double begin = cpu_seconds();
        check(bolmo_session_generate(session, generate, count, NULL, NULL));
        printf("%.9f\n", (cpu_seconds() - begin) / (double)received);
        fflush(stdout);
    }
    bolmo_generate_options_delete(generate);
    bolmo_session_checkpoint_delete(start);
    bolmo_session_delete(session);
    bolmo_model_delete(model);
    bolmo_checkpoint_delete(folder);
    bolmo_engine_delete(engine);
    bolmo_engine_options_delete(options);
    return 0;
}
