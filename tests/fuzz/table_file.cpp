// Reads whatever bytes come as the table of a broken move: no crash, nothing outside the table, and what is
// read can be written and read again as the same. The first byte says what is built around the others, since
// no fuzzer guesses a checksum: nothing, the checksum, or a header that fits, too.
#include "gateway/mirror/table_file.hpp"

#include "diskferry/units.hpp"
#include "gateway/runtime/runtime.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace {

using Bytes = std::vector<std::byte>;

constexpr TableShape shape{.size_bytes = 3 * mib + 512, .block_bytes = 4096, .bytes_max = 64 * kib};
const std::string identity = "there";

Runtime& runtime() {
  static Runtime instance(RuntimeOptions{.reactors = 1, .blocking_threads = 1, .buffer_bytes = 1u << 20});
  return instance;
}

const std::filesystem::path& path() {
  static const auto chosen =
      std::filesystem::temp_directory_path() / ("diskferry-fuzz-table-" + std::to_string(::getpid()));
  return chosen;
}

template <class T>
void put(Bytes& into, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_big(bytes.data(), value);
  into.insert(into.end(), bytes.begin(), bytes.end());
}

/// A header for `zero_ranges` ranges and as many entries as the rest of the body has room for.
Bytes with_header(std::span<const std::byte> body, std::uint64_t zero_ranges) {
  zero_ranges = std::min<std::uint64_t>(zero_ranges, body.size() / 16);
  const std::uint64_t entries = (body.size() - zero_ranges * 16) / 24;
  Bytes file;
  put(file, std::uint64_t{0x444677696e746231});
  put(file, std::uint32_t{1});
  put(file, shape.size_bytes);
  put(file, shape.block_bytes);
  put(file, static_cast<std::uint32_t>(identity.size()));
  put(file, std::uint32_t{0});
  put(file, std::uint64_t{7});
  put(file, zero_ranges);
  put(file, entries);
  for (const char letter : identity) file.push_back(static_cast<std::byte>(letter));
  const auto used = body.first(zero_ranges * 16 + entries * 24);
  file.insert(file.end(), used.begin(), used.end());
  return file;
}

void write(const Bytes& bytes) {
  std::ofstream file(path(), std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

Result<std::unique_ptr<BlockTable>> load() {
  return runtime().run(
      load_block_table(runtime().context(), path(), {.target_identity = identity, .shape = shape}));
}

Bytes content(const BlockTable& table) {
  Bytes all;
  for (const Range& range : table.durable_zero_blocks()) {
    put(all, range.offset);
    put(all, range.length);
  }
  std::vector<BlockTable::Entry> entries;
  std::uint64_t cursor = 0;
  while (table.durable_entries(cursor, 64, entries)) {
  }
  for (const auto& entry : entries) {
    put(all, entry.block);
    put(all, entry.hash.high);
    put(all, entry.hash.low);
  }
  return all;
}

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void read_and_repeat() {
  auto table = load();
  if (!table) return;
  check(!std::filesystem::exists(path()), "a table that was believed must be gone");
  for (std::uint64_t block = 0; block < (*table)->blocks(); ++block) (void)(*table)->known(block);
  const Bytes before = content(**table);
  const auto saved = runtime().run(save_block_table(runtime().context(), **table, path(), identity));
  check(saved.has_value(), "what was read cannot be written");
  auto again = load();
  check(again.has_value(), "what was written cannot be read");
  check(content(**again) == before, "what was written is read as something else");
}

}  // namespace
}  // namespace diskferry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace diskferry;
  if (size < 2 || size > 64 * kib) return 0;
  const auto bytes = std::as_bytes(std::span(data, size));
  Bytes file(bytes.begin() + 2, bytes.end());
  if (data[0] >= 2) file = with_header(bytes.subspan(2), data[1]);
  if (data[0] >= 1) {
    const XXH128_hash_t hash = XXH3_128bits(file.data(), file.size());
    put(file, hash.high64);
    put(file, hash.low64);
  }
  write(file);
  read_and_repeat();
  std::filesystem::remove(path());
  return 0;
}
