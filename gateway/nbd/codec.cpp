// Requests and replies as bytes.
#include "gateway/nbd/codec.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry::nbd_server {
namespace {
/// Messages stay well below the limit of strings: a log line, not a book.
constexpr std::size_t error_text_bytes_max = 1024;
/// The longest run a 32-bit length can say without making what follows unaligned.
constexpr std::uint64_t compact_run_max = align_down(UINT32_MAX, 64 * kib);

std::size_t chunk_header_bytes(ReplyStyle style) {
  DISKFERRY_ASSERT(style != ReplyStyle::simple, "simple replies have no chunks");
  return style == ReplyStyle::extended ? extended_header_bytes : structured_header_bytes;
}
std::string_view cut(std::string_view text) {
  return text.substr(0, error_text_bytes_max);
}
void put_text(std::byte* at, NbdErrno error, std::string_view text) {
  store_big<std::uint32_t>(at, static_cast<std::uint32_t>(error));
  store_big<std::uint16_t>(at + 4, static_cast<std::uint16_t>(text.size()));
  std::memcpy(at + 6, text.data(), text.size());
}
}  // namespace

bool decode_request(const std::byte* from, ReplyStyle style, Request& into) noexcept {
  const bool is_extended = style == ReplyStyle::extended;
  if (load_big<std::uint32_t>(from) != (is_extended ? extended_request_magic : request_magic)) return false;
  into.flags = load_big<std::uint16_t>(from + 4);
  into.type = load_big<std::uint16_t>(from + 6);
  into.cookie = load_big<std::uint64_t>(from + 8);
  into.offset = load_big<std::uint64_t>(from + 16);
  into.length = is_extended ? load_big<std::uint64_t>(from + 24) : load_big<std::uint32_t>(from + 24);
  return true;
}

std::size_t put_simple(std::byte* at, std::uint64_t cookie, NbdErrno error) noexcept {
  store_big(at, simple_reply_magic);
  store_big(at + 4, static_cast<std::uint32_t>(error));
  store_big(at + 8, cookie);
  return simple_reply_bytes;
}

std::size_t put_chunk(std::byte* at, ReplyStyle style, const Request& request, ChunkHead head) noexcept {
  const bool is_extended = style == ReplyStyle::extended;
  store_big(at, is_extended ? extended_reply_magic : structured_reply_magic);
  store_big(at + 4, head.flags);
  store_big(at + 6, static_cast<std::uint16_t>(head.type));
  store_big(at + 8, request.cookie);
  if (is_extended) {
    store_big(at + 16, request.offset);
    store_big(at + 24, head.payload_bytes);
    return extended_header_bytes;
  }
  store_big(at + 16, static_cast<std::uint32_t>(head.payload_bytes));
  return structured_header_bytes;
}

std::size_t put_data_head(std::byte* at, ReplyStyle style, const Request& request, std::uint64_t offset,
                          std::uint32_t length, bool is_last) noexcept {
  if (style == ReplyStyle::simple) return put_simple(at, request.cookie, NbdErrno::none);
  const std::size_t used = put_chunk(at, style, request,
                                     {.flags = is_last ? chunk_done : std::uint16_t{0},
                                      .type = Chunk::offset_data,
                                      .payload_bytes = std::uint64_t{length} + 8});
  store_big(at + used, offset);
  return used + 8;
}

std::size_t put_hole(std::byte* at, ReplyStyle style, const Request& request, std::uint64_t offset,
                     std::uint32_t length, bool is_last) noexcept {
  const std::size_t used = put_chunk(
      at, style, request,
      {.flags = is_last ? chunk_done : std::uint16_t{0}, .type = Chunk::offset_hole, .payload_bytes = 12});
  store_big(at + used, offset);
  store_big(at + used + 8, length);
  return used + 12;
}

std::size_t put_success(std::byte* at, ReplyStyle style, const Request& request) noexcept {
  // With structured replies a simple one is still right where there is no payload, and shorter.
  if (style != ReplyStyle::extended) return put_simple(at, request.cookie, NbdErrno::none);
  return put_chunk(at, style, request, {.flags = chunk_done});
}

std::vector<std::byte> error_reply(ReplyStyle style, const Request& request, NbdErrno error,
                                   std::string_view text) {
  std::vector<std::byte> reply;
  if (style == ReplyStyle::simple) {
    reply.resize(simple_reply_bytes);
    put_simple(reply.data(), request.cookie, error);
    return reply;
  }
  text = cut(text);
  const std::size_t head = chunk_header_bytes(style);
  reply.resize(head + 6 + text.size());
  put_chunk(reply.data(), style, request,
            {.flags = chunk_done, .type = Chunk::error, .payload_bytes = 6 + text.size()});
  put_text(reply.data() + head, error, text);
  return reply;
}

std::vector<std::byte> error_reply_at(ReplyStyle style, const Request& request, NbdErrno error,
                                      std::uint64_t offset, std::string_view text) {
  text = cut(text);
  const std::size_t head = chunk_header_bytes(style);
  std::vector<std::byte> reply(head + 6 + text.size() + 8);
  put_chunk(reply.data(), style, request,
            {.flags = chunk_done, .type = Chunk::error_offset, .payload_bytes = 6 + text.size() + 8});
  put_text(reply.data() + head, error, text);
  store_big(reply.data() + head + 6 + text.size(), offset);
  return reply;
}

std::vector<std::byte> status_reply(ReplyStyle style, const Request& request, std::uint32_t context_id,
                                    std::span<const StatusRun> runs, bool is_last) {
  DISKFERRY_ASSERT(!runs.empty(), "a status chunk says something");
  const bool is_extended = style == ReplyStyle::extended;
  if (!is_extended) {
    const auto too_long = std::ranges::find_if(runs, [](auto& run) { return run.length > compact_run_max; });
    if (too_long != runs.end()) runs = runs.first(static_cast<std::size_t>(too_long - runs.begin()) + 1);
  }
  const std::size_t head = chunk_header_bytes(style);
  const std::size_t payload = is_extended ? 8 + 16 * runs.size() : 4 + 8 * runs.size();
  std::vector<std::byte> reply(head + payload);
  put_chunk(reply.data(), style, request,
            {.flags = is_last ? chunk_done : std::uint16_t{0},
             .type = is_extended ? Chunk::block_status_extended : Chunk::block_status,
             .payload_bytes = payload});
  std::byte* at = reply.data() + head;
  store_big(at, context_id);
  at += 4;
  if (is_extended) {
    store_big(at, static_cast<std::uint32_t>(runs.size()));
    at += 4;
  }
  for (const StatusRun& run : runs) {
    if (is_extended) {
      store_big(at, run.length);
      store_big(at + 8, std::uint64_t{run.status});
      at += 16;
    } else {
      store_big(at, static_cast<std::uint32_t>(std::min(run.length, compact_run_max)));
      store_big(at + 4, run.status);
      at += 8;
    }
  }
  return reply;
}

}  // namespace diskferry::nbd_server
