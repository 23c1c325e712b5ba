// See the header.
#include "gateway/move/endpoints.hpp"

#include "diskferry/image_uri.hpp"

#include <spdlog/spdlog.h>

namespace diskferry {

std::function<void(const std::string&, std::uint64_t)> log_of_reopened(const std::string& name) {
  return [name = printable(name)](const std::string& storage, std::uint64_t bytes) {
    spdlog::warn(
        "export {}: {} was lost and is open again; {} bytes that it may have lost were written again", name,
        storage, bytes);
  };
}

}  // namespace diskferry
