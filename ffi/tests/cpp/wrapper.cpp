// What bolmo.hpp adds to bolmo.h: owners, results, exceptions, callables. scripts/test-package.sh builds and runs this
// test, with exceptions and without, in C++17 and C++20.
//
//   wrapper MODEL_FOLDER TOKENIZER_FOLDER

#include <bolmo.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

namespace {

int failures = 0;

void check(bool good, const char *what, int line) {
    if (good) return;
    failures++;
    std::fprintf(stderr, "line %d: %s: %s\n", line, what, bolmo_last_error_message());
}
#define CHECK(condition) check(static_cast<bool>(condition), #condition, __LINE__)

std::string read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::uint64_t progress_calls = 0;
void count_progress(std::uint64_t, std::uint64_t) { progress_calls++; }

// Options, lists and text: everything that needs no model.
void small_things() {
    bolmo::generate_options options;
    CHECK(!options);
    CHECK(options.try_max_bytes(8) && options);
    auto bad = options.try_temperature(-1);
    CHECK(!bad && bad.error().status() == BOLMO_INVALID_ARGUMENT && bad.error().what()[0] != '\0');
    bolmo::generate_options moved = std::move(options);
    CHECK(moved && !options && moved.try_add_stop("\n\n") && moved.try_byte_bias('x', -1));

    bolmo::utf8_assembler characters;
    CHECK(*characters.try_push("a\xc3") == "a");
    CHECK(*characters.try_push("\xa4") == "\xc3\xa4");
    CHECK(characters.try_push("\xe2") && *characters.try_finish() == "\xef\xbf\xbd");

    bolmo::engine_options device;
    CHECK(device.try_adapter("cpu") && device.try_threads(2) && device.try_max_binding_bytes(1 << 20));
    CHECK(device.try_kernel_cache("/nowhere") && device.try_kernel_cache({}));
    CHECK(device.try_threads(257).error().status() == BOLMO_INVALID_ARGUMENT);
    auto opened = bolmo::engine::try_create(device);
    CHECK(opened && *opened->try_text(BOLMO_ADAPTER_KIND) == "cpu");

    auto adapters = bolmo::adapters::try_list();
    CHECK(adapters && *adapters->try_count() > 0 && !adapters->try_text(0, BOLMO_ADAPTER_NAME)->empty());
    CHECK(*adapters->try_number(0, BOLMO_ADAPTER_USABLE) <= 1);
    CHECK(adapters->try_text(1000, BOLMO_ADAPTER_NAME).error().status() == BOLMO_NOT_FOUND);
    CHECK(bolmo::checkpoint::try_open("/nowhere").error().status() == BOLMO_NOT_FOUND);
    CHECK(bolmo::ends_patch(361) && bolmo::ends_text(261) && bolmo::ends_text(1));
    CHECK(bolmo::byte_of('a' + 4 + 260) == 'a');

    std::size_t lines = 0;
    CHECK(bolmo::try_set_log(BOLMO_LOG_TRACE, [&](bolmo_log_level, std::string_view) { lines++; }));
    CHECK(bolmo::try_set_log(BOLMO_LOG_OFF, {}));
    CHECK(bolmo::abi_version() >= BOLMO_ABI_VERSION && !bolmo::version().empty());
}

void sessions(const bolmo::model &model) {
    auto session = *bolmo::session::try_create(model);
    CHECK(session.try_append_bos() && session.try_append("def main(", count_progress));
    auto fork = *session.try_checkpoint();
    std::string streamed;
    std::size_t ids = 0;
    auto made = session.try_generate({}, [&](std::string_view bytes, bolmo::span<const std::uint16_t> of_them) {
        streamed += bytes;
        ids += of_them.size();
    });
    CHECK(made && streamed == *made->try_bytes() && ids == streamed.size() && *made->try_text() == streamed);
    CHECK(made->try_ids()->size() >= ids && *made->try_patches() > 0 && !*made->try_matched());

    // Rewound, and stopped by the callback.
    CHECK(session.try_rewind(fork) && *session.try_length() == 10);
    auto cut = session.try_generate({}, [](std::string_view) { return false; });
    CHECK(cut && *cut->try_stop() == BOLMO_STOP_CANCELLED);
    CHECK(session.try_ids(1)->size() == *session.try_length() - 1 && session.try_ids(1000)->empty());

    // Step by step the result is the same.
    CHECK(session.try_rewind(fork));
    auto sampler = *bolmo::sampler::try_create();
    std::string chosen;
    while (chosen.size() < 10) {
        auto logits = session.try_logits();
        auto id = sampler.try_choose(session, *logits);
        if (!id || bolmo::ends_text(*id) || !session.try_push(*id)) break;
        chosen += bolmo::byte_of(*id);
    }
    CHECK(chosen == streamed.substr(0, 10));

    auto clone = session.try_clone();
    auto snapshot = session.try_snapshot();
    auto restored = bolmo::session::try_restore(model, *snapshot->try_view());
    CHECK(clone && restored && *clone->try_ids() == *restored->try_ids());
    CHECK(*session.try_patches() > 0 && *session.try_device_bytes() > 0);
    CHECK(session.try_progress()->first <= session.try_progress()->second);
    CHECK(*model.try_session_bytes(*session.try_patches()) >= *session.try_device_bytes());
    CHECK(session.try_cancel() && session.try_reset_cancel() && session.try_append("x"));

    bolmo::score_options options;
    CHECK(options.try_tensors(true) && options.try_progress(count_progress));
    auto score = model.try_score("def main():", options);
    CHECK(score && *score->try_number(BOLMO_SCORE_BYTES) == 11);
    CHECK(score->try_tensor(BOLMO_TENSOR_LOGITS)->columns == bolmo::logit_count && score->try_boundaries()->size() > 0);
}

// Several sessions together, fixed ones and ones that come and go, and log-probabilities.
void batches(const bolmo::model &model) {
    bolmo::generate_options options;
    CHECK(options.try_max_bytes(12) && options.try_logprobs(true));
    auto first = *bolmo::session::try_create(model), second = *bolmo::session::try_create(model);
    auto empty = *bolmo::session::try_create(model);
    CHECK(first.try_append_bos() && first.try_append("def ") && second.try_append_bos());
    std::vector<bolmo::session *> sessions{&first, &second, &empty};
    std::vector<const bolmo::generate_options *> all{&options, nullptr, nullptr};
    std::array<std::string, 3> texts;
    std::size_t ends = 0;
    auto made = bolmo::try_generate_batch(sessions, all, [&](std::size_t index, std::string_view bytes) {
        if (bytes.data() == nullptr) ends++;
        texts[index] += bytes;
    });
    CHECK(made && made->size() == 3 && ends == 3);
    CHECK((*made)[0] && *(*made)[0]->try_bytes() == texts[0] && texts[0].size() == 12);
    CHECK((*made)[1] && *(*made)[1]->try_bytes() == texts[1]);
    CHECK((*made)[2].error().status() == BOLMO_INVALID_ARGUMENT);
    CHECK((*made)[0]->try_logprobs(BOLMO_LOGPROB_JOINT)->size() == 12 && !(*made)[1]->try_logprobs(BOLMO_LOGPROB_JOINT));
    CHECK(bolmo::try_generate_batch(sessions)->size() == 3);
    CHECK(!bolmo::try_generate_batch(sessions, {all.data(), 2}));

    auto batch = *bolmo::batch::try_create();
    CHECK(*batch.try_add(first, options) == 0 && batch.try_add(first).error().status() == BOLMO_BUSY);
    bool more = true;
    std::size_t ids = 0;
    CHECK(batch.try_run([&](std::size_t index, std::string_view bytes, bolmo::span<const std::uint16_t> of_them) {
        CHECK(index < 2 && bytes.size() == of_them.size());
        ids += of_them.size();
        if (std::exchange(more, false)) CHECK(*batch.try_add(second, options) == 1);
        return true;
    }));
    CHECK(batch.try_generation(0) && batch.try_generation(1));
    CHECK(batch.try_generation(1).error().status() == BOLMO_NOT_FOUND && ids > 12 && batch.try_run());

    auto score = model.try_score("def main():");
    CHECK(score && score->try_logprobs(BOLMO_LOGPROB_FOLDED)->size() == 11);
}

void checkpoints(const bolmo::engine &engine, const std::string &folder) {
    std::string weights = read(folder + "/model.safetensors");
    bolmo::checkpoint_builder builder;
    CHECK(builder.try_config(read(folder + "/config.json")) && builder.try_tokenizer(read(folder + "/tokenizer.json")));
    auto reader = [&](std::uint64_t offset, std::uint8_t *out, std::size_t size) {
        return static_cast<std::int64_t>(weights.copy(reinterpret_cast<char *>(out), size, offset));
    };
    CHECK(builder.try_add_reader("weights", weights.size(), reader));
    auto checkpoint = builder.try_open();
    CHECK(checkpoint && *checkpoint->try_number(BOLMO_MODEL_LOGITS) == 520 && !checkpoint->try_config_json()->empty());
    CHECK(*checkpoint->try_device_bytes(BOLMO_F16) > 0);
    CHECK(checkpoint->try_warnings() && checkpoint->try_tokenizer_source());
    bolmo::load_options options;
    CHECK(options.try_format(BOLMO_Q4) && options.try_progress(count_progress));
    for (bolmo_part part : {BOLMO_PART_LOCAL, BOLMO_PART_GLOBAL, BOLMO_PART_EMBEDDINGS}) {
        CHECK(options.try_part_format(part, BOLMO_F16));
    }
    CHECK(options.try_rope_theta(1e6) && !options.try_rope_theta(1.0));
    CHECK(options.try_rope_scaling("yarn:factor=8,original=64") && !options.try_rope_scaling("yarn"));
    bolmo::load_options moved = std::move(options);
    auto model = bolmo::model::try_load(engine, *checkpoint, moved);
    CHECK(model && progress_calls > 0 && model->try_fingerprint() && model->try_warnings());
    CHECK(*model->try_device_bytes() == *checkpoint->try_device_bytes(BOLMO_F16));
    CHECK(*model->try_mapped_bytes() == *checkpoint->try_mapped_bytes(engine, BOLMO_F16));

    bolmo::checkpoint_builder in_memory;
    CHECK(in_memory.try_config(read(folder + "/config.json")));
    CHECK(in_memory.try_add_memory("weights", std::move(weights)));
    CHECK(in_memory.try_open());
}

// The demo model's blocks as a subword model, merged with itself: no weight changes, and every tensor is there.
void merges(const std::string &folder) {
    namespace fs = std::filesystem;
    fs::path work = fs::temp_directory_path() / ("bolmo-wrapper-" + std::to_string(std::random_device()()));
    fs::create_directories(work / "base");
    std::string config = read(folder + "/config.json"), kind = "\"model_type\": \"bolmo\"";
    std::size_t at = config.find(kind);
    CHECK(at != std::string::npos);
    if (at != std::string::npos) config.replace(at, kind.size(), "\"model_type\": \"olmo2\"");
    std::ofstream(work / "base" / "config.json", std::ios::binary) << config;
    fs::copy_file(folder + "/model.safetensors", work / "base" / "model.safetensors");
    std::string base = (work / "base").string(), out = (work / "out").string();

    bolmo::merge_options options;
    CHECK(options.try_merge(out).error().status() == BOLMO_INVALID_ARGUMENT);
    CHECK(options.try_bolmo(folder) && options.try_base(base) && options.try_post_trained(base));
    CHECK(options.try_alpha(0.5f) && options.try_embeddings(true));
    CHECK(options.try_merge(out).error().status() == BOLMO_INVALID_ARGUMENT);
    std::uint64_t calls = progress_calls;
    CHECK(options.try_embeddings(false) && options.try_progress(count_progress));
    bolmo::merge_options moved = std::move(options);
    auto report = moved.try_merge(out);
    CHECK(report && report->find("\"moved\":true") != std::string::npos && progress_calls > calls);
    CHECK(read(out + "/model.safetensors") == read(folder + "/model.safetensors") && bolmo::checkpoint::try_open(out));
#ifndef BOLMO_NO_EXCEPTIONS
    moved.bolmo(folder).base(base).post_trained(base).alpha(1).embeddings(false);
    moved.progress([](auto, auto) { return true; });
    CHECK(!moved.merge((work / "again").string()).empty());
#endif
    fs::remove_all(work);
}

// Trains a tiny subword model for a few steps on a sentence, with the tokenizer of TOKENIZER_FOLDER.
void trains(const bolmo::engine &engine, const std::string &tokenizer) {
    namespace fs = std::filesystem;
    fs::path work = fs::temp_directory_path() / ("bolmo-wrapper-" + std::to_string(std::random_device()()));
    const char *toml = "[model.new]\nhidden_size = 32\nlayers = 1\nheads = 2\nintermediate_size = 64\n"
                       "[batch]\nrows = 2\nsubwords = 16\n[optimiser]\nsteps = 10\nrate = 1e-2\n";
    std::string text;
    for (int i = 0; i < 50; i++) text += "The cat sat on the mat.\n";
    bolmo::trainer_options options;
    CHECK(bolmo::trainer::try_create(engine, options).error().status() == BOLMO_INVALID_ARGUMENT);
    CHECK(options.try_set("seed").error().status() == BOLMO_INVALID_ARGUMENT);
    CHECK(options.try_kind(BOLMO_TRAIN_SUBWORD) && options.try_resume(false));
    CHECK(options.try_config(toml));
    CHECK(options.try_set("data.tokenizer=" + tokenizer) && options.try_set("out=" + (work / "run").string()));
    CHECK(options.try_add_text(text) && options.try_add_held_out_text(text));
    bolmo::trainer_options moved = std::move(options);
    auto made = bolmo::trainer::try_create(engine, moved);
    CHECK(made && *made->try_steps() == 0);
    if (!made) return;
    bolmo::trainer trainer = *std::move(made);
    std::string metrics = *trainer.try_evaluate();
    CHECK(metrics.find("\"loss\":") != std::string::npos && trainer.try_step() && trainer.try_step(2));
    auto stopped = trainer.try_step(3, [&](std::string_view json) { return (metrics = json, false); });
    CHECK(stopped.error().status() == BOLMO_CANCELLED && *trainer.try_steps() == 4);
    CHECK(metrics.find("\"step\":4") != std::string::npos);
    CHECK(trainer.try_step(1, [](std::string_view) {}) && trainer.try_cancel() && trainer.try_reset_cancel());
    CHECK(trainer.try_step() && trainer.try_save() && trainer.try_export_model((work / "model").string()));
    CHECK(fs::exists(work / "model" / "config.json"));
#ifndef BOLMO_NO_EXCEPTIONS
    // The folder is free once its trainer is deleted.
    { bolmo::trainer ended = std::move(trainer); }
    bolmo::trainer_options further;
    further.config(toml).set("data.tokenizer=" + tokenizer).set("out=" + (work / "run").string());
    further.kind(BOLMO_TRAIN_SUBWORD).resume(true).add_text(text).add_held_out_text(text);
    auto again = bolmo::trainer::create(engine, further);
    CHECK(again.steps() == 6);
    again.step(1, [](std::string_view) {});
    again.cancel();
    again.reset_cancel();
    again.step();
    again.save();
    again.export_model((work / "model").string());
    CHECK(again.steps() == 8 && again.evaluate() != metrics);
#endif
    fs::remove_all(work);
}

#ifndef BOLMO_NO_EXCEPTIONS
struct odd {};
template <class E, class F> bool throws(F work) {
    try {
        work();
    } catch (const E &) {
        return true;
    }
    return false;
}

// Exceptions of a callback arrive at the caller, and the objects are still usable.
void exceptions(const bolmo::engine &engine, const bolmo::model &model, const std::string &folder) {
    CHECK(throws<bolmo::error>([] { bolmo::checkpoint::open("/nowhere"); }));
    CHECK(throws<bolmo::error>([] { bolmo::generate_options().max_bytes(9).temperature(-1); }));
    CHECK(throws<bolmo::error>([] { bolmo::engine_options().adapter("cpu").threads(1).threads(257); }));
    auto session = bolmo::session::create(model);
    session.append_bos();
    CHECK(throws<odd>([&] { session.append("some text", [](auto, auto) { throw odd(); }); }));
    session.reset_cancel();
    session.append("more");
    std::size_t calls = 0;
    CHECK(throws<odd>([&] {
        session.generate({}, [&](std::string_view) {
            calls++;
            throw odd();
        });
    }));
    CHECK(throws<odd>([&] { (void)session.try_generate({}, [](std::string_view) { throw odd(); }); }));
    bolmo::session *sessions[] = {&session};
    CHECK(throws<odd>([&] {
        bolmo::generate_batch(bolmo::span<bolmo::session *const>(sessions, 1),
                              bolmo::span<const bolmo::generate_options *const>(),
                              [](std::size_t, std::string_view) { throw odd(); });
    }));
    auto batch = bolmo::batch::create();
    CHECK(batch.add(session, bolmo::generate_options().max_bytes(9).logprobs(true)) == 0);
    CHECK(throws<odd>([&] { batch.run([](std::size_t, std::string_view) { throw odd(); }); }));
    batch.run();
    auto stopped = batch.generation(0);
    CHECK(stopped.stop() == BOLMO_STOP_CANCELLED && stopped.logprobs(BOLMO_LOGPROB_FOLDED).size() > 0);
    CHECK(model.score("ab").logprobs(BOLMO_LOGPROB_JOINT).size() == 2);
    CHECK(calls == 1 && !session.generate(bolmo::generate_options().max_bytes(5)).text().empty());

    bolmo::load_options options;
    options.part_format(BOLMO_PART_GLOBAL, BOLMO_Q8);
    options.progress([](auto, auto) -> bool { throw odd(); });
    CHECK(throws<odd>([&] { bolmo::model::load(engine, bolmo::checkpoint::open(folder), options); }));
    bolmo::checkpoint_builder builder;
    builder.config(read(folder + "/config.json"));
    builder.add_reader("weights", 1 << 20, [](auto, auto, auto) -> std::int64_t { throw odd(); });
    CHECK(throws<odd>([&] { builder.open(); }));
}
#endif

} // namespace

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    small_things();
    {
        auto engine = bolmo::engine::try_create();
        auto checkpoint = bolmo::checkpoint::try_open(argv[1]);
        CHECK(engine && checkpoint);
        if (failures > 0) return 1;
        CHECK(!engine->try_text(BOLMO_ADAPTER_NAME)->empty() && *engine->try_number(BOLMO_ADAPTER_USABLE) == 1);
        auto model = bolmo::model::try_load(*engine, *checkpoint);
        CHECK(model);
        if (failures > 0) return 1;
        sessions(*model);
        batches(*model);
        checkpoints(*engine, argv[1]);
        merges(argv[1]);
        auto training = bolmo::engine::try_create();
        CHECK(training);
        if (training) trains(*training, argv[2]);
#ifndef BOLMO_NO_EXCEPTIONS
        exceptions(*engine, *model, argv[1]);
#endif
    }
    CHECK(bolmo::handle_count() == 0);
    std::puts(failures == 0 ? "bolmo.hpp: all is well" : "bolmo.hpp: FAILED");
    return failures != 0;
}
