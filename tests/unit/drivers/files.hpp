// The file driver as its tests use it: through the registry and the checking layer, by a path.
#pragma once

#include "drivers/registry.hpp"
#include "tests/support/test_runtime.hpp"

#include <string>
#include <vector>

namespace diskferry::test {

inline Result<DevicePtr> open(const std::string& path, OpenOptions options = {}) {
  return run(open_storage(runtime().context(), ImageUri::from_path(path), options));
}
inline Result<DevicePtr> open_to_write(const std::string& path) {
  return open(path, {.writable = true});
}
inline Result<void> create(const std::string& path, CreateOptions options) {
  return run(create_storage(runtime().context(), ImageUri::from_path(path), options));
}
inline std::string make_file(const std::string& path, std::uint64_t size_bytes) {
  must(create(path, {.size_bytes = size_bytes}));
  return path;
}
inline std::vector<std::byte> read_back(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  std::vector<std::byte> bytes(length);
  must(run(device.read(offset, bytes)));
  return bytes;
}

}  // namespace diskferry::test
