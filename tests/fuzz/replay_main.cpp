// Runs files through a fuzz target without libFuzzer: `TARGET FILE-OR-FOLDER...`. Linked to every target
// where the compiler's fuzzer is not; ctest calls it with the target's corpus. An empty corpus is a failure:
// a replay of nothing must not look like a pass.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {
namespace fs = std::filesystem;

std::vector<fs::path> inputs_of(int count, char** names) {
  std::vector<fs::path> inputs;
  for (int i = 1; i < count; ++i) {
    if (!fs::is_directory(names[i])) {
      inputs.emplace_back(names[i]);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(names[i])) {
      if (entry.is_regular_file()) inputs.push_back(entry.path());
    }
  }
  std::ranges::sort(inputs);
  return inputs;
}

void replay(const fs::path& input) {
  // The name comes first: when the target ends the process, the last line tells which input did it.
  std::fprintf(stderr, "%s\n", input.c_str());
  std::ifstream file(input, std::ios::binary);
  if (!file) throw fs::filesystem_error("cannot read", input, std::make_error_code(std::errc::io_error));
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  // A block of exactly this size, so that AddressSanitizer sees one byte too far.
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
  (void)LLVMFuzzerTestOneInput(exact.data(), exact.size());
}
}  // namespace

int main(int count, char** names) {
  try {
    const auto inputs = inputs_of(count, names);
    for (const auto& input : inputs) replay(input);
    std::fprintf(stderr, "%zu inputs replayed\n", inputs.size());
    return inputs.empty() ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
