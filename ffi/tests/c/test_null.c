/* NULL for every pointer, invalid handles, and impossible sizes and addresses, in every function that needs no model.
 */
#include "refuse.h"

/* A misaligned address. */
static _Alignas(16) uint8_t room[64];
#define ODD ((void *)(room + 1))

static void count_release(void *user_data) { ++*(int *)user_data; }
static int64_t read_nothing(void *user_data, uint64_t offset, uint8_t *to, size_t size) {
    (void)user_data, (void)offset, (void)to, (void)size;
    return 0;
}

static void texts(void) {
    bolmo_utf8 *utf8 = NULL;
    REFUSED(bolmo_utf8_create(NULL));
    REFUSED(bolmo_utf8_create(ODD));
    CHECK_OK(bolmo_utf8_create(&utf8));
    BAD_HANDLES(bolmo_utf8, bolmo_utf8_push(handle, "a", 1, &out.text, &out.size));
    BAD_HANDLES(bolmo_utf8, bolmo_utf8_finish(handle, &out.text, &out.size));
    BAD_DELETES(bolmo_utf8, bolmo_utf8_delete);
    REFUSED(bolmo_utf8_push(utf8, NULL, 1, &out.text, &out.size));
    REFUSED(bolmo_utf8_push(utf8, "a", SIZE_MAX, &out.text, &out.size));
    REFUSED(bolmo_utf8_push(utf8, "a", 1, NULL, &out.size));
    REFUSED(bolmo_utf8_push(utf8, "a", 1, &out.text, NULL));
    REFUSED(bolmo_utf8_push(utf8, "a", 1, ODD, &out.size));
    REFUSED(bolmo_utf8_push(utf8, "a", 1, &out.text, ODD));
    REFUSED(bolmo_utf8_finish(utf8, NULL, &out.size));
    REFUSED(bolmo_utf8_finish(utf8, &out.text, NULL));
    bolmo_utf8_delete(utf8);
    REFUSED(bolmo_utf8_push(utf8, "a", 1, &out.text, &out.size));
    BAD_HANDLES(bolmo_bytes, bolmo_bytes_get(handle, &out.data, &out.size));
    BAD_DELETES(bolmo_bytes, bolmo_bytes_delete);
    REFUSED(bolmo_set_log_callback(-1, NULL, NULL));
    REFUSED(bolmo_set_log_callback(6, NULL, NULL));
    CHECK_OK(bolmo_set_log_callback(BOLMO_LOG_TRACE, NULL, NULL));
}

static void engines(void) {
    bolmo_adapters *list = NULL;
    bolmo_engine_options *options = NULL;
    REFUSED(bolmo_adapters_list("", 0, NULL));
    REFUSED(bolmo_adapters_list(NULL, 1, &out.adapters));
    REFUSED(bolmo_adapters_list("", SIZE_MAX, &out.adapters));
    REFUSED(bolmo_adapters_list("\xff", 1, &out.adapters));
    CHECK_OK(bolmo_adapters_list(NULL, 0, &list));
    BAD_HANDLES(bolmo_adapters, bolmo_adapters_count(handle, &out.size));
    BAD_HANDLES(bolmo_adapters, bolmo_adapters_text(handle, 0, 0, &out.text, &out.size));
    BAD_HANDLES(bolmo_adapters, bolmo_adapters_number(handle, 0, 0, &out.number));
    BAD_DELETES(bolmo_adapters, bolmo_adapters_delete);
    REFUSED(bolmo_adapters_count(list, NULL));
    REFUSED(bolmo_adapters_count(list, ODD));
    REFUSED(bolmo_adapters_text(list, 0, 0, NULL, &out.size));
    REFUSED(bolmo_adapters_text(list, 0, -1, &out.text, &out.size));
    REFUSED(bolmo_adapters_text(list, 0, 5, &out.text, &out.size));
    REFUSED(bolmo_adapters_text(list, 0, 0, &out.text, ODD));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_adapters_text(list, SIZE_MAX, 0, &out.text, &out.size));
    REFUSED(bolmo_adapters_number(list, 0, 0, NULL));
    REFUSED(bolmo_adapters_number(list, 0, 9, &out.number));
    REFUSED(bolmo_adapters_number(list, 0, INT32_MIN, &out.number));
    REFUSED(bolmo_adapters_number(list, 0, 0, ODD));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_adapters_number(list, SIZE_MAX, 0, &out.number));
    bolmo_adapters_delete(list);

    REFUSED(bolmo_engine_options_create(NULL));
    CHECK_OK(bolmo_engine_options_create(&options));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_adapter(handle, "auto", 4));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_max_binding_bytes(handle, 0));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_threads(handle, 0));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_products(handle, BOLMO_PRODUCTS_INT8));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_in_place_bytes(handle, 0));
    BAD_HANDLES(bolmo_engine_options, bolmo_engine_options_set_kernel_cache(handle, "a", 1));
    BAD_HANDLES_FROM(1, bolmo_engine_options, bolmo_engine_create(handle, &out.engine));
    BAD_DELETES(bolmo_engine_options, bolmo_engine_options_delete);
    REFUSED(bolmo_engine_options_set_adapter(options, NULL, 4));
    REFUSED(bolmo_engine_options_set_kernel_cache(options, NULL, 4));
    REFUSED(bolmo_engine_options_set_kernel_cache(options, "a\0b", 3));
    CHECK_OK(bolmo_engine_options_set_kernel_cache(options, NULL, 0));
    REFUSED(bolmo_engine_options_set_adapter(options, "auto", SIZE_MAX));
    REFUSED(bolmo_engine_options_set_adapter(options, "\xc3(", 2));
    REFUSED(bolmo_engine_options_set_max_binding_bytes(options, 65535));
    REFUSED(bolmo_engine_options_set_products(options, 2));
    REFUSED(bolmo_engine_options_set_products(options, -1));
    REFUSED(bolmo_engine_options_set_threads(options, 257));
    REFUSED(bolmo_engine_options_set_threads(options, SIZE_MAX));
    REFUSED(bolmo_engine_create(NULL, NULL));
    REFUSED(bolmo_engine_create(NULL, ODD));
    bolmo_engine_options_delete(options);
    REFUSED(bolmo_engine_create(options, &out.engine));
    BAD_HANDLES(bolmo_engine, bolmo_engine_text(handle, 0, &out.text, &out.size));
    BAD_HANDLES(bolmo_engine, bolmo_engine_number(handle, 0, &out.number));
    BAD_HANDLES(bolmo_engine, bolmo_engine_suspend(handle));
    BAD_HANDLES(bolmo_engine, bolmo_engine_resume(handle));
    BAD_HANDLES(bolmo_engine, bolmo_engine_trim(handle, &out.number));
    BAD_HANDLES(bolmo_engine, bolmo_engine_trim(handle, NULL));
    BAD_HANDLES(bolmo_engine, bolmo_engine_destroy_device(handle));
    BAD_DELETES(bolmo_engine, bolmo_engine_delete);
}

static void builders(void) {
    bolmo_checkpoint_builder *builder = NULL;
    int released = 0;
    REFUSED(bolmo_checkpoint_builder_create(NULL));
    CHECK_OK(bolmo_checkpoint_builder_create(&builder));
    BAD_HANDLES(bolmo_checkpoint_builder, bolmo_checkpoint_builder_set_config(handle, "{}", 2));
    BAD_HANDLES(bolmo_checkpoint_builder, bolmo_checkpoint_builder_set_tokenizer(handle, "{}", 2, NULL, 0));
    BAD_HANDLES(bolmo_checkpoint_builder,
                bolmo_checkpoint_builder_add_memory(handle, "w", 1, room, sizeof room, count_release, &released));
    BAD_HANDLES(bolmo_checkpoint_builder,
                bolmo_checkpoint_builder_add_reader(handle, "w", 1, 64, read_nothing, count_release, &released));
    BAD_HANDLES(bolmo_checkpoint_builder, bolmo_checkpoint_builder_open(handle, &out.checkpoint));
    BAD_DELETES(bolmo_checkpoint_builder, bolmo_checkpoint_builder_delete);
    REFUSED(bolmo_checkpoint_builder_set_config(builder, NULL, 2));
    REFUSED(bolmo_checkpoint_builder_set_config(builder, "{}", SIZE_MAX));
    REFUSED(bolmo_checkpoint_builder_set_tokenizer(builder, NULL, 2, NULL, 0));
    REFUSED(bolmo_checkpoint_builder_set_tokenizer(builder, "{}", SIZE_MAX, NULL, 0));
    REFUSED(bolmo_checkpoint_builder_set_tokenizer(builder, "{}", 2, NULL, 1));
    REFUSED(bolmo_checkpoint_builder_set_tokenizer(builder, "{}", 2, "{}", SIZE_MAX));
    REFUSED(bolmo_checkpoint_builder_add_memory(builder, NULL, 1, room, 64, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_memory(builder, "\xff", 1, room, 64, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_memory(builder, "w", SIZE_MAX, room, 64, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_memory(builder, "w", 1, NULL, 64, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_memory(builder, "w", 1, room, SIZE_MAX, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_reader(builder, NULL, 1, 64, read_nothing, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_reader(builder, "w", SIZE_MAX, 64, read_nothing, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_add_reader(builder, "w", 1, 64, NULL, count_release, &released));
    REFUSED(bolmo_checkpoint_builder_open(builder, NULL));
    REFUSED(bolmo_checkpoint_builder_open(builder, &out.checkpoint));
    CHECK_SAYS("config");
    /* Nothing was taken, so nothing is released. */
    bolmo_checkpoint_builder_delete(builder);
    bolmo_checkpoint_builder_delete(builder);
    CHECK(released == 0);
}

static void checkpoints(void) {
    bolmo_checkpoint *checkpoint = NULL;
    size_t length = strlen(model_folder);
    REFUSED(bolmo_checkpoint_open(NULL, length, &out.checkpoint));
    REFUSED(bolmo_checkpoint_open(NULL, 0, &out.checkpoint));
    REFUSED(bolmo_checkpoint_open(model_folder, 0, &out.checkpoint));
    REFUSED(bolmo_checkpoint_open(model_folder, SIZE_MAX, &out.checkpoint));
    REFUSED(bolmo_checkpoint_open(model_folder, length + 1, &out.checkpoint));
    CHECK_SAYS("NUL");
    REFUSED(bolmo_checkpoint_open(model_folder, length, NULL));
    REFUSED(bolmo_checkpoint_open(model_folder, length, ODD));
    CHECK_OK(bolmo_checkpoint_open(model_folder, length, &checkpoint));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_number(handle, 0, &out.number));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_device_bytes(handle, 0, &out.number));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_mapped_bytes(handle, NULL, 0, &out.number));
    REFUSED(bolmo_checkpoint_mapped_bytes(checkpoint, NULL, 0, &out.number));
    REFUSED(bolmo_checkpoint_mapped_bytes(checkpoint, NULL, 4, &out.number));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_tokenizer_source(handle, &out.text, &out.size));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_warning(handle, 0, &out.text, &out.size));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_config_json(handle, &out.bytes));
    BAD_DELETES(bolmo_checkpoint, bolmo_checkpoint_delete);
    REFUSED(bolmo_checkpoint_number(checkpoint, 0, NULL));
    REFUSED(bolmo_checkpoint_number(checkpoint, 0, ODD));
    REFUSED(bolmo_checkpoint_number(checkpoint, -1, &out.number));
    REFUSED(bolmo_checkpoint_number(checkpoint, 11, &out.number));
    REFUSED(bolmo_checkpoint_device_bytes(checkpoint, 0, NULL));
    REFUSED(bolmo_checkpoint_device_bytes(checkpoint, 4, &out.number));
    REFUSED(bolmo_checkpoint_device_bytes(checkpoint, -1, &out.number));
    REFUSED(bolmo_checkpoint_tokenizer_source(checkpoint, NULL, &out.size));
    REFUSED(bolmo_checkpoint_tokenizer_source(checkpoint, &out.text, ODD));
    REFUSED(bolmo_checkpoint_warning(checkpoint, 0, NULL, &out.size));
    BAD_HANDLES(bolmo_checkpoint, bolmo_checkpoint_warning_count(handle, &out.size));
    REFUSED(bolmo_checkpoint_warning_count(checkpoint, NULL));
    REFUSED_WITH(BOLMO_NOT_FOUND, bolmo_checkpoint_warning(checkpoint, SIZE_MAX, &out.text, &out.size));
    REFUSED(bolmo_checkpoint_config_json(checkpoint, NULL));
    CHECK_OK(bolmo_checkpoint_tokenizer_source(checkpoint, &out.text, NULL));
    bolmo_checkpoint_delete(checkpoint);
    REFUSED(bolmo_checkpoint_number(checkpoint, 0, &out.number));

    bolmo_load_options *options = NULL;
    REFUSED(bolmo_load_options_create(NULL));
    CHECK_OK(bolmo_load_options_create(&options));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_format(handle, 0));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_part_format(handle, 0, 0));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_tokenizer_path(handle, "a", 1));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_tokenizer(handle, "{}", 2, NULL, 0));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_progress(handle, NULL, NULL));
    BAD_DELETES(bolmo_load_options, bolmo_load_options_delete);
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_rope_theta(handle, 5e5));
    BAD_HANDLES(bolmo_load_options, bolmo_load_options_set_rope_scaling(handle, "none", 4));
    REFUSED(bolmo_load_options_set_rope_theta(options, 1.0));
    REFUSED(bolmo_load_options_set_rope_theta(options, 1e300));
    REFUSED(bolmo_load_options_set_rope_theta(options, -1.0));
    REFUSED(bolmo_load_options_set_rope_scaling(options, NULL, 4));
    REFUSED(bolmo_load_options_set_rope_scaling(options, "", 0));
    REFUSED(bolmo_load_options_set_rope_scaling(options, "yarn", 4));
    REFUSED(bolmo_load_options_set_rope_scaling(options, "yarn:factor=1e300", 17));
    REFUSED(bolmo_load_options_set_format(options, -1));
    REFUSED(bolmo_load_options_set_format(options, 4));
    REFUSED(bolmo_load_options_set_part_format(options, -1, 0));
    REFUSED(bolmo_load_options_set_part_format(options, 3, 0));
    REFUSED(bolmo_load_options_set_part_format(options, 0, 4));
    REFUSED(bolmo_load_options_set_tokenizer_path(options, NULL, 1));
    REFUSED(bolmo_load_options_set_tokenizer_path(options, "", 0));
    REFUSED(bolmo_load_options_set_tokenizer_path(options, "a", SIZE_MAX));
    REFUSED(bolmo_load_options_set_tokenizer(options, NULL, 1, NULL, 0));
    REFUSED(bolmo_load_options_set_tokenizer(options, "{}", SIZE_MAX, NULL, 0));
    REFUSED(bolmo_load_options_set_tokenizer(options, "{}", 2, NULL, 1));
    bolmo_load_options_delete(options);
}

static void constraints(void) {
    bolmo_constraint *constraint = NULL;
    bolmo_matcher *matcher = NULL;
    REFUSED(bolmo_constraint_create_regex(NULL, 1, &out.constraint));
    REFUSED(bolmo_constraint_create_regex("a", SIZE_MAX, &out.constraint));
    REFUSED(bolmo_constraint_create_regex("\xff", 1, &out.constraint));
    REFUSED(bolmo_constraint_create_regex("a", 1, NULL));
    REFUSED(bolmo_constraint_create_json_schema(NULL, 1, &out.constraint));
    REFUSED(bolmo_constraint_create_json_schema("{}", SIZE_MAX, &out.constraint));
    REFUSED(bolmo_constraint_create_json_schema("{}", 2, NULL));
    CHECK_OK(bolmo_constraint_create_regex("a+", 2, &constraint));
    BAD_HANDLES(bolmo_constraint, bolmo_constraint_matches(handle, "a", 1, &out.yes));
    BAD_HANDLES(bolmo_constraint, bolmo_constraint_shortest(handle, &out.size));
    BAD_HANDLES(bolmo_constraint, bolmo_matcher_create(handle, &out.matcher));
    BAD_DELETES(bolmo_constraint, bolmo_constraint_delete);
    REFUSED(bolmo_constraint_matches(constraint, NULL, 1, &out.yes));
    REFUSED(bolmo_constraint_matches(constraint, "a", SIZE_MAX, &out.yes));
    REFUSED(bolmo_constraint_matches(constraint, "a", 1, NULL));
    REFUSED(bolmo_constraint_shortest(constraint, NULL));
    REFUSED(bolmo_constraint_shortest(constraint, ODD));
    REFUSED(bolmo_matcher_create(constraint, NULL));
    CHECK_OK(bolmo_matcher_create(constraint, &matcher));
    bolmo_constraint_delete(constraint);
    BAD_HANDLES(bolmo_matcher, bolmo_matcher_clone(handle, &out.matcher));
    BAD_HANDLES(bolmo_matcher, bolmo_matcher_allowed(handle, 0, out.flags));
    BAD_HANDLES(bolmo_matcher, bolmo_matcher_advance(handle, "a", 1));
    BAD_HANDLES(bolmo_matcher, bolmo_matcher_is_match(handle, &out.yes));
    BAD_DELETES(bolmo_matcher, bolmo_matcher_delete);
    REFUSED(bolmo_matcher_clone(matcher, NULL));
    REFUSED(bolmo_matcher_allowed(matcher, 0, NULL));
    REFUSED(bolmo_matcher_advance(matcher, NULL, 1));
    REFUSED(bolmo_matcher_advance(matcher, "a", SIZE_MAX));
    REFUSED(bolmo_matcher_is_match(matcher, NULL));
    bolmo_matcher_delete(matcher);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    make_no_handles();
    texts();
    engines();
    builders();
    checkpoints();
    constraints();
    delete_no_handles();
    return end("null");
}
