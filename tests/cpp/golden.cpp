// Golden digests without Python: runs the cases of tests/golden.txt through the plan, on any machine.
//
//     golden                                  the instruction sets that this machine runs
//     golden TABLE FOLDER INSTRUCTION-SET
//
// Every line of the table is `digest  key`. Here a key becomes a file's name under FOLDER, and the file's bytes are those
// that the digest is of: `sha256sum -c` finds the differences, `cmp` where they are. A key that says what this program
// does not know is an error. .ci/aarch64 does all of this.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "calls.hpp"

namespace golden {
namespace {

std::vector<std::string> parts(const std::string& text, char by) {
    std::vector<std::string> found;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, by);) found.push_back(part);
    return found;
}

std::vector<index> numbers(const std::string& text, char by) {
    std::vector<index> found;
    for (const std::string& part : parts(text, by)) found.push_back(std::stol(part));
    return found;
}

// Keys of inputs are x/shape/groups/dtype and name/length/dtype.
void put_parameter(const std::string& name, index n, Results& out) {
    const std::pair<const char*, Number> known[] = {
        {"weight", WEIGHT}, {"bias", BIAS}, {"running_mean", RUNNING_MEAN}, {"running_var", RUNNING_VAR}};
    for (const auto& [known_name, array] : known)
        if (name == known_name) return out.put(parameter<float>(array, n));
    if (name == "mask") return out.put(parameter<std::uint8_t>(MASK, n));
    if (name == "weights") return out.put(parameter<double>(WEIGHTS, n));
    throw std::invalid_argument("no array " + name);
}

template <class S>
void run(const Case& c, Results& out) {
    c.name == "x" ? out.put(c.data<S>(X)) : call<S>(c, out);
}

void run(const std::string& key, Results& out) {
    const std::vector<std::string> given = parts(key, '/');
    if (given.size() == 3) return put_parameter(given[0], std::stol(given[1]), out);
    Case c;
    c.name = given.at(0);
    c.shape = numbers(given.at(1), 'x');
    const std::vector<index> groups = numbers(given.at(given.size() - 2).substr(std::string("groups=").size()), ':');
    c.inner = groups.at(0);
    c.number = groups.at(1);
    if (given.size() == 5)
        for (const index axis : numbers(given[2].substr(std::string("axis=").size()), ','))
            c.axes.push_back(int(axis < 0 ? axis + index(c.shape.size()) : axis));
    const std::string& dtype = given.back();
    if (dtype == "float32") return run<float>(c, out);
    if (dtype == "float64") return run<double>(c, out);
    if (dtype == "float16") return run<Float16>(c, out);
    if (dtype == "bfloat16") return run<BFloat16>(c, out);
    throw std::invalid_argument("no dtype " + dtype);
}

void run_table(const std::string& table, const std::filesystem::path& folder) {
    std::ifstream lines(table);
    int count = 0;
    for (std::string digest, key; lines >> digest >> key; ++count) {
        const std::filesystem::path to = folder / key;
        std::filesystem::create_directories(to.parent_path());
        std::ofstream file(to, std::ios::binary);
        Results out(file);
        try {
            run(key, out);
        } catch (const std::exception& error) {
            throw std::runtime_error(key + ": " + error.what());
        }
        if (!file.flush()) throw std::runtime_error("cannot write " + to.string());
    }
    if (count == 0) throw std::runtime_error("no digests in " + table);
}

}   // namespace
}   // namespace golden

int main(int argc, char** argv) {
    try {
        if (argc == 4) {
            onepass::use_isa(argv[3]);
            golden::run_table(argv[1], argv[2]);
        } else if (argc == 1) {
            for (const onepass::Isa* isa : onepass::available_isas()) std::cout << isa->name << '\n';
        } else {
            throw std::invalid_argument("expected no arguments, or TABLE FOLDER INSTRUCTION-SET");
        }
    } catch (const std::exception& error) {
        std::cerr << "golden: " << error.what() << '\n';
        return 1;
    }
}
