// The numbers of the NBD protocol, as the NBD project's doc/proto.md defines them ("Values", "Protocol
// phases" and, for extended headers, the branch extension-ext-header). Nothing but constants.
#pragma once

#include <cstddef>
#include <cstdint>

namespace diskferry::nbd_server {

inline constexpr std::uint64_t greeting_magic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t structured_reply_magic = 0x668e33ef;
inline constexpr std::uint32_t extended_request_magic = 0x21e41c71;
inline constexpr std::uint32_t extended_reply_magic = 0x6e8a278c;

// Handshake flags, both directions.
inline constexpr std::uint16_t handshake_fixed_newstyle = 1 << 0;
inline constexpr std::uint16_t handshake_no_zeroes = 1 << 1;

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  error_unsupported = (1u << 31) + 1,
  error_policy = (1u << 31) + 2,
  error_invalid = (1u << 31) + 3,
  error_platform = (1u << 31) + 4,
  error_tls_required = (1u << 31) + 5,
  error_unknown_export = (1u << 31) + 6,
  error_shutdown = (1u << 31) + 7,
  error_block_size_required = (1u << 31) + 8,
  error_too_big = (1u << 31) + 9,
  error_extended_headers_required = (1u << 31) + 10,
};

enum class Info : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

// Transmission flags.
inline constexpr std::uint16_t flag_has_flags = 1 << 0;
inline constexpr std::uint16_t flag_read_only = 1 << 1;
inline constexpr std::uint16_t flag_send_flush = 1 << 2;
inline constexpr std::uint16_t flag_send_fua = 1 << 3;
inline constexpr std::uint16_t flag_rotational = 1 << 4;
inline constexpr std::uint16_t flag_send_trim = 1 << 5;
inline constexpr std::uint16_t flag_send_write_zeroes = 1 << 6;
inline constexpr std::uint16_t flag_send_df = 1 << 7;
inline constexpr std::uint16_t flag_can_multi_conn = 1 << 8;
inline constexpr std::uint16_t flag_send_cache = 1 << 10;
inline constexpr std::uint16_t flag_send_fast_zero = 1 << 11;
inline constexpr std::uint16_t flag_block_status_payload = 1 << 12;

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

// Command flags.
inline constexpr std::uint16_t command_fua = 1 << 0;
inline constexpr std::uint16_t command_no_hole = 1 << 1;
inline constexpr std::uint16_t command_df = 1 << 2;
inline constexpr std::uint16_t command_req_one = 1 << 3;
inline constexpr std::uint16_t command_fast_zero = 1 << 4;
inline constexpr std::uint16_t command_payload_len = 1 << 5;

// Structured and extended reply chunks.
inline constexpr std::uint16_t chunk_done = 1 << 0;
enum class Chunk : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_extended = 6,
  error = (1 << 15) + 1,
  error_offset = (1 << 15) + 2,
};

// Status flags of the context base:allocation.
inline constexpr std::uint32_t state_hole = 1 << 0;
inline constexpr std::uint32_t state_zero = 1 << 1;
// Status flag of qemu:dirty-bitmap:NAME.
inline constexpr std::uint32_t state_dirty = 1 << 0;

/// Strings are limited to this ("Terminology").
inline constexpr std::size_t string_bytes_max = 4096;
/// What a server should take without having said anything ("Size constraints").
inline constexpr std::uint32_t payload_bytes_default = 32u << 20;

inline constexpr std::size_t option_header_bytes = 16;
inline constexpr std::size_t option_reply_header_bytes = 20;
inline constexpr std::size_t request_header_bytes = 28;
inline constexpr std::size_t extended_request_header_bytes = 32;
inline constexpr std::size_t simple_reply_bytes = 16;
inline constexpr std::size_t structured_header_bytes = 20;
inline constexpr std::size_t extended_header_bytes = 32;

}  // namespace diskferry::nbd_server
