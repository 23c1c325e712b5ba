// The negotiation phase. Each option is one function; answers are appended to the output.
#include "gateway/nbd/handshake.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::nbd_server {
namespace {

template <class T>
void append_big(std::vector<std::byte>& to, T value) {
  const std::size_t at = to.size();
  to.resize(at + sizeof value);
  store_big(to.data() + at, value);
}
void append_text(std::vector<std::byte>& to, std::string_view text) {
  const auto bytes = as_bytes(text);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// Takes fields from the front of an option's data; once one is missing, all further ones are.
class Fields {
 public:
  explicit Fields(std::span<const std::byte> data) : left_(data) {}
  template <class T>
  T number() {
    const auto bytes = take(sizeof(T));
    return bytes.empty() ? T{0} : load_big<T>(bytes.data());
  }
  /// A 32-bit length and as many bytes.
  std::string text() {
    const auto length = number<std::uint32_t>();
    if (length > string_bytes_max) ok_ = false;
    const auto bytes = take(length);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  bool ok() const { return ok_; }
  bool is_complete() const { return ok_ && left_.empty(); }
  std::size_t left() const { return left_.size(); }

 private:
  std::span<const std::byte> take(std::size_t bytes) {
    if (!ok_ || bytes > left_.size()) {
      ok_ = false;
      return {};
    }
    const auto taken = left_.first(bytes);
    left_ = left_.subspan(bytes);
    return taken;
  }
  std::span<const std::byte> left_;
  bool ok_ = true;
};

}  // namespace

Handshake::Handshake(const ExportTable& exports, const Limits& limits, TlsMode tls)
    : exports_(exports), limits_(limits), tls_(tls) {}

void Handshake::greet(std::vector<std::byte>& output) {
  append_big(output, greeting_magic);
  append_big(output, option_magic);
  append_big(output, static_cast<std::uint16_t>(handshake_fixed_newstyle | handshake_no_zeroes));
}

void Handshake::tls_started(PeerIdentity peer) {
  peer_ = std::move(peer);
  peer_.is_encrypted = true;
  style_ = ReplyStyle::simple;
  contexts_.clear();
  context_export_.reset();
}

Handshake::Step Handshake::close(std::string problem) {
  problem_ = std::move(problem);
  return Step::closed;
}

Handshake::Step Handshake::consume(std::span<const std::byte> input, std::size_t& used,
                                   std::vector<std::byte>& output) {
  used = 0;
  output_ = &output;
  while (true) {
    const auto left = input.subspan(used);
    if (state_ == State::skipping) {
      const auto now = static_cast<std::size_t>(std::min<std::uint64_t>(skip_bytes_, left.size()));
      used += now;
      skip_bytes_ -= now;
      if (skip_bytes_ != 0) return Step::need_more;
      state_ = State::option;
      refuse(OptionReply::error_too_big,
             fmt::format("an option has at most {} bytes of data here", limits_.option_bytes_max));
      continue;
    }
    if (state_ == State::client_flags) {
      if (left.size() < 4) return Step::need_more;
      used += 4;
      const auto flags = load_big<std::uint32_t>(left.data());
      if ((flags & ~std::uint32_t{handshake_fixed_newstyle | handshake_no_zeroes}) != 0)
        return close("unknown client flags");
      no_zeroes_ = (flags & handshake_no_zeroes) != 0;
      state_ = State::option;
      continue;
    }
    if (left.size() < option_header_bytes) return Step::need_more;
    if (load_big<std::uint64_t>(left.data()) != option_magic) return close("an option without its magic");
    option_ = load_big<std::uint32_t>(left.data() + 8);
    const auto length = load_big<std::uint32_t>(left.data() + 12);
    if (length > limits_.option_skip_bytes_max) return close("an option with too much data");
    if (length <= limits_.option_bytes_max && left.size() < option_header_bytes + length)
      return Step::need_more;
    if (++options_seen_ > limits_.options_max) {
      refuse(OptionReply::error_policy, "too many options");
      return close("too many options");
    }
    used += option_header_bytes;
    if (length > limits_.option_bytes_max) {
      if (option_ == static_cast<std::uint32_t>(Option::export_name)) return close("an export name too long");
      state_ = State::skipping;
      skip_bytes_ = length;
      continue;
    }
    used += length;
    const Step step = take_option(option_, left.subspan(option_header_bytes, length));
    if (step != Step::need_more) return step;
  }
}

Handshake::Step Handshake::take_option(std::uint32_t option, std::span<const std::byte> data) {
  const auto known = static_cast<Option>(option);
  if (tls_ == TlsMode::require && !peer_.is_encrypted && known != Option::starttls &&
      known != Option::abort) {
    if (known == Option::export_name) return close("an export asked for without TLS");
    refuse(OptionReply::error_tls_required, "this server needs TLS");
    return Step::need_more;
  }
  switch (known) {
    case Option::export_name:
      return take_export_name(data);
    case Option::abort:
      reply(OptionReply::ack);
      return close("");
    case Option::list:
      take_list(data);
      return Step::need_more;
    case Option::starttls:
      if (!data.empty()) {
        refuse(OptionReply::error_invalid, "STARTTLS takes no data");
      } else if (peer_.is_encrypted) {
        refuse(OptionReply::error_invalid, "TLS is on already");
      } else if (tls_ == TlsMode::off) {
        refuse(OptionReply::error_policy, "this server has no TLS");
      } else {
        reply(OptionReply::ack);
        return Step::start_tls;
      }
      return Step::need_more;
    case Option::info:
    case Option::go:
      return take_info_or_go(known, data);
    case Option::structured_reply:
      take_structured_reply(data);
      return Step::need_more;
    case Option::list_meta_context:
    case Option::set_meta_context:
      take_meta_context(known, data);
      return Step::need_more;
    case Option::extended_headers:
      take_extended_headers(data);
      return Step::need_more;
  }
  refuse(OptionReply::error_unsupported, "unknown option");
  return Step::need_more;
}

void Handshake::reply(OptionReply type, std::span<const std::byte> data) {
  append_big(*output_, option_reply_magic);
  append_big(*output_, option_);
  append_big(*output_, static_cast<std::uint32_t>(type));
  append_big(*output_, static_cast<std::uint32_t>(data.size()));
  output_->insert(output_->end(), data.begin(), data.end());
}
void Handshake::refuse(OptionReply type, std::string_view text) {
  reply(type, as_bytes(text));
}

bool Handshake::is_let_in(const Export& to) const {
  if (to.options().allow.empty()) return true;
  return std::ranges::any_of(peer_.names, [&](const std::string& name) {
    return std::ranges::find(to.options().allow, name) != to.options().allow.end();
  });
}

ExportPtr Handshake::find_export(std::string_view name) {
  ExportPtr found = exports_.find(name);
  if (found == nullptr) {
    refuse(OptionReply::error_unknown_export,
           fmt::format("no export '{}' here", printable(name.substr(0, 256))));
  } else if (found->options().requires_tls && !peer_.is_encrypted) {
    found.reset();
    refuse(OptionReply::error_tls_required, "this export needs TLS");
  } else if (!is_let_in(*found)) {
    found.reset();
    refuse(OptionReply::error_policy, "this export is not for this client");
  }
  return found;
}

std::uint16_t Handshake::flags_of(const Export& of, bool with_contexts) const {
  std::uint16_t flags = of.transmission_flags();
  if (style_ != ReplyStyle::simple) flags |= flag_send_df;
  if (style_ == ReplyStyle::extended && with_contexts) flags |= flag_block_status_payload;
  return flags;
}

bool Handshake::enter(ExportPtr entered) {
  Entry entry = Entry::into(entered);
  if (!entry) return false;
  // Contexts count only for the export they were selected for.
  if (context_export_ != entered) contexts_.clear();
  terms_.contexts = std::move(contexts_);
  contexts_.clear();
  terms_.requests = {.size_bytes = entered->size_bytes(),
                     .block_bytes = entered->info().block_bytes,
                     .payload_bytes_max = limits_.payload_bytes_max,
                     .transmission_flags = flags_of(*entered, !terms_.contexts.empty()),
                     .style = style_,
                     .has_contexts = !terms_.contexts.empty()};
  terms_.entry = std::move(entry);
  return true;
}

Handshake::Step Handshake::take_export_name(std::span<const std::byte> data) {
  // This option has no way to say no.
  if (style_ == ReplyStyle::extended) return close("NBD_OPT_EXPORT_NAME after extended headers");
  if (data.size() > string_bytes_max) return close("an export name too long");
  const std::string_view name(reinterpret_cast<const char*>(data.data()), data.size());
  ExportPtr found = exports_.find(name);
  if (found == nullptr) return close(fmt::format("no export '{}'", printable(name.substr(0, 256))));
  if ((found->options().requires_tls && !peer_.is_encrypted) || !is_let_in(*found))
    return close("the export is not for this client");
  if (!enter(found)) return close("the export has all the clients it takes");
  append_big(*output_, found->size_bytes());
  append_big(*output_, terms_.requests.transmission_flags);
  if (!no_zeroes_) output_->resize(output_->size() + 124);
  return Step::transmission;
}

void Handshake::describe(const Export& of, std::span<const std::uint16_t> asked, bool with_contexts) {
  const auto wants = [&](Info info) {
    return std::ranges::find(asked, static_cast<std::uint16_t>(info)) != asked.end();
  };
  const auto begin = [](Info info) {
    std::vector<std::byte> data;
    append_big(data, static_cast<std::uint16_t>(info));
    return data;
  };
  if (wants(Info::name)) {
    auto data = begin(Info::name);
    append_text(data, of.name());
    reply(OptionReply::info, data);
  }
  if (wants(Info::description) || !of.options().description.empty()) {
    auto data = begin(Info::description);
    append_text(data, of.options().description);
    reply(OptionReply::info, data);
  }
  // Sent whether asked for or not, as QEMU does: whoever does not ask may still honour it.
  auto sizes = begin(Info::block_size);
  const std::uint32_t block = of.info().block_bytes;
  append_big(sizes, block);
  append_big(sizes, std::max({block, of.info().preferred_bytes, std::uint32_t{512}}));
  append_big(sizes, limits_.payload_bytes_max);
  reply(OptionReply::info, sizes);
  auto data = begin(Info::export_);
  append_big(data, of.size_bytes());
  append_big(data, flags_of(of, with_contexts));
  reply(OptionReply::info, data);
}

Handshake::Step Handshake::take_info_or_go(Option option, std::span<const std::byte> data) {
  Fields fields(data);
  const std::string name = fields.text();
  const auto count = fields.number<std::uint16_t>();
  std::vector<std::uint16_t> asked;
  for (std::uint16_t i = 0; i < count && fields.ok(); ++i) asked.push_back(fields.number<std::uint16_t>());
  if (!fields.is_complete()) {
    refuse(OptionReply::error_invalid, "malformed INFO or GO");
    return Step::need_more;
  }
  const ExportPtr found = find_export(name);
  if (found == nullptr) return Step::need_more;
  // INFO says whether the server can filter contexts at all; only GO depends on what was selected (the
  // branch's text on NBD_FLAG_BLOCK_STATUS_PAYLOAD).
  const bool with_contexts = option == Option::info || (context_export_ == found && !contexts_.empty());
  if (option == Option::go && !enter(found)) {
    refuse(OptionReply::error_policy, "this export has all the clients it takes");
    return Step::need_more;
  }
  describe(*found, asked, with_contexts);
  reply(OptionReply::ack);
  return option == Option::go ? Step::transmission : Step::need_more;
}

void Handshake::take_list(std::span<const std::byte> data) {
  if (!data.empty()) return refuse(OptionReply::error_invalid, "LIST takes no data");
  for (const ExportPtr& one : exports_.all()) {
    if ((one->options().requires_tls && !peer_.is_encrypted) || !is_let_in(*one)) continue;
    std::vector<std::byte> entry;
    append_big(entry, static_cast<std::uint32_t>(one->name().size()));
    append_text(entry, one->name());
    append_text(entry, one->options().description);
    reply(OptionReply::server, entry);
  }
  reply(OptionReply::ack);
}

void Handshake::take_structured_reply(std::span<const std::byte> data) {
  if (!data.empty()) return refuse(OptionReply::error_invalid, "STRUCTURED_REPLY takes no data");
  if (style_ == ReplyStyle::extended)
    return refuse(OptionReply::error_extended_headers_required, "extended headers are on already");
  if (style_ == ReplyStyle::structured)
    return refuse(OptionReply::error_invalid, "structured replies are on already");
  style_ = ReplyStyle::structured;
  reply(OptionReply::ack);
}

void Handshake::take_extended_headers(std::span<const std::byte> data) {
  if (!data.empty()) return refuse(OptionReply::error_invalid, "EXTENDED_HEADERS takes no data");
  if (style_ == ReplyStyle::extended)
    return refuse(OptionReply::error_invalid, "extended headers are on already");
  style_ = ReplyStyle::extended;
  reply(OptionReply::ack);
}

void Handshake::take_meta_context(Option option, std::span<const std::byte> data) {
  const bool is_set = option == Option::set_meta_context;
  if (is_set) {
    // Whatever becomes of this selection, the earlier one is gone.
    contexts_.clear();
    context_export_.reset();
  }
  if (style_ == ReplyStyle::simple)
    return refuse(OptionReply::error_invalid, "metadata contexts need structured replies");
  Fields fields(data);
  const std::string name = fields.text();
  const auto count = fields.number<std::uint32_t>();
  std::vector<std::string> queries;
  for (std::uint32_t i = 0; i < count && fields.ok(); ++i) queries.push_back(fields.text());
  if (!fields.is_complete()) return refuse(OptionReply::error_invalid, "malformed list of contexts");
  const ExportPtr found = find_export(name);
  if (found == nullptr) return;
  auto matching = matching_contexts(*found, queries, is_set ? QueryUse::set : QueryUse::list);
  if (is_set && matching.size() > limits_.contexts_max)
    return refuse(OptionReply::error_too_big,
                  fmt::format("a session has at most {} contexts", limits_.contexts_max));
  std::uint32_t next_id = 1;
  for (Context& context : matching) {
    if (is_set) context.id = next_id++;
    std::vector<std::byte> entry;
    append_big(entry, context.id);
    append_text(entry, context.name);
    reply(OptionReply::meta_context, entry);
  }
  reply(OptionReply::ack);
  if (is_set) {
    contexts_ = std::move(matching);
    context_export_ = found;
  }
}

}  // namespace diskferry::nbd_server
