// A configuration is its operator's, but a slip in it must never be more than one line that says where it is.
#include "gateway/config/config.hpp"

#include "diskferry/assert.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace diskferry;
  const auto config = parse_config(std::string_view(reinterpret_cast<const char*>(data), size), "x.toml");
  if (config) return 0;
  const std::string message = config.error().message();
  DISKFERRY_ASSERT(message.find('\n') == std::string::npos, "an error of a configuration is one line");
  DISKFERRY_ASSERT(message.find("x.toml") != std::string::npos, "an error of a configuration names its file");
  return 0;
}
