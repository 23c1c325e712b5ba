// ImageUri: how an image is named, by a path or a URI. Prints without secrets. Names come from operators and
// from image headers and are hostile: parsing never opens anything.
#pragma once

#include "diskferry/error.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace diskferry {

class ImageUri {
 public:
  static constexpr std::size_t length_max = 8192;

  /// "disk.qcow2", "/dev/vg0/vm1", "file:///abs", "nbd://host/name", "nbd+unix:///name?socket=/path", ...
  /// What has no "scheme://" in front is a path. QEMU's "json:" and "nbd:host:port" forms are refused with a
  /// hint. Errors: invalid_argument, too_large.
  static Result<ImageUri> parse(std::string_view text);
  /// A local file, whatever characters its name has.
  static ImageUri from_path(std::string path);

  const std::string& scheme() const noexcept { return scheme_; }  ///< lower case; "file" for a path
  bool is_file() const noexcept { return scheme_ == "file"; }
  /// A file, or a server on this host's UNIX socket: a request costs copying and no round trip.
  bool is_on_this_host() const noexcept { return is_file() || scheme_.ends_with("+unix"); }
  const std::string& user() const noexcept { return user_; }
  const std::string& host() const noexcept { return host_; }  ///< without brackets for IPv6
  const std::optional<std::uint16_t>& port() const noexcept { return port_; }
  const std::string& path() const noexcept { return path_; }  ///< decoded; for "file" the path to open
  /// Decoded value of a query key; nullopt when absent.
  std::optional<std::string_view> query(std::string_view key) const;
  const std::vector<std::pair<std::string, std::string>>& queries() const noexcept { return queries_; }
  /// Adds or replaces a query key.
  void set_query(std::string key, std::string value);
  void set_path(std::string path) { path_ = std::move(path); }

  /// For messages and reports: as given, but for passwords and secret keys, which become "***", and control
  /// characters, which are escaped.
  std::string to_string() const;
  /// The same with control characters as they are: for JSON, which has its own way to escape them, and never
  /// for a terminal or a log.
  std::string without_secrets() const { return build(false); }
  /// With everything that is needed to open it; never to be logged.
  std::string to_uri_with_secrets() const;

  bool operator==(const ImageUri&) const = default;

 private:
  std::string build(bool with_secrets) const;
  std::string scheme_ = "file";
  std::string user_;
  std::string password_;
  std::string host_;
  std::optional<std::uint16_t> port_;
  std::string path_;
  std::vector<std::pair<std::string, std::string>> queries_;
};

/// True for query keys whose value must never be shown ("password", "secret", "key", ...; not the names of
/// files).
bool is_secret_key(std::string_view key) noexcept;
/// Escapes control characters (also newlines) so that a hostile name cannot forge log lines or terminal
/// output.
std::string printable(std::string_view text);

/// An image's name as somebody gave it, as ImageUri::to_string() tells it.
std::string shown_name(std::string_view name);

/// Whether JSON may hold the text as it is.
bool is_utf8(std::string_view text) noexcept;

}  // namespace diskferry
