// ServerInfo: what a server says of an export during negotiation, checked, and what follows from it. Pure.
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/nbd/endpoint.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace diskferry::nbd {

struct ServerInfo {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 1;  ///< minimum block size; 1 where the server says nothing
  std::uint32_t preferred_bytes = 4096;
  std::uint32_t request_bytes_max = 32u << 20;
  bool is_read_only = false;
  bool can_flush = false;
  bool can_fua = false;
  bool can_trim = false;
  bool can_zero = false;
  bool can_fast_zero = false;
  bool can_cache = false;
  bool can_multi_connection = false;
  bool is_rotational = false;
  bool has_structured_replies = false;
  bool has_allocation = false;  ///< the context base:allocation
  bool has_depth = false;       ///< the context qemu:allocation-depth
};

/// The numbers as they came, before anything is believed. A negative or zero one: not said.
struct RawSizes {
  std::int64_t size = -1;
  std::int64_t minimum = 0;
  std::int64_t preferred = 0;
  std::int64_t maximum = 0;
};
/// Fills the sizes of `info`. Errors: protocol, for sizes that contradict themselves.
Result<void> take_sizes(const RawSizes& raw, ServerInfo& info);

/// Why a server that answers after a reconnect is not the one we knew; nullopt where we can go on with it.
/// More than before is fine, a capability that went away is not.
std::optional<std::string> difference(const ServerInfo& before, const ServerInfo& now);

DeviceInfo to_device_info(const ServerInfo& server, const Endpoint& endpoint, bool writable,
                          unsigned connections);

/// The longest zeroing or trimming sent as one command. The wire has 32 bits; but a server that zeroes by
/// writing works at disk speed and must give a sign of life within the stall limit.
std::uint64_t zero_bytes_max(const ServerInfo& server);

}  // namespace diskferry::nbd
