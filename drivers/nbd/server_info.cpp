// See the header.
#include "drivers/nbd/server_info.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace diskferry::nbd {
namespace {
/// What a client may send without asking (NBD protocol, "Block size constraints"), and what QEMU's server
/// takes at most.
constexpr std::int64_t request_bytes_cap = 32 << 20;
constexpr std::int64_t block_bytes_cap = 64 << 10;  // the protocol's limit for the minimum block size
/// Requests it takes to keep one connection busy: nbdcopy's authors found no gain above 16 of 256 KiB.
constexpr unsigned requests_per_connection = 16;
/// Where no round trip is to be hidden, more requests only push each other out of the caches: the client's
/// CPU seconds for 2 GiB, verified, are 0.7 with 8 requests of 512 KiB under way and 1.1 with 64 of 256 KiB.
constexpr unsigned unix_requests_per_connection = 4;

Error nonsense(std::string why) {
  return fail(ErrorKind::protocol, "negotiate").why(std::move(why));
}
}  // namespace

Result<void> take_sizes(const RawSizes& raw, ServerInfo& info) {
  if (raw.size < 0) return unexpected(nonsense("the server's export is larger than 8 EiB"));
  info.size_bytes = static_cast<std::uint64_t>(raw.size);
  if (raw.minimum > 0) {
    if (!std::has_single_bit(static_cast<std::uint64_t>(raw.minimum)) || raw.minimum > block_bytes_cap)
      return unexpected(nonsense(
          fmt::format("the server's minimum block size {} is no power of two up to 65536", raw.minimum)));
    info.block_bytes = static_cast<std::uint32_t>(raw.minimum);
  }
  if (raw.maximum > 0 && raw.maximum < raw.minimum)
    return unexpected(nonsense(
        fmt::format("the server's maximum block size {} is below its minimum {}", raw.maximum, raw.minimum)));
  const std::int64_t maximum = raw.maximum > 0 ? std::min(raw.maximum, request_bytes_cap) : request_bytes_cap;
  info.request_bytes_max =
      static_cast<std::uint32_t>(align_down(static_cast<std::uint64_t>(maximum), info.block_bytes));
  const std::int64_t preferred = raw.preferred > 0 && raw.preferred <= request_bytes_cap &&
                                         std::has_single_bit(static_cast<std::uint64_t>(raw.preferred))
                                     ? raw.preferred
                                     : 4096;
  info.preferred_bytes = std::max(static_cast<std::uint32_t>(preferred), info.block_bytes);
  return {};
}

std::optional<std::string> difference(const ServerInfo& before, const ServerInfo& now) {
  if (before.size_bytes != now.size_bytes)
    return fmt::format("the export had {} bytes and has {} now", before.size_bytes, now.size_bytes);
  if (!before.is_read_only && now.is_read_only) return "the export has become read-only";
  if (now.block_bytes > before.block_bytes)
    return fmt::format("the smallest request was {} bytes and is {} now", before.block_bytes,
                       now.block_bytes);
  if (now.request_bytes_max < before.request_bytes_max)
    return fmt::format("the largest request was {} bytes and is {} now", before.request_bytes_max,
                       now.request_bytes_max);
  const auto lost = [&](bool ServerInfo::* capability) { return before.*capability && !(now.*capability); };
  if (lost(&ServerInfo::can_flush)) return "the server no longer flushes";
  if (lost(&ServerInfo::can_fua)) return "the server no longer takes FUA";
  if (lost(&ServerInfo::can_trim)) return "the server no longer trims";
  if (lost(&ServerInfo::can_zero)) return "the server no longer zeroes";
  if (lost(&ServerInfo::can_fast_zero)) return "the server no longer tells fast zeroing from slow";
  if (lost(&ServerInfo::can_multi_connection))
    return "the server no longer keeps several connections in step";
  if (lost(&ServerInfo::has_allocation)) return "the server no longer reports allocation";
  if (before.has_depth != now.has_depth) return "the server reports other contexts than before";
  return std::nullopt;
}

DeviceInfo to_device_info(const ServerInfo& server, const Endpoint& endpoint, bool writable,
                          unsigned connections) {
  DeviceInfo info;
  info.name = endpoint.name;
  info.block_bytes = server.block_bytes;
  info.preferred_bytes = server.preferred_bytes;
  info.request_bytes_max = server.request_bytes_max;
  info.is_read_only = !writable;
  if (server.can_zero) {
    // FAST_ZERO promises an answer, not speed; a server that knows the difference usually has the fast way.
    info.zero = !server.can_fast_zero ? ZeroSupport::slow
                : server.can_trim     ? ZeroSupport::unmapping
                                      : ZeroSupport::fast;
  }
  info.can_discard = server.can_trim;
  info.can_report_extents = server.has_allocation;
  info.can_fua = server.can_fua;
  info.can_multi_connection = server.can_multi_connection;
  info.is_rotational = server.is_rotational;
  info.may_lose_unflushed = server.can_flush;
  info.parallel_requests = (endpoint.is_unix() ? unix_requests_per_connection : requests_per_connection) *
                           std::max(connections, 1u);
  return info;
}

std::uint64_t zero_bytes_max(const ServerInfo& server) {
  return server.can_fast_zero ? 1 * gib : 128 * mib;
}

}  // namespace diskferry::nbd
