// The device over a pool of connections: each verb becomes one request, or several where the wire has 32
// bits.
#include "drivers/nbd/nbd_driver.hpp"

#include "diskferry/units.hpp"
#include "drivers/nbd/pool.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <fmt/format.h>

#include <libnbd.h>

namespace diskferry {
namespace nbd {
namespace {

/// Without 64-bit headers a request's length has 32 bits; as many whole blocks as fit.
#ifdef LIBNBD_HAVE_NBD_AIO_BLOCK_STATUS_64
constexpr std::uint64_t status_bytes_max = std::uint64_t{1} << 40;
#else
constexpr std::uint64_t status_bytes_max = align_down(UINT32_MAX, 64 * kib);
#endif

/// Requests without payload may be as long as 32 bits allow (NBD protocol, "Size constraints"), but there are
/// servers with limits of their own. A refusal of more than this may be about the length.
constexpr std::uint64_t unannounced_bytes_min = 1 * mib;

class NbdDevice final : public BlockDevice {
 public:
  NbdDevice(DriverContext& context, Endpoint endpoint) : pool_(context, std::move(endpoint)) {}

  /// On failure nothing is left to close.
  Task<Result<void>> open(const OpenOptions& options) {
    const bool writable = options.writable;
    DISKFERRY_CO_CHECK(co_await pool_.open(options.connections));
    const ServerInfo& server = pool_.server();
    if (writable && server.is_read_only) {
      co_await pool_.close();
      co_return unexpected(fail(ErrorKind::read_only, "open for writing", pool_.endpoint().name)
                               .why("the server offers the export for reading only")
                               .remedy("export it writable at the server"));
    }
    zero_part_bytes_max_ = zero_bytes_max(server);
    info_ = to_device_info(server, pool_.endpoint(), writable, pool_.connections_wanted());
    co_return Result<void>{};
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return pool_.server().size_bytes; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    if (into.empty()) co_return Result<void>{};
    Request request{.verb = Verb::read, .range = {offset, into.size()}, .into = into.data()};
    co_return co_await pool_.execute(request);
  }

  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (from.empty()) co_return Result<void>{};
    Request request{.verb = Verb::write,
                    .flags = flags.fua ? LIBNBD_CMD_FLAG_FUA : 0,
                    .range = {offset, from.size()},
                    .from = from.data()};
    co_return co_await pool_.execute(request);
  }

  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    std::uint32_t wire = 0;
    if (flags.fua) wire |= LIBNBD_CMD_FLAG_FUA;
    if (!flags.may_unmap) wire |= LIBNBD_CMD_FLAG_NO_HOLE;
    if (flags.fast_only) {
      if (!pool_.server().can_fast_zero)
        co_return unexpected(fail(ErrorKind::unsupported, "zero quickly", info_.name)
                                 .why("the server does not say whether zeroing is fast")
                                 .at(range.offset, range.length));
      wire |= LIBNBD_CMD_FLAG_FAST_ZERO;
    }
    co_return co_await in_parts(Verb::write_zeroes, range, wire, zero_part_bytes_max_);
  }

  Task<Result<void>> discard(Range range) override {
    co_return co_await in_parts(Verb::trim, range, 0, zero_part_bytes_max_);
  }

  Task<Result<void>> flush() override {
    if (!pool_.server().can_flush) co_return Result<void>{};  // the server has nothing to flush
    Request request{.verb = Verb::flush};
    co_return co_await pool_.execute(request);
  }

  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    range.length = std::min(range.length, status_bytes_max);
    // A server may refuse what is no whole block: of the last part of one we do not ask, it is data.
    const std::uint64_t whole = align_down(range.length, info_.block_bytes);
    if (whole == 0) co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
    range.length = whole;
    BlockStatus status(range, extents_max);
    Request request{.verb = Verb::block_status, .range = range, .status = &status};
    DISKFERRY_CO_CHECK(co_await pool_.execute(request));
    auto found = status.extents(info_.block_bytes, pool_.server().has_depth);
    if (!found) co_return unexpected(std::move(found).error().object(info_.name));
    co_return found;
  }

  std::uint64_t repeated_requests() const noexcept override { return pool_.repeated_requests(); }
  void stop_waiting() noexcept override { pool_.stop_waiting(); }
  Task<Result<void>> prefetch(Range range) override {
    if (!pool_.server().can_cache || range.empty()) co_return Result<void>{};
    std::atomic<std::uint64_t> part_bytes_max = info_.request_bytes_max;
    co_return co_await in_parts(Verb::cache, range, 0, part_bytes_max);
  }

  Task<Result<void>> close() override {
    co_await pool_.close();
    co_return Result<void>{};
  }

 private:
  Task<Result<void>> in_parts(Verb verb, Range range, std::uint32_t flags,
                              std::atomic<std::uint64_t>& part_bytes_max) {
    bool has_begun = false;
    while (!range.empty()) {
      const std::uint64_t length = std::min(range.length, part_bytes_max.load());
      Request request{.verb = verb, .flags = flags, .range = {range.offset, length}};
      auto done = co_await pool_.execute(request);
      if (!done && is_too_long(request)) {
        // A limit the server did not announce: found once, it holds for all that follows.
        part_bytes_max = std::max(unannounced_bytes_min, align_down(length / 4, unannounced_bytes_min));
        continue;
      }
      if (!done && has_begun && done.error().kind() == ErrorKind::unsupported &&
          (flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0) {
        // "Unsupported" would promise that nothing was changed: too late, so the rest is zeroed slowly.
        flags &= ~std::uint32_t{LIBNBD_CMD_FLAG_FAST_ZERO};
        continue;
      }
      DISKFERRY_CO_CHECK(std::move(done));
      has_begun = true;
      range.offset += length;
      range.length -= length;
    }
    co_return Result<void>{};
  }

  static bool is_too_long(const Request& request) {
    return request.outcome.how == Outcome::How::refused && request.range.length > unannounced_bytes_min &&
           (request.outcome.error_number == EINVAL || request.outcome.error_number == EOVERFLOW);
  }

  Pool pool_;
  DeviceInfo info_;
  std::atomic<std::uint64_t> zero_part_bytes_max_ = 0;
};

Task<Result<DevicePtr>> open_nbd(DriverContext& context, ImageUri uri, OpenOptions options) {
  DISKFERRY_CO_TRY(Endpoint endpoint, parse_endpoint(uri));
  auto device = std::make_unique<NbdDevice>(context, std::move(endpoint));
  DISKFERRY_CO_CHECK(co_await device->open(options));
  co_return DevicePtr(std::move(device));
}

constexpr std::array<std::string_view, 3> nbd_aliases{"nbds", "nbd+unix", "nbds+unix"};

}  // namespace
}  // namespace nbd

const Driver nbd_driver{.scheme = "nbd",
                        .aliases = nbd::nbd_aliases,
                        .summary = "export of an NBD server, over TCP or a UNIX socket, with or without TLS",
                        .keys = nbd::endpoint_keys,
                        .open = nbd::open_nbd};

}  // namespace diskferry
