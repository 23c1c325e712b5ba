// See qcow2_images.hpp.
#include "tests/interop/qcow2_images.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include <boost/json.hpp>

namespace diskferry::test {

std::uint64_t test_seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("DISKFERRY_SEED");
    const std::uint64_t chosen =
        given != nullptr
            ? std::strtoull(given, nullptr, 10)
            : static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    std::cout << "DISKFERRY_SEED=" << chosen << '\n';
    return chosen;
  }();
  return seed;
}

std::string run_ok(const std::vector<std::string>& arguments) {
  const auto result = run_program(arguments);
  if (result.exit_code != 0) {
    std::string line;
    for (const auto& one : arguments) line += one + " ";
    throw std::runtime_error(line + "failed: " + result.err + result.out);
  }
  return result.out;
}

void create_with_qemu(const ImageRecipe& recipe) {
  std::vector<std::string> arguments{"qemu-img", "create", "-q", "-f", "qcow2"};
  if (!recipe.options.empty()) arguments.insert(arguments.end(), {"-o", recipe.options});
  // -u: the name is as in the header, relative to the image; qemu-img would look for it from here.
  if (!recipe.backing.empty())
    arguments.insert(arguments.end(), {"-u", "-b", recipe.backing, "-F", recipe.backing_format});
  arguments.push_back(recipe.path);
  arguments.push_back(std::to_string(recipe.size_bytes));
  run_ok(arguments);
}

namespace {

void scribble_once(const std::string& path, const ScribbleRules& rules, std::mt19937_64& random) {
  std::vector<std::string> arguments{"qemu-io", "-f", rules.format};
  const auto pick = [&](std::uint64_t below) { return below == 0 ? 0 : random() % below; };
  for (unsigned i = 0; i < rules.steps; ++i) {
    // Regions of up to four clusters, some in a row, aligned to 512.
    const std::uint64_t length_max = std::min<std::uint64_t>(rules.cluster_bytes * 4, 1 * mib);
    std::uint64_t length = align_up(1 + pick(length_max), 512);
    length = std::min(length, rules.size_bytes);
    std::uint64_t offset = align_down(pick(rules.size_bytes - length + 1), 512);
    std::string command;
    const std::uint64_t kind = pick(10);
    if (kind < 2 && rules.zeroes) {
      command = fmt::format("write -z {} {} {}", kind == 0 ? "-u" : "", offset, length);
    } else if (kind == 2 && rules.zeroes) {
      command = fmt::format("discard {} {}", offset, length);
    } else if (kind < 7 && rules.compressed) {
      offset = align_down(offset, rules.cluster_bytes);
      length = std::min(align_up(length, rules.cluster_bytes), rules.size_bytes - offset);
      if (length > 2 * mib) length = 2 * mib;
      command = fmt::format("write -c -P {} {} {}", 1 + pick(255), offset, length);
    } else {
      command = fmt::format("write -P {} {} {}", 1 + pick(255), offset, length);
    }
    arguments.insert(arguments.end(), {"-c", command});
  }
  arguments.push_back(path);
  // QEMU refuses compressed writes over clusters that are in use; such steps just did nothing.
  (void)run_program(arguments);
}

/// QEMU 7.2 makes images that it cannot read itself: a cluster of 2 MiB that holds compressed ones too is
/// taken for a writer's own.
bool is_sound_to_qemu(const std::string& path) {
  constexpr int corrupt = 2;
  return run_program({"qemu-img", "check", "-q", "-f", "qcow2", path}).exit_code != corrupt;
}

}  // namespace

void scribble(const std::string& path, const ScribbleRules& rules, std::mt19937_64& random) {
  if (rules.format != "qcow2" || !rules.compressed) return scribble_once(path, rules, random);
  const std::string before = path + ".before";
  std::filesystem::copy_file(path, before);
  scribble_once(path, rules, random);
  for (int i = 0; i < 20 && !is_sound_to_qemu(path); ++i) {
    std::filesystem::copy_file(before, path, std::filesystem::copy_options::overwrite_existing);
    scribble_once(path, rules, random);
  }
  std::filesystem::remove(before);
}

std::vector<Extent> qemu_map(const std::string& path, const std::string& format) {
  const auto parsed = boost::json::parse(run_ok({"qemu-img", "map", "--output=json", "-f", format, path}));
  std::vector<Extent> extents;
  for (const auto& value : parsed.as_array()) {
    const auto& row = value.as_object();
    Extent extent{.offset = row.at("start").to_number<std::uint64_t>(),
                  .length = row.at("length").to_number<std::uint64_t>(),
                  .reads_zero = row.at("zero").as_bool(),
                  .depth = row.at("present").as_bool() ? row.at("depth").to_number<std::uint32_t>()
                                                       : Extent::depth_none};
    if (row.contains("offset")) extent.host_offset = row.at("offset").to_number<std::uint64_t>();
    extents.push_back(extent);
  }
  return comparable(extents);
}

std::vector<Extent> comparable(const std::vector<Extent>& extents) {
  std::vector<Extent> plain;
  for (Extent extent : extents) {
    extent.is_hole = false;
    extent.is_compressed = false;
    if (extent.reads_zero) extent.host_offset = Extent::no_host_offset;
    append_merged(plain, extent);
  }
  return plain;
}

std::string describe(const std::vector<Extent>& extents) {
  std::string text;
  for (const Extent& one : extents)
    text += fmt::format("{:>12} +{:<10} {} depth {} at {}\n", one.offset, one.length,
                        one.reads_zero ? "zero" : "data", static_cast<std::int32_t>(one.depth),
                        static_cast<std::int64_t>(one.host_offset));
  return text;
}

namespace {
Task<Result<std::vector<Extent>>> map_all(BlockDevice& device, std::size_t extents_max) {
  std::vector<Extent> all;
  std::uint64_t at = 0;
  while (at < device.size_bytes()) {
    DISKFERRY_CO_TRY(const auto some, co_await device.extents({at, device.size_bytes() - at}, extents_max));
    for (const Extent& one : some) append_merged(all, one);
    at = some.back().end();
  }
  co_return all;
}

struct ReadState {
  BlockDevice& device;
  std::vector<std::byte>& into;
  std::vector<Range> parts;
  std::atomic<std::size_t> next = 0;
};
Task<Result<void>> read_parts(ReadState& state) {
  while (true) {
    const std::size_t i = state.next++;
    if (i >= state.parts.size()) co_return Result<void>{};
    const Range part = state.parts[i];
    const auto into = std::span(state.into).subspan(part.offset, part.length);
    if (auto now = state.device.try_read(part.offset, into)) {
      if (!*now) co_return *now;
    } else {
      DISKFERRY_CO_CHECK(co_await state.device.read(part.offset, into));
    }
  }
}
Task<Result<void>> read_all_parts(ReadState& state) {
  TaskGroup tasks(test::runtime().reactor(0));
  for (std::size_t i = 0; i < 4; ++i) tasks.spawn_on(test::runtime().reactor(i % 2), read_parts(state));
  co_return co_await tasks.join();
}
}  // namespace

std::vector<Extent> our_map(Image& image, std::size_t extents_max) {
  return must(run(map_all(image.device(), extents_max)));
}

std::vector<std::byte> our_content(Image& image, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> content(image.device().size_bytes(), std::byte{0xee});
  ReadState state{.device = image.device(), .into = content, .parts = {}};
  for (std::uint64_t at = 0; at < content.size();) {
    const std::uint64_t sizes[] = {1 + random() % 5000, 4096, 65536, 256 * kib, 1 + random() % (3 * mib)};
    const std::uint64_t length = std::min<std::uint64_t>(sizes[random() % 5], content.size() - at);
    state.parts.push_back({at, length});
    at += length;
  }
  must(run(read_all_parts(state)));
  return content;
}

std::vector<std::byte> qemu_content(const std::string& path, const std::string& format,
                                    const std::string& scratch) {
  run_ok({"qemu-img", "convert", "-f", format, "-O", "raw", path, scratch});
  std::ifstream in(scratch, std::ios::binary | std::ios::ate);
  std::vector<std::byte> content(static_cast<std::size_t>(in.tellg()));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
  return content;
}

Result<Image> try_open(const std::string& path, ImageOpenOptions options) {
  return run(open_image(runtime().context(), ImageUri::from_path(path), std::move(options)));
}
Image open_for_test(const std::string& path, ImageOpenOptions options) {
  return must(try_open(path, std::move(options)));
}

}  // namespace diskferry::test
