// The negotiation phase as a state machine without I/O: bytes in, bytes out, and what to do next. The session
// feeds it; tests and the fuzzer feed it directly. It never waits, and holds no more than one option's data.
#pragma once

#include "gateway/nbd/codec.hpp"
#include "gateway/nbd/export.hpp"
#include "gateway/nbd/limits.hpp"
#include "gateway/nbd/meta_context.hpp"
#include "gateway/nbd/request_rules.hpp"
#include "gateway/nbd/tls_options.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

/// A place in an export, given back when destroyed.
class Entry {
 public:
  Entry() = default;
  /// Empty when the export is full.
  static Entry into(ExportPtr entered) {
    Entry entry;
    if (entered->try_enter()) entry.export_ = std::move(entered);
    return entry;
  }
  Entry(Entry&& other) noexcept = default;
  Entry& operator=(Entry&& other) noexcept {
    if (this != &other) {
      leave();
      export_ = std::move(other.export_);
    }
    return *this;
  }
  ~Entry() { leave(); }
  explicit operator bool() const noexcept { return export_ != nullptr; }
  const ExportPtr& get() const noexcept { return export_; }

 private:
  void leave() noexcept {
    if (auto left = std::move(export_)) left->leave();
  }
  ExportPtr export_;
};

/// What was agreed, when transmission begins.
struct Terms {
  Entry entry;
  RequestTerms requests;
  std::vector<Context> contexts;
};

/// Who the other end proved to be.
struct PeerIdentity {
  bool is_encrypted = false;
  std::vector<std::string> names = {};  ///< CN and DN of a verified certificate, or the PSK user
};

class Handshake {
 public:
  enum class Step : std::uint8_t {
    need_more,     ///< send the output, receive more
    start_tls,     ///< send the output, throw away what was received, do TLS, then tls_started()
    transmission,  ///< send the output, then take_terms()
    closed         ///< send the output, close
  };

  Handshake(const ExportTable& exports, const Limits& limits, TlsMode tls);

  /// The first bytes of the conversation.
  void greet(std::vector<std::byte>& output);
  /// Takes what it can from the front of `input` and says how much in `used`.
  Step consume(std::span<const std::byte> input, std::size_t& used, std::vector<std::byte>& output);
  /// TLS stands: everything that was negotiated is forgotten.
  void tls_started(PeerIdentity peer);
  Terms take_terms() { return std::move(terms_); }
  /// Why it closed, for the log; empty when the client left in peace.
  const std::string& problem() const noexcept { return problem_; }

 private:
  enum class State : std::uint8_t { client_flags, option, skipping };
  struct OptionData;

  Step close(std::string problem);
  Step take_option(std::uint32_t option, std::span<const std::byte> data);
  Step take_export_name(std::span<const std::byte> data);
  Step take_info_or_go(Option option, std::span<const std::byte> data);
  void take_list(std::span<const std::byte> data);
  void take_structured_reply(std::span<const std::byte> data);
  void take_extended_headers(std::span<const std::byte> data);
  void take_meta_context(Option option, std::span<const std::byte> data);

  /// The export of that name if this client may have it; else answers and returns null.
  ExportPtr find_export(std::string_view name);
  bool is_let_in(const Export& to) const;
  bool enter(ExportPtr entered);
  std::uint16_t flags_of(const Export& of, bool with_contexts) const;
  void describe(const Export& of, std::span<const std::uint16_t> asked, bool with_contexts);
  void reply(OptionReply type, std::span<const std::byte> data = {});
  void refuse(OptionReply type, std::string_view text);

  const ExportTable& exports_;
  const Limits& limits_;
  const TlsMode tls_;
  PeerIdentity peer_;
  State state_ = State::client_flags;
  bool no_zeroes_ = false;
  ReplyStyle style_ = ReplyStyle::simple;
  ExportPtr context_export_;  // the one the last SET_META_CONTEXT named
  std::vector<Context> contexts_;
  std::size_t options_seen_ = 0;
  std::uint32_t option_ = 0;
  std::uint64_t skip_bytes_ = 0;
  std::vector<std::byte>* output_ = nullptr;  // during consume()
  Terms terms_;
  std::string problem_;
};

}  // namespace diskferry::nbd_server
