// Text that must match: a date by a regular expression, and JSON by a schema.
//
//   constrained MODEL_FOLDER [SCHEMA_FILE]

#include <bolmo.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

namespace {

constexpr std::string_view date = "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
constexpr std::string_view built_in_schema = R"({
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "kind": {"enum": ["class", "function", "module"]},
        "lines": {"type": "integer", "minimum": 0, "maximum": 999}
    },
    "required": ["name", "kind", "lines"],
    "additionalProperties": false
})";

std::string read(const char *path) {
    std::ifstream file(path, std::ios::binary);
    std::string data{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error(std::string(path) + ": can't be read");
    return data;
}

// Continues the prompt. Returns whether the text matches.
bool write(const bolmo::model &model, std::string_view prompt, const bolmo::constraint &constraint) {
    bolmo::generate_options options;
    // A budget below the shortest match would cut the text, so it always has some room above that.
    options.max_bytes(constraint.shortest() + 80).temperature(0.8f).seed(1).constraint(constraint);
    auto session = bolmo::session::create(model);
    session.append_bos();
    session.append(prompt);
    std::cout << prompt;
    auto made = session.generate(options, [](std::string_view bytes) { std::cout << bytes << std::flush; });
    bool matched = made.matched() && constraint.matches(made.bytes());
    std::cout << "\n-- " << (matched ? "matched" : "not matched") << '\n';
    return matched;
}

} // namespace

int main(int argc, char **argv) try {
    if (argc != 2 && argc != 3) {
        std::cerr << "usage: constrained MODEL_FOLDER [SCHEMA_FILE]\n";
        return 2;
    }
    // Compiled first: an unsupported schema is reported before anything is loaded.
    auto regex = bolmo::constraint::regex(date);
    auto schema = bolmo::constraint::json_schema(argc == 3 ? read(argv[2]) : std::string(built_in_schema));
    auto engine = bolmo::engine::create();
    auto model = bolmo::model::load(engine, bolmo::checkpoint::open(argv[1]));
    bool dated = write(model, "# Written on ", regex);
    bool valid = write(model, "entry = ", schema);
    return dated && valid && std::cout.flush() ? 0 : 1;
} catch (const std::exception &e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
}
