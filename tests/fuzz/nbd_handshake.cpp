// Feeds the negotiation in arbitrary pieces: the first byte says how. Answers and memory stay bounded, and
// nothing but "closed" or a valid agreement comes of it.
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "gateway/nbd/handshake.hpp"

#include <cstdlib>
#include <span>

using namespace diskferry;
using namespace diskferry::nbd_server;

namespace {
const ExportTable& table() {
  static const auto* made = [] {
    auto* exports = new ExportTable;
    for (const bool requires_tls : {false, true}) {
      auto one =
          Export::make({.name = requires_tls ? "t" : "d", .writable = true, .requires_tls = requires_tls},
                       std::shared_ptr<BlockDevice>(checked(make_memory_device({.size_bytes = 4097}))));
      if (!one || !exports->add(*one)) std::abort();
    }
    return exports;
  }();
  return *made;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static const Limits limits;
  const auto mode = static_cast<TlsMode>(data[0] % 3);
  const std::size_t piece = 1 + data[1];
  std::span<const std::byte> input(reinterpret_cast<const std::byte*>(data) + 2, size - 2);
  Handshake handshake(table(), limits, mode);
  std::vector<std::byte> output;
  std::vector<std::byte> buffered;
  handshake.greet(output);
  while (!input.empty()) {
    const auto now = input.first(std::min(piece, input.size()));
    input = input.subspan(now.size());
    buffered.insert(buffered.end(), now.begin(), now.end());
    std::size_t used = 0;
    const auto step = handshake.consume(buffered, used, output);
    if (used > buffered.size() || output.size() > (8u << 20)) std::abort();
    buffered.erase(buffered.begin(), buffered.begin() + static_cast<std::ptrdiff_t>(used));
    if (step == Handshake::Step::closed) break;
    if (step == Handshake::Step::start_tls) {
      buffered.clear();
      handshake.tls_started({.is_encrypted = true, .names = {"fuzz"}});
    }
    if (step == Handshake::Step::transmission) {
      const Terms terms = handshake.take_terms();
      if (!terms.entry || terms.requests.size_bytes != 4097) std::abort();
      if (terms.requests.style == ReplyStyle::simple && terms.requests.has_contexts) std::abort();
      break;
    }
  }
  return 0;
}
