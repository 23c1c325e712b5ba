// Requests and replies as bytes. Pure; called by the session and by tests. Never looks at what a request
// means: that is request_rules.hpp.
#pragma once

#include "diskferry/error_kinds.hpp"
#include "gateway/nbd/protocol.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

struct Request {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;  ///< a Command, or whatever the client sent
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  Command command() const noexcept { return static_cast<Command>(type); }
  bool has(std::uint16_t flag) const noexcept { return (flags & flag) != 0; }
};

/// How replies look, fixed by the handshake.
enum class ReplyStyle : std::uint8_t { simple, structured, extended };

constexpr std::size_t request_bytes_of(ReplyStyle style) noexcept {
  return style == ReplyStyle::extended ? extended_request_header_bytes : request_header_bytes;
}

/// Reads a header. Precondition: request_bytes_of(style) bytes are there. False: the magic is wrong, and the
/// stream can only be closed.
bool decode_request(const std::byte* from, ReplyStyle style, Request& into) noexcept;

/// The largest header any reply starts with: an extended chunk of offset data.
inline constexpr std::size_t reply_header_bytes_max = extended_header_bytes + 8;

/// 16 bytes: a whole reply without payload, or the head of a simple read.
std::size_t put_simple(std::byte* at, std::uint64_t cookie, NbdErrno error) noexcept;

struct ChunkHead {
  std::uint16_t flags = 0;
  Chunk type = Chunk::none;
  std::uint64_t payload_bytes = 0;
};
/// The header of a chunk, 20 or 32 bytes. Precondition: the style is not simple.
std::size_t put_chunk(std::byte* at, ReplyStyle style, const Request& request, ChunkHead head) noexcept;

/// Header and offset of a chunk of read data; the data follow. Size: as data_head_bytes().
std::size_t put_data_head(std::byte* at, ReplyStyle style, const Request& request, std::uint64_t offset,
                          std::uint32_t length, bool is_last) noexcept;
constexpr std::size_t data_head_bytes(ReplyStyle style) noexcept {
  return style == ReplyStyle::simple     ? simple_reply_bytes
         : style == ReplyStyle::extended ? extended_header_bytes + 8
                                         : structured_header_bytes + 8;
}
/// A whole chunk that says `length` bytes from `offset` are zeros.
std::size_t put_hole(std::byte* at, ReplyStyle style, const Request& request, std::uint64_t offset,
                     std::uint32_t length, bool is_last) noexcept;
/// Success of a request whose reply has no payload.
std::size_t put_success(std::byte* at, ReplyStyle style, const Request& request) noexcept;

/// A whole error reply; `text` is for people and cut to what the protocol allows.
std::vector<std::byte> error_reply(ReplyStyle style, const Request& request, NbdErrno error,
                                   std::string_view text);
/// The same after part of a chunk went out: the error is at `offset`. Precondition: the style is not simple.
std::vector<std::byte> error_reply_at(ReplyStyle style, const Request& request, NbdErrno error,
                                      std::uint64_t offset, std::string_view text);

/// One status of a context.
struct StatusRun {
  std::uint64_t length = 0;
  std::uint32_t status = 0;
  bool operator==(const StatusRun&) const = default;
};
/// The chunk of one context. In the compact style a run longer than 32 bits is cut and ends the list.
/// Precondition: runs is not empty, the style is not simple.
std::vector<std::byte> status_reply(ReplyStyle style, const Request& request, std::uint32_t context_id,
                                    std::span<const StatusRun> runs, bool is_last);

}  // namespace diskferry::nbd_server
