#include "drivers/iscsi/endpoint.hpp"

#include "drivers/support/uri_keys.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fmt/format.h>

namespace diskferry::iscsi {
namespace {

bool is_letter_or_digit(unsigned char c) noexcept {
  return std::isalnum(c) != 0;
}

template <class Number>
bool parse_number(std::string_view text, Number& into) noexcept {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), into);
  return failed == std::errc() && end == text.data() + text.size();
}

Result<void> refuse_passwords(const ImageUri& uri) {
  const bool has_password = uri.to_uri_with_secrets() != uri.without_secrets();
  if (!has_password) return {};
  return unexpected(bad_uri(uri, "a password in a URI can be seen by everybody on this host",
                            fmt::format("write it to a file that only you can read and name that with "
                                        "password-file=PATH, or set {}",
                                        password_variable)));
}

Result<void> take_lun(const ImageUri& uri, Endpoint& endpoint) {
  const std::string& path = uri.path();
  const std::size_t slash = path.rfind('/');
  const std::string example =
      fmt::format("write iscsi://{}/iqn.2026-01.com.example:disks/1", printable(endpoint.portal.host));
  if (slash == 0 || slash == std::string::npos)
    return unexpected(bad_uri(uri, "a target and the number of a LUN are missing", example));
  endpoint.target = path.substr(1, slash - 1);
  if (!is_iscsi_name(endpoint.target))
    return unexpected(bad_uri(uri, "this is no name of a target", example));
  std::uint32_t lun = 0;
  if (!parse_number(std::string_view(path).substr(slash + 1), lun) || lun > lun_max)
    return unexpected(bad_uri(uri, fmt::format("a LUN is a number from 0 to {}", lun_max), example));
  endpoint.lun = lun;
  return {};
}

Result<std::string> file_key(const ImageUri& uri, std::string_view key) {
  const auto path = uri.query(key);
  if (!path) return std::string();
  if (path->empty() || path->find('\0') != std::string_view::npos)
    return unexpected(bad_uri(uri, fmt::format("'{}' needs the path of a file", key)));
  return std::string(*path);
}

Result<void> take_users(const ImageUri& uri, Endpoint& endpoint) {
  endpoint.user = uri.user();
  endpoint.target_user = uri.query("target-user").value_or("");
  DISKFERRY_TRY(endpoint.password_file, file_key(uri, "password-file"));
  DISKFERRY_TRY(endpoint.target_password_file, file_key(uri, "target-password-file"));
  for (const std::string* user : {&endpoint.user, &endpoint.target_user}) {
    if (user->size() > secret_bytes_max || user->find('\0') != std::string::npos)
      return unexpected(bad_uri(uri, "a user's name is too long, or has a zero byte in it"));
  }
  if (endpoint.user.empty() && !endpoint.password_file.empty())
    return unexpected(bad_uri(uri, "a password without a user", "write iscsi://user@host/..."));
  if (endpoint.user.empty() && !endpoint.target_user.empty())
    return unexpected(bad_uri(uri, "a target proves itself only to who proves itself",
                              "write iscsi://user@host/... as well"));
  if (endpoint.target_user.empty() && !endpoint.target_password_file.empty())
    return unexpected(bad_uri(uri, "a target's password without its name", "add target-user=NAME"));
  return {};
}

Result<void> take_names(const ImageUri& uri, Endpoint& endpoint) {
  if (const auto name = uri.query("initiator")) {
    if (!is_iscsi_name(*name))
      return unexpected(bad_uri(uri, "'initiator' is no iSCSI name", "write iqn.2026-01.com.example:host"));
    endpoint.initiator = *name;
  }
  const auto digest = uri.query("header-digest");
  if (digest && *digest != "none" && *digest != "crc32c")
    return unexpected(bad_uri(uri, "'header-digest' is none or crc32c"));
  if (digest) endpoint.header_digest = *digest == "none" ? HeaderDigest::none : HeaderDigest::crc32c;
  return {};
}

}  // namespace

bool is_iscsi_name(std::string_view name) noexcept {
  const bool has_kind = name.starts_with("iqn.") || name.starts_with("eui.") || name.starts_with("naa.");
  return has_kind && name.size() > 4 && name.size() <= name_bytes_max &&
         std::ranges::all_of(name, [](unsigned char c) {
           return is_letter_or_digit(c) || c == '-' || c == '.' || c == ':' || c == '_' || c >= 0x80;
         });
}

Result<Portal> parse_portal(std::string_view text) {
  const auto bad = [&] {
    return unexpected(fail(ErrorKind::protocol, "log in")
                          .why(fmt::format("the target sends us to '{}', which is no address",
                                           printable(text.substr(0, 100)))));
  };
  std::string_view rest = text.substr(0, text.find(','));
  Portal portal;
  if (rest.starts_with('[')) {
    const auto end = rest.find(']');
    if (end == std::string_view::npos) return bad();
    portal.host = rest.substr(1, end - 1);
    rest.remove_prefix(end + 1);
  } else {
    const auto colon = rest.find(':');
    portal.host = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon);
  }
  const bool is_host = !portal.host.empty() && std::ranges::all_of(portal.host, [](unsigned char c) {
    return is_letter_or_digit(c) || c == '.' || c == '-' || c == '_' || c == ':';
  });
  if (!is_host) return bad();
  if (rest.empty()) return portal;
  if (rest.front() != ':' || !parse_number(rest.substr(1), portal.port) || portal.port == 0) return bad();
  return portal;
}

std::string to_string(const Portal& portal) {
  return portal.host.find(':') == std::string::npos ? fmt::format("{}:{}", portal.host, portal.port)
                                                    : fmt::format("[{}]:{}", portal.host, portal.port);
}

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  DISKFERRY_CHECK(refuse_passwords(uri));
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  if (uri.host().empty()) return unexpected(bad_uri(uri, "the host is missing"));
  endpoint.portal.host = uri.host();
  if (uri.port()) endpoint.portal.port = *uri.port();
  DISKFERRY_CHECK(take_lun(uri, endpoint));
  DISKFERRY_CHECK(take_users(uri, endpoint));
  DISKFERRY_CHECK(take_names(uri, endpoint));
  DISKFERRY_TRY(endpoint.reserves, truth_key(uri, "reservation", true));
  DISKFERRY_TRY(endpoint.steals_reservation, truth_key(uri, "steal-reservation", false));
  if (endpoint.steals_reservation && !endpoint.reserves)
    return unexpected(bad_uri(uri, "steal-reservation makes no sense without a reservation"));
  DISKFERRY_TRY(endpoint.connections, number_key(uri, "connections", 1, connections_max, 0));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  DISKFERRY_TRY(endpoint.stall_limit, seconds_key(uri, "stall-timeout", endpoint.stall_limit));
  if (endpoint.connect_limit == Duration::zero() || endpoint.stall_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout and stall-timeout must be more than 0"));
  return endpoint;
}

Result<std::string> password_of(std::string_view content, const std::string& path) {
  const std::string_view line = content.substr(0, content.find_first_of("\r\n"));
  const auto bad = [&](std::string why) {
    return unexpected(
        fail(ErrorKind::invalid_argument, "read password", printable(path)).why(std::move(why)));
  };
  if (line.empty()) return bad("the first line is empty");
  if (line.size() > secret_bytes_max)
    return bad(fmt::format("the first line has more than {} bytes", secret_bytes_max));
  if (line.find('\0') != std::string_view::npos) return bad("there is a zero byte in it");
  return std::string(line);
}

std::string initiator_of(std::string_view content) {
  constexpr std::string_view key = "InitiatorName=";
  while (!content.empty()) {
    const auto end = content.find('\n');
    std::string_view line = content.substr(0, end);
    content.remove_prefix(end == std::string_view::npos ? content.size() : end + 1);
    if (!line.starts_with(key)) continue;
    line.remove_prefix(key.size());
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) line.remove_suffix(1);
    return is_iscsi_name(line) ? std::string(line) : std::string();
  }
  return {};
}

std::string initiator_for_host(std::string_view host_name) {
  std::string name = "iqn.2026-01.org.diskferry:";
  for (const char c : host_name.substr(0, 64)) {
    const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    name += is_letter_or_digit(static_cast<unsigned char>(c)) || c == '.' ? lower : '-';
  }
  return host_name.empty() ? name + "host" : name;
}

}  // namespace diskferry::iscsi
