// Parsing and printing of image names; Boost.URL does the URI grammar.
#include "diskferry/image_uri.hpp"

#include "diskferry/qemu_rbd_name.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <fmt/format.h>

#include <boost/url/encode.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/rfc/pchars.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>
#include <boost/url/url_view.hpp>

namespace diskferry {
namespace urls = boost::urls;

namespace {

/// The scheme in front of "://", or empty: what has none is a path, even with colons in it.
std::string_view scheme_of(std::string_view text) {
  const auto end = text.find("://");
  if (end == std::string_view::npos || end == 0) return {};
  const auto scheme = text.substr(0, end);
  const bool valid = std::isalpha(static_cast<unsigned char>(scheme.front())) != 0 &&
                     std::ranges::all_of(scheme, [](unsigned char c) {
                       return std::isalnum(c) != 0 || c == '+' || c == '-' || c == '.';
                     });
  return valid ? scheme : std::string_view{};
}

/// A name that was refused, for the message: without what may be a secret. As it could not be parsed, all
/// before the last '@' counts as user and password, and no query is shown.
std::string refused_name(std::string_view text) {
  const auto authority = text.find("://");
  if (authority == std::string_view::npos) return printable(text.substr(0, 200));
  std::string shown(text.substr(0, authority + 3));
  auto rest = text.substr(authority + 3);
  if (const auto at = rest.rfind('@'); at != std::string_view::npos) {
    shown += "***";
    rest.remove_prefix(at);
  }
  const auto query = rest.find('?');
  shown += rest.substr(0, query);
  if (query != std::string_view::npos) shown += "?...";
  return printable(std::string_view(shown).substr(0, 200));
}

Error bad_name(std::string_view text, std::string why) {
  return fail(ErrorKind::invalid_argument, "parse image name", refused_name(text)).why(std::move(why));
}

bool is_refused_qemu_form(std::string_view text) {
  return text.starts_with("json:") || text.starts_with("driver=") || text.starts_with("nbd:") ||
         text.starts_with("nbd+unix:") || text.starts_with("fat:") || text.starts_with("blkdebug:");
}

/// Letters, digits, and what addresses need; colons only inside brackets.
bool is_host_character(unsigned char c, bool is_address) noexcept {
  return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || (is_address && c == ':');
}

}  // namespace

bool is_secret_key(std::string_view key) noexcept {
  constexpr std::array names{"password", "secret", "key", "token", "passphrase", "chap-secret"};
  return std::ranges::find(names, key) != names.end();
}

namespace {

/// Bytes of the UTF-8 character that `text` begins with (RFC 3629); 0 where it begins with none.
std::size_t utf8_character_bytes(std::string_view text) noexcept {
  const auto byte = [&](std::size_t at) -> unsigned {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0;
  };
  const auto goes_on = [&](std::size_t at) { return (byte(at) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return goes_on(1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    const bool is_overlong = first == 0xe0 && byte(1) < 0xa0;
    const bool is_surrogate = first == 0xed && byte(1) >= 0xa0;
    return goes_on(1) && goes_on(2) && !is_overlong && !is_surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first < 0xf5) {
    const bool is_outside = (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) >= 0x90);
    return goes_on(1) && goes_on(2) && goes_on(3) && !is_outside ? 4 : 0;
  }
  return 0;
}

/// C0 and C1 control characters: terminals act on both.
bool is_control(std::string_view character) noexcept {
  const auto first = static_cast<unsigned char>(character[0]);
  return first < 0x20 || first == 0x7f || (first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0);
}

}  // namespace

bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t bytes = utf8_character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string printable(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const std::size_t bytes = utf8_character_bytes(text);
    const std::string_view character = text.substr(0, std::max<std::size_t>(1, bytes));
    if (bytes != 0 && !is_control(character)) {
      shown += character;
    } else {
      for (const char c : character) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    text.remove_prefix(character.size());
  }
  return shown;
}

Result<ImageUri> ImageUri::parse(std::string_view text) {
  if (text.empty()) return unexpected(bad_name(text, "the name is empty"));
  if (text.size() > length_max)
    return unexpected(fail(ErrorKind::too_large, "parse image name")
                          .why(fmt::format("{} bytes long, the limit is {}", text.size(), length_max)));
  if (text.find('\0') != std::string_view::npos) return unexpected(bad_name(text, "contains a NUL byte"));
  const auto scheme = scheme_of(text);
  if (scheme.empty()) {
    if (is_qemu_rbd_name(text)) {
      DISKFERRY_TRY(const std::string translated, translate_qemu_rbd_name(text));
      return parse(translated);
    }
    if (is_refused_qemu_form(text))
      return unexpected(bad_name(text, "QEMU's option strings are not taken as image names")
                            .remedy("give a path (./ in front where the name has a colon) or a URI"));
    return from_path(std::string(text));
  }
  const auto parsed = urls::parse_uri(urls::string_view(text.data(), text.size()));
  if (!parsed) return unexpected(bad_name(text, "not a valid URI: " + parsed.error().message()));
  const urls::url_view& url = *parsed;

  ImageUri uri;
  uri.scheme_.assign(scheme);
  std::ranges::transform(uri.scheme_, uri.scheme_.begin(), [](unsigned char c) { return std::tolower(c); });
  uri.user_ = url.user();
  uri.password_ = url.password();
  uri.host_ = url.host_address();
  if (url.has_port() && !url.port().empty()) {
    if (url.port_number() == 0 || url.port().size() > 5 || std::stoul(std::string(url.port())) > 65535)
      return unexpected(bad_name(text, "the port is not a number from 1 to 65535"));
    uri.port_ = url.port_number();
  }
  // Boost.URL 1.81 takes "host:text" for a host and a path that does not begin with a slash: the text may be
  // a password that somebody mistyped, so it is refused before any of it is shown as a host or a path.
  const bool host_is_address = url.host_type() == urls::host_type::ipv6;
  if (!std::ranges::all_of(uri.host_, [&](unsigned char c) { return is_host_character(c, host_is_address); }))
    return unexpected(fail(ErrorKind::invalid_argument, "parse image name")
                          .why("the host has characters that no host name has")
                          .remedy("write %40 for '@' and %3A for ':' in a user name or password"));
  uri.path_ = url.path();
  if (!uri.path_.empty() && uri.path_.front() != '/')
    return unexpected(fail(ErrorKind::invalid_argument, "parse image name")
                          .why("the port is not a number, or the path does not begin with '/'"));
  if (url.has_fragment()) return unexpected(bad_name(text, "a '#' must be written as %23"));
  for (const auto& [key, value, has_value] : url.params()) {
    // "?" with nothing behind it, what a list that begins or ends with '&' leaves, and "=": no key.
    if (key.empty() && value.empty()) continue;
    uri.queries_.emplace_back(key, has_value ? value : "");
  }
  if (uri.path_.find('\0') != std::string::npos || uri.host_.find('\0') != std::string::npos)
    return unexpected(bad_name(text, "contains a NUL byte"));
  if (uri.is_file()) {
    if (!uri.host_.empty() && uri.host_ != "localhost")
      return unexpected(bad_name(text, "file URIs have no host").remedy("write file:///absolute/path"));
    if (!uri.user_.empty() || !uri.password_.empty() || uri.port_)
      return unexpected(fail(ErrorKind::invalid_argument, "parse image name")
                            .why("file URIs have no user, password or port"));
    if (uri.path_.empty()) return unexpected(bad_name(text, "the path is empty"));
  }
  return uri;
}

ImageUri ImageUri::from_path(std::string path) {
  ImageUri uri;
  uri.path_ = std::move(path);
  return uri;
}

std::optional<std::string_view> ImageUri::query(std::string_view key) const {
  for (const auto& [name, value] : queries_) {
    if (name == key) return value;
  }
  return std::nullopt;
}

void ImageUri::set_query(std::string key, std::string value) {
  for (auto& [name, old] : queries_) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  queries_.emplace_back(std::move(key), std::move(value));
}

std::string ImageUri::build(bool with_secrets) const {
  if (is_file() && host_.empty() && queries_.empty()) return path_;
  const auto encode = [](std::string_view text, const auto& allowed) {
    return std::string(urls::encode(urls::string_view(text.data(), text.size()), allowed));
  };
  std::string text = scheme_ + "://";
  if (!user_.empty() || !password_.empty()) {
    text += encode(user_, urls::unreserved_chars);
    if (!password_.empty()) text += with_secrets ? ":" + encode(password_, urls::unreserved_chars) : ":***";
    text += "@";
  }
  text += host_.find(':') == std::string::npos ? host_ : "[" + host_ + "]";
  if (port_) text += fmt::format(":{}", *port_);
  text += encode(path_, urls::pchars + '/');
  char separator = '?';
  for (const auto& [key, value] : queries_) {
    text += separator + encode(key, urls::unreserved_chars);
    if (!value.empty())
      text += "=" + (with_secrets || !is_secret_key(key) ? encode(value, urls::unreserved_chars + '/' + ':')
                                                         : std::string("***"));
    separator = '&';
  }
  return text;
}

std::string ImageUri::to_string() const {
  return printable(build(false));
}
std::string ImageUri::to_uri_with_secrets() const {
  return build(true);
}

std::string shown_name(std::string_view name) {
  const auto uri = ImageUri::parse(name);
  return uri ? uri->to_string() : printable(name);
}

}  // namespace diskferry
