// See table_stream.hpp.
#include "drivers/image/qcow2/table_stream.hpp"

#include "diskferry/units.hpp"
#include "drivers/image/qcow2/storage_read.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {
constexpr std::uint64_t window_bytes = 64 * kib;
}

Task<Result<std::span<const std::byte>>> TableStream::next(std::size_t bytes) {
  if (window_.size() - at_ < bytes) {
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(at_));
    at_ = 0;
    const std::uint64_t missing = bytes - window_.size();
    if (left_.length < missing || !is_inside({left_.offset, missing}, storage_.size_bytes()))
      co_return unexpected(fail(ErrorKind::corrupt, fmt::format("read {}", what_), storage_.info().name)
                               .why(fmt::format("the {} ends inside an entry", what_))
                               .at(left_.offset, missing));
    const std::uint64_t now =
        std::min({std::max(missing, window_bytes), left_.length, storage_.size_bytes() - left_.offset});
    const std::size_t kept = window_.size();
    window_.resize(kept + now);
    DISKFERRY_CO_CHECK(co_await read_storage(storage_, left_.offset, std::span(window_).subspan(kept)));
    left_.offset += now;
    left_.length -= now;
  }
  const auto found = std::span<const std::byte>(window_).subspan(at_, bytes);
  at_ += bytes;
  position_ += bytes;
  co_return found;
}

Task<Result<void>> TableStream::align() {
  const std::size_t skip = align_up(position_, 8) - position_;
  // The padding of the last entry may be missing, also because the file ends there.
  if (skip > window_.size() - at_ && (left_.empty() || left_.offset + skip > storage_.size_bytes()))
    co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await next(skip));
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
