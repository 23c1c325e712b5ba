// Defaults of the optional verbs.
#include "diskferry/block_device.hpp"

namespace diskferry {

std::optional<Result<void>> BlockDevice::try_read(std::uint64_t, std::span<std::byte>) {
  return std::nullopt;
}
std::optional<Result<void>> BlockDevice::try_write(std::uint64_t, std::span<const std::byte>) {
  return std::nullopt;
}
Task<Result<void>> BlockDevice::prefetch(Range) {
  co_return Result<void>{};
}
Task<Result<void>> BlockDevice::start_writeback(Range) {
  co_return Result<void>{};
}
Task<Result<std::uint64_t>> BlockDevice::copy_from(BlockDevice&, std::uint64_t, std::uint64_t,
                                                   std::uint64_t) {
  co_return std::uint64_t{0};
}

}  // namespace diskferry
