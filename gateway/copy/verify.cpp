// See verify.hpp.
#include "gateway/copy/verify.hpp"

#include "diskferry/task_group.hpp"
#include "drivers/file/file_descriptor.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/engine.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace asio = boost::asio;
namespace {

constexpr unsigned verify_tasks_max = 8;

struct Verification {
  DriverContext& context;
  BlockDevice& device;
  std::span<const Piece> pieces;
  std::atomic<std::uint64_t>& verified_bytes;
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> has_failed = false;
};

Task<Result<void>> verify_one(Verification& all, const Piece& piece) {
  if (piece.is_zero()) co_return co_await check_zeros(all.context, all.device, piece.range);
  Buffer buffer = all.context.buffers.try_acquire(piece.range.length);
  if (!buffer) {
    DISKFERRY_CO_TRY(buffer, co_await all.context.buffers.acquire(piece.range.length));
  }
  auto done = all.device.try_read(piece.range.offset, buffer.span());
  if (!done) done = co_await all.device.read(piece.range.offset, buffer.span());
  if (!*done) co_return unexpected(std::move(*done).error().in("read the target again"));
  if (content_hash(buffer.span()) == piece.hash) co_return Result<void>{};
  co_return unexpected(fail(ErrorKind::mismatch, "verify", all.device.info().name)
                           .at(piece.range.offset, piece.range.length)
                           .why("the target gives back other bytes than were written")
                           .remedy("do not use this copy; check the target's storage, then copy again"));
}

Task<Result<void>> verify_some(Verification& all) {
  const Executor executor = co_await asio::this_coro::executor;
  while (!all.has_failed) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("verify"));
    const std::size_t index = all.next++;
    if (index >= all.pieces.size()) break;
    if (auto done = co_await verify_one(all, all.pieces[index]); !done) {
      all.has_failed = true;
      co_return done;
    }
    all.verified_bytes += all.pieces[index].range.length;
    co_await asio::post(executor, asio::use_awaitable_t<Executor>{});
  }
  co_return Result<void>{};
}

}  // namespace

Task<Result<void>> verify_pieces(DriverContext& context, BlockDevice& device, std::span<const Piece> pieces,
                                 std::atomic<std::uint64_t>& verified_bytes) {
  Verification all{.context = context, .device = device, .pieces = pieces, .verified_bytes = verified_bytes};
  TaskGroup tasks(co_await asio::this_coro::executor);
  const std::size_t count = std::min<std::size_t>(verify_tasks_max, pieces.size());
  for (std::size_t i = 0; i < count; ++i)
    tasks.spawn_on(context.reactors[i % context.reactors.size()], verify_some(all));
  co_return co_await tasks.join();
}

namespace {
void drop(int fd, Range range) noexcept {
  (void)::posix_fadvise(fd, static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                        POSIX_FADV_DONTNEED);
}
}  // namespace

Task<void> drop_page_cache(DriverContext& context, std::string path, std::vector<Range> ranges) {
  if (ranges.empty()) ranges.push_back({0, 0});  // a length of 0 is "to the end"
  co_await context.blocking_pool.run([&path, &ranges] {
    const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    for (const Range& range : ranges) drop(fd.get(), range);
    return 0;
  });
}

Task<void> drop_page_cache_at_ends(DriverContext& context, std::string path, std::uint64_t bytes) {
  co_await context.blocking_pool.run([&path, bytes] {
    const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return 0;
    const auto size = static_cast<std::uint64_t>(status.st_size);
    drop(fd.get(), {0, bytes});
    drop(fd.get(), {size - std::min(size, bytes), 0});
    return 0;
  });
}

}  // namespace diskferry
