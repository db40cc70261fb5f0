// A conversation on the terminal: your input goes into one session, and the model answers from it.
//
//   chat MODEL_FOLDER [MAX_BYTES]
//
// The framing is plain text, "User: …" and "Assistant:", which any model can continue without tuning.

#include <bolmo.hpp>

#include <charconv>
#include <iostream>
#include <string>

namespace {

constexpr std::string_view stop = "\nUser:";

// Shows whole characters only: a chunk of output may end in the middle of one.
void show(std::string_view text) {
    std::cout << text << std::flush;
    if (!std::cout) throw std::runtime_error("standard output cannot be written");
}

void chat(std::string_view folder, std::size_t max_bytes) {
    auto engine = bolmo::engine::create();
    auto model = bolmo::model::load(engine, bolmo::checkpoint::open(folder));
    auto session = bolmo::session::create(model);
    session.append_bos();

    bolmo::generate_options options;
    options.max_bytes(max_bytes).temperature(0.7f).top_p(0.95f).add_stop(stop);
    bolmo::utf8_assembler characters;
    std::string line, opening = "User: ";
    for (std::uint64_t turn = 0; show("> "), std::getline(std::cin, line); turn++) {
        session.append(opening + line + "\nAssistant:");
        auto print = [&](std::string_view bytes) { show(characters.push(bytes)); };
        auto answer = session.generate(options.seed(turn), print);
        show(characters.finish());
        show("\n");
        // If a stop string ended the answer, the session contains it already.
        opening = answer.stop() == BOLMO_STOP_STRING ? " " : "\nUser: ";
        if (answer.stop() == BOLMO_STOP_END) {
            // The model ended the whole text; the conversation continues in a new one.
            session = bolmo::session::create(model);
            session.append_bos();
            opening = "User: ";
        }
    }
    show("\n");
    std::cerr << session.length() << " ids in " << session.patches() << " patches\n";
}

} // namespace

int main(int argc, char **argv) try {
    std::size_t max_bytes = 200;
    if (argc == 3) {
        std::string_view text = argv[2];
        auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), max_bytes);
        if (problem != std::errc() || end != text.data() + text.size()) argc = 0;
    }
    if (argc != 2 && argc != 3) {
        std::cerr << "usage: chat MODEL_FOLDER [MAX_BYTES]\n";
        return 2;
    }
    chat(argv[1], max_bytes);
    return 0;
} catch (const std::exception &e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
}
