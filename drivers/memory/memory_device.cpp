// Pages in a map under one mutex; a page that is not there reads as zeros.
#include "drivers/memory/memory_device.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

namespace diskferry {
namespace {

constexpr std::uint64_t page_bytes = 64 * kib;
using Page = std::array<std::byte, page_bytes>;

class MemoryDevice final : public BlockDevice {
 public:
  explicit MemoryDevice(const MemoryOptions& options) : size_bytes_(options.size_bytes) {
    info_.name = "memory";
    info_.block_bytes = options.block_bytes;
    info_.preferred_bytes = std::max<std::uint32_t>(4096, options.block_bytes);
    info_.zero = options.zero;
    info_.is_read_only = options.read_only;
    info_.can_discard = options.can_discard;
    info_.can_report_extents = options.can_report_extents;
    info_.can_fua = options.can_fua;
    info_.can_grow = options.can_grow;
    info_.can_multi_connection = options.can_multi_connection;
    info_.starts_zeroed = true;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_.load(std::memory_order_relaxed); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    read_now(offset, into);
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags) override {
    write_now(offset, from);
    co_return Result<void>{};
  }
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    read_now(offset, into);
    return Result<void>{};
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    write_now(offset, from);
    return Result<void>{};
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    std::lock_guard lock(guard_);
    grow_to(range.end());
    if (!flags.may_unmap) {
      for (std::uint64_t at = align_down(range.offset, page_bytes); at < range.end(); at += page_bytes)
        page(at);
    }
    zero(range, flags.may_unmap);
    co_return Result<void>{};
  }

  Task<Result<void>> discard(Range range) override {
    std::lock_guard lock(guard_);
    zero(range, true);
    co_return Result<void>{};
  }
  Task<Result<void>> flush() override { co_return Result<void>{}; }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    std::lock_guard lock(guard_);
    std::vector<Extent> found;
    std::uint64_t at = range.offset;
    auto next = pages_.lower_bound(align_down(at, page_bytes));
    while (at < range.end() && found.size() < extents_max) {
      const bool is_data = next != pages_.end() && next->first <= at;
      std::uint64_t end = range.end();
      if (is_data) {
        end = std::min(end, next->first + page_bytes);
        ++next;
      } else if (next != pages_.end()) {
        end = std::min(end, next->first);
      }
      append_merged(found, {.offset = at, .length = end - at, .reads_zero = !is_data, .is_hole = !is_data});
      at = end;
    }
    co_return found;
  }

  Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  /// Calls visit(page offset, offset in page, offset in range, length) for each page of the range.
  template <class Visit>
  static void each_page(Range range, Visit visit) {
    std::uint64_t done = 0;
    while (done < range.length) {
      const std::uint64_t at = range.offset + done;
      const std::uint64_t first = align_down(at, page_bytes);
      const std::uint64_t now = std::min(range.length - done, first + page_bytes - at);
      visit(first, at - first, done, now);
      done += now;
    }
  }
  Page& page(std::uint64_t at) {
    auto& found = pages_[at];
    if (!found) found = std::make_unique<Page>();
    return *found;
  }
  void grow_to(std::uint64_t end) {
    if (end > size_bytes()) size_bytes_.store(end, std::memory_order_relaxed);
  }
  void read_now(std::uint64_t offset, std::span<std::byte> into) {
    std::lock_guard lock(guard_);
    each_page({offset, into.size()}, [&](auto first, auto in_page, auto done, auto now) {
      const auto found = pages_.find(first);
      if (found == pages_.end()) {
        std::memset(into.data() + done, 0, now);
      } else {
        std::memcpy(into.data() + done, found->second->data() + in_page, now);
      }
    });
  }
  void write_now(std::uint64_t offset, std::span<const std::byte> from) {
    std::lock_guard lock(guard_);
    grow_to(offset + from.size());
    each_page({offset, from.size()}, [&](auto first, auto in_page, auto done, auto now) {
      std::memcpy(page(first).data() + in_page, from.data() + done, now);
    });
  }
  void zero(Range range, bool may_unmap) {
    for (auto at = pages_.lower_bound(align_down(range.offset, page_bytes));
         at != pages_.end() && at->first < range.end();) {
      const Range part = intersect({at->first, page_bytes}, range);
      if (may_unmap && part.length == page_bytes) {
        at = pages_.erase(at);
      } else {
        std::memset(at->second->data() + (part.offset - at->first), 0, part.length);
        ++at;
      }
    }
  }

  DeviceInfo info_;
  std::atomic<std::uint64_t> size_bytes_;
  std::mutex guard_;
  std::map<std::uint64_t, std::unique_ptr<Page>> pages_;
};

Task<Result<DevicePtr>> open_memory(DriverContext&, ImageUri uri, OpenOptions options) {
  MemoryOptions memory{.read_only = !options.writable};
  DISKFERRY_CO_TRY(memory.size_bytes, parse_bytes(uri.query("size").value_or("0")));
  DISKFERRY_CO_TRY(const std::uint64_t block, parse_bytes(uri.query("block").value_or("1")));
  if (!std::has_single_bit(block) || block > 65536)
    co_return unexpected(fail(ErrorKind::invalid_argument, "open", uri.to_string())
                             .why("block must be a power of two from 1 to 65536"));
  memory.block_bytes = static_cast<std::uint32_t>(block);
  co_return make_memory_device(memory);
}

constexpr std::array<DriverKey, 2> memory_keys{
    {{"size", "size in bytes"}, {"block", "smallest request in bytes"}}};

}  // namespace

DevicePtr make_memory_device(MemoryOptions options) {
  return std::make_unique<MemoryDevice>(options);
}

const Driver memory_driver{.scheme = "memory",
                           .aliases = {},
                           .summary = "scratch space in this process",
                           .keys = memory_keys,
                           .open = open_memory};

}  // namespace diskferry
