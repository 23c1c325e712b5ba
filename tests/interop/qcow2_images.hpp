// Images made by qemu-img and qemu-io, from a seed, and what QEMU says of them.
#pragma once

#include "diskferry/extent.hpp"
#include "drivers/image/image.hpp"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace diskferry::test {

/// The seed of this run: DISKFERRY_SEED, else from the clock. Prints it once.
std::uint64_t test_seed();

struct ImageRecipe {
  std::string path{};
  std::string options{};  ///< as qemu-img create -o
  std::string backing{};  ///< as named in the header; empty: none
  std::string backing_format = "qcow2";
  std::uint64_t size_bytes = 0;
};
/// qemu-img create. Throws when it fails.
void create_with_qemu(const ImageRecipe& recipe);

struct ScribbleRules {
  std::uint64_t size_bytes = 0;
  std::uint64_t cluster_bytes = 65536;
  unsigned steps = 40;
  bool zeroes = true;       ///< write -z with and without -u
  bool compressed = false;  ///< write -c
  std::string format = "qcow2";
};
/// Random writes, zeroes, discards and compressed writes by qemu-io; of images that QEMU takes for sound
/// afterwards.
void scribble(const std::string& path, const ScribbleRules& rules, std::mt19937_64& random);

/// What `qemu-img map --output=json` says, in our words: see comparable().
std::vector<Extent> qemu_map(const std::string& path, const std::string& format = "qcow2");
/// Extents as far as both programs tell them: present (depth), zero, and of data where they lie.
std::vector<Extent> comparable(const std::vector<Extent>& extents);
std::string describe(const std::vector<Extent>& extents);

/// Everything our reader says of an image. Throws on an error.
std::vector<Extent> our_map(Image& image, std::size_t extents_max);
/// The whole disk, by requests of random sizes, four at a time on both reactors.
std::vector<std::byte> our_content(Image& image, std::uint64_t seed);
/// The content as `qemu-img convert -O raw` gives it.
std::vector<std::byte> qemu_content(const std::string& path, const std::string& format,
                                    const std::string& scratch);

Image open_for_test(const std::string& path, ImageOpenOptions options = {});
Result<Image> try_open(const std::string& path, ImageOpenOptions options = {});

/// Runs a program that must succeed; returns its stdout.
std::string run_ok(const std::vector<std::string>& arguments);

}  // namespace diskferry::test
