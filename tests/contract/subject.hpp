// A device under test: how to make one of a given size, and what may be expected of it beyond the contract. A
// new driver adds a line in devices.cpp; the cases know nothing of any driver.
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/filters/fault.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace diskferry::test {

/// An open device. Declared in the order in which it is torn down, backwards: the device goes first.
struct Opened {
  std::shared_ptr<void> ground = {};                ///< the folder or server below; ends last
  std::shared_ptr<FaultControl> faults_below = {};  ///< where there is a fault device underneath
  std::shared_ptr<BlockDevice> device = {};         ///< behind checked()
  std::function<std::vector<std::byte>()> storage =
      {};  ///< reads the bytes past our code; empty: no such way
};

struct Subject {
  std::string name;
  std::function<Opened(std::uint64_t size_bytes)> open = {};
  std::uint64_t size_unit = 1;    ///< sizes are multiples of this
  bool is_sparse = true;          ///< 8 TiB cost nothing
  bool has_faults_below = false;  ///< open() sets faults_below
  unsigned slowness = 1;          ///< divides how often things are repeated
};
inline std::ostream& operator<<(std::ostream& out, const Subject& subject) {
  return out << subject.name;
}

std::vector<Subject> all_subjects();
/// Those of them that are on a server.
std::vector<Subject> storage_subjects();
/// All of a file, as other programs see it.
std::vector<std::byte> bytes_of_file(const std::string& path);

}  // namespace diskferry::test
