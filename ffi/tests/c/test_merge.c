/* Merging: every function called successfully with checks of its results, and every misuse. */
#include "refuse.h"

#include <sys/stat.h>
#include <unistd.h>

#define TABLE "\"model.local_encoder.subword_embedding.weight\""
#define NORM "\"model.norm.weight\""

/* A temporary folder of this run. */
static char work[1024];

static const char *in_work(const char *name) {
    static char paths[4][2048];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static void write_file(const char *path, const uint8_t *data, size_t size) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(data, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

/* Position of `name` in the text of a file's header. */
static char *find(const uint8_t *weights, const char *name) {
    uint64_t header = 0;
    memcpy(&header, weights, 8);
    for (size_t i = 8; i + strlen(name) <= 8 + header; i++)
        if (memcmp(weights + i, name, strlen(name)) == 0) return (char *)weights + i;
    fail(__FILE__, __LINE__, "no %s", name);
    return NULL;
}

/* Position of a tensor's first element in the file. */
static size_t first_element(const uint8_t *weights, const char *name) {
    uint64_t header = 0, begin = 0;
    memcpy(&header, weights, 8);
    const char *offsets = strstr(find(weights, name), "\"data_offsets\"");
    CHECK(offsets != NULL && (offsets = strchr(offsets, '[')) != NULL && sscanf(offsets + 1, "%" SCNu64, &begin) == 1);
    return (size_t)(8 + header + begin);
}

/* Writes the trained golden model's blocks as a subword model, with `more` added to the first element of the final norm
   and of the embeddings. */
static void write_subword_model(const char *name, float more) {
    char path[4096];
    size_t size;
    uint8_t *config = read_model_file("config.json", &size);
    bool found = false;
    for (size_t i = 0; i + 20 <= size && !found; i++) {
        found = memcmp(config + i, "\"model_type\": \"bolmo", 20) == 0;
        if (found) memcpy(config + i + 15, "olmo2", 5);
    }
    CHECK(found);
    CHECK(mkdir(in_work(name), 0755) == 0);
    snprintf(path, sizeof path, "%s/config.json", in_work(name));
    write_file(path, config, size);
    free(config);

    uint8_t *weights = read_model_file("model.safetensors", &size);
    size_t places[2] = {first_element(weights, NORM), first_element(weights, TABLE)};
    for (int i = 0; i < 2; i++) {
        float value;
        memcpy(&value, weights + places[i], sizeof value);
        value += more;
        memcpy(weights + places[i], &value, sizeof value);
    }
    /* Spaces may follow a name. */
    char renamed[sizeof TABLE];
    snprintf(renamed, sizeof renamed, "%-*s", (int)strlen(TABLE), "\"model.embed_tokens.weight\"");
    memcpy(find(weights, TABLE), renamed, strlen(TABLE));
    snprintf(path, sizeof path, "%s/model.safetensors", in_work(name));
    write_file(path, weights, size);
    free(weights);
}

/* Stops at the call that `user_data` counts down to. */
static int32_t count_down(uint64_t done, uint64_t total, void *user_data) {
    CHECK(done > 0 && done <= total);
    return --*(int *)user_data == 0;
}

static void set_path(bolmo_status (*set)(bolmo_merge_options *, const void *, size_t), bolmo_merge_options *options,
                     const char *path) {
    CHECK_OK(set(options, path, strlen(path)));
}

static bolmo_merge_options *all_paths(void) {
    bolmo_merge_options *options = NULL;
    CHECK_OK(bolmo_merge_options_create(&options));
    set_path(bolmo_merge_options_set_bolmo, options, model_folder);
    set_path(bolmo_merge_options_set_base, options, in_work("base"));
    set_path(bolmo_merge_options_set_post_trained, options, in_work("post"));
    return options;
}

static bool is_there(const char *name) { return access(in_work(name), F_OK) == 0; }

static void merge_writes_a_model_and_reports_changes(void) {
    bolmo_bytes *report = NULL;
    const uint8_t *json;
    size_t size;
    int calls = 1000;
    bolmo_merge_options *options = all_paths();
    CHECK_OK(bolmo_merge_options_set_alpha(options, 0.5f));
    CHECK_OK(bolmo_merge_options_set_embeddings(options, true));
    CHECK_OK(bolmo_merge_options_set_progress(options, count_down, &calls));
    CHECK_OK(bolmo_merge(options, in_work("out"), strlen(in_work("out")), &report));
    CHECK(calls < 1000);
    CHECK_OK(bolmo_bytes_get(report, &json, &size));
    char *text = calloc(size + 1, 1);
    CHECK(text != NULL);
    memcpy(text, json, size);
    CHECK(text[0] == '{' && text[size - 1] == '}');
    CHECK(strstr(text, "\"alpha\":0.5") != NULL && strstr(text, "\"embeddings\":true") != NULL);
    CHECK(strstr(text, "\"largest_change\":") != NULL && strstr(text, "\"why\":") != NULL);
    CHECK(strstr(text, NORM) != NULL);
    free(text);
    bolmo_bytes_delete(report);

    /* The layout is that of the Bolmo model, so numbers are where they were. */
    const char *folder = model_folder;
    size_t before_size;
    uint8_t *before = read_model_file("model.safetensors", &before_size);
    model_folder = in_work("out");
    uint8_t *after = read_model_file("model.safetensors", &size);
    model_folder = folder;
    CHECK(size == before_size);
    const char *names[2] = {NORM, TABLE};
    for (int i = 0; i < 2; i++) {
        float old, new;
        size_t at = first_element(before, names[i]);
        memcpy(&old, before + at, sizeof old);
        memcpy(&new, after + at, sizeof new);
        float change = new - old;
        CHECK(change > 0.999f && change < 1.001f);
        memcpy(after + at, &old, sizeof old);
    }
    CHECK_BYTES(after, size, before, before_size);
    free(before);
    free(after);
    bolmo_checkpoint *checkpoint = NULL;
    CHECK_OK(bolmo_checkpoint_open(in_work("out"), strlen(in_work("out")), &checkpoint));
    bolmo_checkpoint_delete(checkpoint);

    /* A cancelled merge leaves nothing; without a callback it runs to its end. */
    calls = 1;
    REFUSED_WITH(BOLMO_CANCELLED, bolmo_merge(options, in_work("new"), strlen(in_work("new")), &out.bytes));
    CHECK(!is_there("new"));
    CHECK_OK(bolmo_merge_options_set_progress(options, NULL, NULL));
    CHECK_OK(bolmo_merge(options, in_work("new"), strlen(in_work("new")), &report));
    CHECK(is_there("new/config.json"));
    bolmo_bytes_delete(report);
    bolmo_merge_options_delete(options);
}

static void misuse_is_rejected(void) {
    static uint8_t room[64];
    const char *to = "somewhere", *folder = model_folder;
    bolmo_merge_options *options = NULL;
    make_no_handles();
    REFUSED(bolmo_merge_options_create(NULL));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_bolmo(handle, "a", 1));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_base(handle, "a", 1));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_post_trained(handle, "a", 1));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_alpha(handle, 1));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_embeddings(handle, true));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge_options_set_progress(handle, NULL, NULL));
    BAD_HANDLES(bolmo_merge_options, bolmo_merge(handle, to, 9, &out.bytes));
    BAD_DELETES(bolmo_merge_options, bolmo_merge_options_delete);

    CHECK_OK(bolmo_merge_options_create(&options));
    REFUSED(bolmo_merge_options_set_bolmo(options, NULL, 1));
    REFUSED(bolmo_merge_options_set_bolmo(options, "", 0));
    REFUSED(bolmo_merge_options_set_base(options, "a\0b", 3));
    REFUSED(bolmo_merge_options_set_post_trained(options, "a", SIZE_MAX));
    REFUSED(bolmo_merge_options_set_alpha(options, 0.0f / 0.0f));
    CHECK_SAYS("alpha");
    REFUSED(bolmo_merge_options_set_alpha(options, 1e38f * 10));
    REFUSED(bolmo_merge(options, to, 9, &out.bytes));
    CHECK_SAYS("bolmo_merge_options_set_bolmo");
    set_path(bolmo_merge_options_set_bolmo, options, folder);
    REFUSED(bolmo_merge(options, to, 9, &out.bytes));
    CHECK_SAYS("bolmo_merge_options_set_base");
    set_path(bolmo_merge_options_set_base, options, in_work("base"));
    REFUSED(bolmo_merge(options, to, 9, &out.bytes));
    CHECK_SAYS("bolmo_merge_options_set_post_trained");
    bolmo_merge_options_delete(options);

    options = all_paths();
    REFUSED(bolmo_merge(options, NULL, 1, &out.bytes));
    REFUSED(bolmo_merge(options, "", 0, &out.bytes));
    REFUSED(bolmo_merge(options, to, SIZE_MAX, &out.bytes));
    REFUSED(bolmo_merge(options, to, 9, NULL));
    REFUSED(bolmo_merge(options, to, 9, (bolmo_bytes **)(void *)(room + 1)));
    REFUSED(bolmo_merge(options, folder, strlen(folder), &out.bytes));
    CHECK_SAYS("files in it");
    set_path(bolmo_merge_options_set_base, options, folder);
    REFUSED_WITH(BOLMO_UNSUPPORTED, bolmo_merge(options, to, 9, &out.bytes));
    CHECK_SAYS("model_type");
    set_path(bolmo_merge_options_set_base, options, in_work("nowhere"));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_merge(options, to, 9, &out.bytes));
    CHECK(access(to, F_OK) != 0);
    bolmo_merge_options_delete(options);
    delete_no_handles();
}

static void remove_all(void) {
    const char *folders[] = {"base", "post", "out", "new"};
    const char *files[] = {"config.json",           "model.safetensors",      "tokenizer.json",
                           "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        for (size_t j = 0; j < sizeof files / sizeof *files; j++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", in_work(folders[i]), files[j]);
            unlink(path);
        }
        CHECK(rmdir(in_work(folders[i])) == 0);
    }
    CHECK(rmdir(work) == 0);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    const char *temporary = getenv("TMPDIR");
    snprintf(work, sizeof work, "%s/bolmo-merge-XXXXXX", temporary == NULL ? "/tmp" : temporary);
    CHECK(mkdtemp(work) != NULL);
    write_subword_model("base", 0);
    write_subword_model("post", 2);
    merge_writes_a_model_and_reports_changes();
    misuse_is_rejected();
    remove_all();
    return end("merge");
}
