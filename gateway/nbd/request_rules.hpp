// What the server makes of a request, decided from its header alone: serve it, answer it with an error (and
// how much payload to throw away first), or end the connection. Pure; every rule has a test of its own.
#pragma once

#include "gateway/nbd/codec.hpp"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

/// What the rules depend on, fixed by the handshake.
struct RequestTerms {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 1;
  std::uint32_t payload_bytes_max = payload_bytes_default;
  std::uint16_t transmission_flags = 0;
  ReplyStyle style = ReplyStyle::simple;
  bool has_contexts = false;
};

struct Verdict {
  NbdErrno error = NbdErrno::none;
  std::string_view text;            ///< why, for the client's log
  std::uint64_t payload_bytes = 0;  ///< what follows the header, to be received or thrown away
  bool disconnect = false;          ///< the stream cannot or must not go on
};

/// NBD_CMD_DISC is not asked about here: it has no answer.
Verdict judge(const Request& request, const RequestTerms& terms) noexcept;

/// The payload of a BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: an effect length and the ids of contexts.
struct StatusFilter {
  std::uint64_t length = 0;
  std::vector<std::uint32_t> ids;
};
/// False when the payload is malformed, names an id that is not in `selected`, or names one twice.
bool decode_status_filter(std::span<const std::byte> payload, std::span<const std::uint32_t> selected,
                          StatusFilter& into);

}  // namespace diskferry::nbd_server
