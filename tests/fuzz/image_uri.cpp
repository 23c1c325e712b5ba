// Names of images come from operators and from the headers of images somebody else made. Parsing must answer
// any text, and what it accepts must survive a round trip: printed with its secrets and parsed again it names
// the same image.
#include "diskferry/image_uri.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace diskferry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_bytes(text);
  auto uri = ImageUri::parse(text);
  if (!uri) {
    const std::string message = uri.error().message();
    DISKFERRY_ASSERT(std::ranges::none_of(message, [](unsigned char c) { return c < 0x20; }),
                     "a message shows no control characters of a hostile name");
    return 0;
  }
  const std::string shown = uri->to_string();
  DISKFERRY_ASSERT(std::ranges::none_of(shown, [](unsigned char c) { return c < 0x20 || c == 0x7f; }),
                   "a printed name has no control characters");
  const auto again = ImageUri::parse(uri->to_uri_with_secrets());
  if (uri->to_uri_with_secrets().size() <= ImageUri::length_max) {
    DISKFERRY_ASSERT(again.has_value(), "what was parsed can be printed and parsed again");
    DISKFERRY_ASSERT(*again == *uri, "a round trip names the same image");
  }
  return 0;
}
