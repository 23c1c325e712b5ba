// QEMU's own form of an RBD image's name, which its tools print and libvirt, OpenStack and Proxmox store:
//   rbd:pool[/namespace]/image[@snapshot][:option=value]...     a backslash takes the next character
//   literally
#include "diskferry/qemu_rbd_name.hpp"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>

namespace diskferry {
namespace {

constexpr std::string_view prefix = "rbd:";

/// `text` at each `separator` that has no backslash before it; the pieces keep theirs.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == separator) {
      pieces.push_back(text.substr(begin, at - begin));
      begin = at + 1;
    }
  }
  pieces.push_back(text.substr(std::min(begin, text.size())));
  return pieces;
}

std::string without_backslashes(std::string_view text) {
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\' && at + 1 < text.size()) ++at;
    plain += text[at];
  }
  return plain;
}

/// An '@' stays: in both forms it is what a snapshot's name comes after.
std::string encoded(std::string_view text) {
  return boost::urls::encode(boost::urls::string_view(text.data(), text.size()),
                             boost::urls::unreserved_chars + '@');
}

/// Other names are the first part of the path instead.
bool can_be_host(std::string_view name) noexcept {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

Error refused(std::string why) {
  // Nothing of the name is shown: an option may be a secret.
  return fail(ErrorKind::invalid_argument, "parse image name", "rbd:...")
      .why(std::move(why))
      .remedy("write rbd://POOL/IMAGE?conf=FILE&id=USER");
}

}  // namespace

bool is_qemu_rbd_name(std::string_view text) noexcept {
  return text.starts_with(prefix);
}

Result<std::string> translate_qemu_rbd_name(std::string_view text) {
  const auto pieces = split(text.substr(prefix.size()), ':');
  const auto names = split(pieces.front(), '/');
  if (names.size() < 2) return unexpected(refused("there is no pool or no image in it"));
  const std::string pool = without_backslashes(names.front());
  std::string uri = can_be_host(pool) ? "rbd://" + pool : "rbd:///" + encoded(pool);
  for (const std::string_view name : std::span(names).subspan(1))
    uri += "/" + encoded(without_backslashes(name));
  char before = '?';
  for (const std::string_view option : std::span(pieces).subspan(1)) {
    const std::string_view name = split(option, '=').front();
    if (name.empty() || name.size() == option.size())
      return unexpected(refused("an option has no name or no value"));
    uri += std::exchange(before, '&') + encoded(without_backslashes(name)) + "=" +
           encoded(without_backslashes(option.substr(name.size() + 1)));
  }
  return uri;
}

}  // namespace diskferry
