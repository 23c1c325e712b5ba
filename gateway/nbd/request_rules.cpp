// Request rules. The order of the checks is the order in which a client learns about its mistakes: framing,
// flags, permission, range, alignment, size.
#include "gateway/nbd/request_rules.hpp"

#include "diskferry/extent.hpp"
#include "diskferry/units.hpp"

#include <algorithm>

namespace diskferry::nbd_server {
namespace {

/// The payload of a filtered block status: a 64-bit length and 32 bits for each context.
constexpr std::uint64_t status_filter_bytes_min = 8 + 4;

bool is_known(std::uint16_t type) {
  return type <= static_cast<std::uint16_t>(Command::block_status);
}
bool is_modifying(Command command) {
  return command == Command::write || command == Command::trim || command == Command::write_zeroes;
}

std::uint16_t flags_allowed(const Request& request, const RequestTerms& terms) {
  std::uint16_t allowed = 0;
  // "Servers MUST accept FUA on every command once they advertise it", even where it means nothing.
  if (terms.transmission_flags & flag_send_fua) allowed |= command_fua;
  switch (request.command()) {
    case Command::read:
      if (terms.transmission_flags & flag_send_df) allowed |= command_df;
      break;
    case Command::write:
      if (terms.style == ReplyStyle::extended) allowed |= command_payload_len;
      break;
    case Command::write_zeroes:
      allowed |= command_no_hole;
      if (terms.transmission_flags & flag_send_fast_zero) allowed |= command_fast_zero;
      break;
    case Command::block_status:
      allowed |= command_req_one;
      if (terms.transmission_flags & flag_block_status_payload) allowed |= command_payload_len;
      break;
    default:
      break;
  }
  return allowed;
}

std::string_view not_offered(const Request& request, const RequestTerms& terms) {
  const std::uint16_t flags = terms.transmission_flags;
  switch (request.command()) {
    case Command::flush:
      return flags & flag_send_flush ? "" : "flush was not offered";
    case Command::trim:
      return flags & flag_send_trim ? "" : "trim was not offered";
    case Command::cache:
      return flags & flag_send_cache ? "" : "cache was not offered";
    case Command::write_zeroes:
      return flags & flag_send_write_zeroes ? "" : "write zeroes was not offered";
    case Command::block_status:
      if (terms.style == ReplyStyle::simple) return "block status needs structured replies";
      return terms.has_contexts ? "" : "no metadata context was negotiated for this export";
    default:
      return "";
  }
}

Verdict judge_framing(const Request& request, const RequestTerms& terms) {
  Verdict verdict;
  const bool has_payload = terms.style == ReplyStyle::extended ? request.has(command_payload_len)
                                                               : request.command() == Command::write;
  if (has_payload) verdict.payload_bytes = request.length;
  if (verdict.payload_bytes > 2 * std::uint64_t{terms.payload_bytes_max}) {
    verdict.disconnect = true;
    verdict.text = "payload far over the announced maximum";
  }
  return verdict;
}

}  // namespace

Verdict judge(const Request& request, const RequestTerms& terms) noexcept {
  Verdict verdict = judge_framing(request, terms);
  if (verdict.disconnect) return verdict;
  const auto refuse = [&verdict](NbdErrno error, std::string_view text) {
    verdict.error = error;
    verdict.text = text;
    return verdict;
  };
  if (!is_known(request.type)) return refuse(NbdErrno::inval, "unknown command");
  if ((request.flags & ~flags_allowed(request, terms)) != 0)
    return refuse(NbdErrno::inval, "unknown flag, or one this command does not take");
  const Command command = request.command();
  if (command == Command::write && terms.style == ReplyStyle::extended && !request.has(command_payload_len))
    return refuse(NbdErrno::inval, "a write must carry the payload flag with extended headers");
  if (is_modifying(command) && (terms.transmission_flags & flag_read_only))
    return refuse(NbdErrno::perm, "the export is read-only");
  if (const auto text = not_offered(request, terms); !text.empty()) return refuse(NbdErrno::inval, text);
  if (verdict.payload_bytes > terms.payload_bytes_max)
    return refuse(NbdErrno::inval, "payload over the announced maximum");
  if (command == Command::flush) {
    if (request.offset != 0 || request.length != 0)
      return refuse(NbdErrno::inval, "a flush has neither offset nor length");
    return verdict;
  }
  if (command == Command::block_status && request.has(command_payload_len)) {
    if (verdict.payload_bytes < status_filter_bytes_min)
      return refuse(NbdErrno::inval, "a payload of block status is a length and at least one context");
    // The range is judged when the payload, which holds the length, is there.
    if (request.offset > terms.size_bytes) return refuse(NbdErrno::inval, "beyond the end of the export");
    return verdict;
  }
  const Range range{request.offset, request.length};
  if (!is_inside(range, terms.size_bytes)) {
    const bool grows = command == Command::write || command == Command::write_zeroes;
    return refuse(grows ? NbdErrno::nospc : NbdErrno::inval, "beyond the end of the export");
  }
  if (!is_aligned(range.offset, terms.block_bytes) ||
      (!is_aligned(range.length, terms.block_bytes) && range.end() != terms.size_bytes))
    return refuse(NbdErrno::inval, "not aligned to the announced minimum block size");
  if (command == Command::read && request.length > terms.payload_bytes_max)
    return refuse(NbdErrno::inval, "read over the announced maximum");
  if (command == Command::block_status && request.length == 0)
    return refuse(NbdErrno::inval, "a status of nothing");
  return verdict;
}

bool decode_status_filter(std::span<const std::byte> payload, std::span<const std::uint32_t> selected,
                          StatusFilter& into) {
  if (payload.size() < status_filter_bytes_min || payload.size() % 4 != 0) return false;
  into.length = load_big<std::uint64_t>(payload.data());
  into.ids.clear();
  for (std::size_t at = 8; at < payload.size(); at += 4) {
    const auto id = load_big<std::uint32_t>(payload.data() + at);
    if (std::ranges::find(selected, id) == selected.end()) return false;
    if (std::ranges::find(into.ids, id) != into.ids.end()) return false;
    into.ids.push_back(id);
  }
  return true;
}

}  // namespace diskferry::nbd_server
