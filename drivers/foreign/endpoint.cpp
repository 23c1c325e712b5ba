#include "drivers/foreign/endpoint.hpp"

#include "drivers/support/uri_keys.hpp"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <optional>

#include <xxhash.h>

namespace diskferry::foreign {
namespace {

constexpr unsigned connections_max = 16;
constexpr std::size_t path_bytes_max = 4096;
constexpr std::size_t fingerprint_bytes = 32;                      // SHA-256
constexpr Duration stall_limit_max = std::chrono::seconds(10000);  // QEMU's curl takes no more

std::uint16_t default_port(std::string_view scheme) {
  return scheme == "https" ? 443 : scheme == "http" ? 80 : 22;
}

std::string percent_encoded(std::string_view path) {
  std::string text;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain =
        std::isalnum(byte) != 0 || std::string_view("/-._~").find(c) != std::string_view::npos;
    text += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return text;
}

/// The digits of `text` where it is `fingerprint_bytes` in hexadecimal, with or without colons.
std::optional<std::string> hexadecimal(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c == ':') continue;
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return std::nullopt;
    digits += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (digits.size() != 2 * fingerprint_bytes) return std::nullopt;
  return digits;
}

/// The same of base 64 without padding, as OpenSSH writes it.
std::optional<std::string> hexadecimal_of_base64(std::string_view text) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string digits;
  unsigned bits = 0;
  unsigned count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const auto value = alphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = (bits << 6 | static_cast<unsigned>(value)) & 0xffff;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    digits += fmt::format("{:02x}", bits >> count & 0xff);
  }
  if (digits.size() != 2 * fingerprint_bytes) return std::nullopt;
  return digits;
}

Result<void> take_ssh(const ImageUri& uri, Endpoint& endpoint) {
  DISKFERRY_TRY(const bool is_checked, truth_key(uri, "host-key-check", true));
  endpoint.known_hosts = uri.query("known-hosts").value_or("");
  endpoint.identity = uri.query("identity").value_or("");
  DISKFERRY_TRY(endpoint.uses_agent, truth_key(uri, "agent", false));
  if (!is_checked) endpoint.host_key_check = HostKeyCheck::off;
  const auto key = uri.query("host-key");
  if (!key) return {};
  if (!is_checked) return unexpected(bad_uri(uri, "host-key and host-key-check=false exclude each other"));
  std::string_view text = *key;
  const bool is_named = text.starts_with("SHA256:") || text.starts_with("sha256:");
  if (is_named) text.remove_prefix(7);
  auto digits = hexadecimal(text);
  if (!digits) digits = hexadecimal_of_base64(text);
  if (!digits || !is_named)
    return unexpected(bad_uri(uri, "host-key is not SHA256: and the hash of a key",
                              "take it from ssh-keygen -l -f on the server"));
  endpoint.host_key_check = HostKeyCheck::fingerprint;
  endpoint.host_key = *std::move(digits);
  return {};
}

Result<void> take_web(const ImageUri& uri, Endpoint& endpoint) {
  endpoint.password_file = uri.query("password-file").value_or("");
  endpoint.cookie_file = uri.query("cookie-file").value_or("");
  endpoint.ca_file = uri.query("ca-file").value_or("");
  DISKFERRY_TRY(endpoint.verify_peer, truth_key(uri, "tls-verify-peer", true));
  if (!endpoint.password_file.empty() && endpoint.user.empty())
    return unexpected(bad_uri(uri, "a password needs a user", "write user@ in front of the host"));
  if (endpoint.scheme == "http" && (!endpoint.ca_file.empty() || uri.query("tls-verify-peer")))
    return unexpected(bad_uri(uri, "keys of TLS on a connection in clear text", "use https://"));
  if (endpoint.scheme == "http" && !endpoint.cookie_file.empty())
    return unexpected(
        bad_uri(uri, "a cookie would go in clear text to wherever the server redirects us", "use https://"));
  if (!endpoint.ca_file.empty() && !endpoint.verify_peer)
    return unexpected(bad_uri(uri, "ca-file and tls-verify-peer=false exclude each other"));
  return {};
}

}  // namespace

Result<Endpoint> parse_endpoint(const ImageUri& uri) {
  Endpoint endpoint;
  endpoint.name = uri.to_string();
  endpoint.scheme = uri.scheme();
  if (uri.host().empty()) return unexpected(bad_uri(uri, "the host is missing"));
  if (uri.without_secrets().find(":***@") != std::string::npos)
    return unexpected(
        bad_uri(uri, "a password in a name ends up in the histories of shells",
                endpoint.is_ssh() ? "use a key" : "put it into a file and name password-file="));
  endpoint.host = uri.host();
  endpoint.port = uri.port().value_or(default_port(endpoint.scheme));
  endpoint.path = uri.path();
  endpoint.user = uri.user();
  if (endpoint.path.size() < 2) return unexpected(bad_uri(uri, "the path of a file is missing"));
  if (endpoint.path.size() > path_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "open", fmt::format("{}://{}", endpoint.scheme, endpoint.host))
            .why(fmt::format("the path has {} bytes, at most {} are taken", endpoint.path.size(),
                             path_bytes_max)));
  DISKFERRY_CHECK(endpoint.is_ssh() ? take_ssh(uri, endpoint) : take_web(uri, endpoint));
  DISKFERRY_TRY(endpoint.connections, number_key(uri, "connections", 1, connections_max, 0));
  DISKFERRY_TRY(endpoint.connect_limit, seconds_key(uri, "connect-timeout", endpoint.connect_limit));
  DISKFERRY_TRY(endpoint.reconnect_limit, seconds_key(uri, "reconnect-timeout", endpoint.reconnect_limit));
  DISKFERRY_TRY(endpoint.stall_limit, seconds_key(uri, "stall-timeout", endpoint.stall_limit));
  if (endpoint.connect_limit == Duration::zero() || endpoint.stall_limit == Duration::zero())
    return unexpected(bad_uri(uri, "connect-timeout and stall-timeout must be more than 0"));
  if (endpoint.stall_limit > stall_limit_max)
    return unexpected(bad_uri(uri, "stall-timeout is more than 10000 seconds"));
  return endpoint;
}

std::string content_identity(const Endpoint& endpoint, std::uint64_t size_bytes,
                             std::span<const std::byte> ends) {
  return fmt::format("{}|{}|{}|{}|{}|{:016x}", endpoint.scheme, endpoint.host, endpoint.port, endpoint.path,
                     size_bytes, XXH3_64bits(ends.data(), ends.size()));
}

NodeOptions network_node(const Endpoint& endpoint) {
  if (endpoint.is_ssh()) {
    NodeOptions node{{"driver", "ssh"},
                     {"server.host", endpoint.host},
                     {"server.port", fmt::format("{}", endpoint.port)},
                     {"path", endpoint.path},
                     {"user", endpoint.user}};
    switch (endpoint.host_key_check) {
      case HostKeyCheck::known_hosts:
        node.emplace_back("host-key-check.mode", "known_hosts");
        break;
      case HostKeyCheck::off:
        node.emplace_back("host-key-check.mode", "none");
        break;
      case HostKeyCheck::fingerprint:
        node.insert(node.end(), {{"host-key-check.mode", "hash"},
                                 {"host-key-check.type", "sha256"},
                                 {"host-key-check.hash", endpoint.host_key}});
    }
    return node;
  }
  const bool is_address = endpoint.host.find(':') != std::string::npos;
  const auto answer_s = std::chrono::ceil<std::chrono::seconds>(endpoint.stall_limit).count();
  NodeOptions node{
      {"driver", endpoint.scheme},
      {"url", fmt::format("{}://{}{}{}:{}{}", endpoint.scheme, is_address ? "[" : "", endpoint.host,
                          is_address ? "]" : "", endpoint.port, percent_encoded(endpoint.path))},
      {"readahead", "1048576"},  // one request is under way at a time
      {"timeout", fmt::format("{}", answer_s)}};
  if (endpoint.scheme == "https") node.emplace_back("sslverify", endpoint.verify_peer ? "on" : "off");
  if (!endpoint.user.empty()) node.emplace_back("username", endpoint.user);
  if (!endpoint.password_file.empty()) node.emplace_back("password-secret", password_secret);
  if (!endpoint.cookie_file.empty()) node.emplace_back("cookie-secret", cookie_secret);
  return node;
}

}  // namespace diskferry::foreign
