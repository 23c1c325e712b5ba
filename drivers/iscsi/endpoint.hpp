// Where a LUN is, taken out of a URI. Pure: parsing asks nobody. The fields are handed to libiscsi one by
// one, and never as the operator's URI, so that a name cannot switch on anything.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"

#include <array>
#include <string>
#include <string_view>

namespace diskferry::iscsi {

/// Where a target listens.
struct Portal {
  std::string host;  ///< without brackets
  std::uint16_t port = 3260;
  bool operator==(const Portal&) const = default;
};
/// "host", "host:port", "[::1]:port", with ",group" or without: as a target gives it that sends us elsewhere.
/// Errors: protocol.
Result<Portal> parse_portal(std::string_view text);
/// As libiscsi takes it.
std::string to_string(const Portal& portal);

/// How the headers of packets are protected beside TCP's checksum.
enum class HeaderDigest : std::uint8_t { as_target_wants, none, crc32c };

struct Endpoint {
  std::string name;  ///< for messages: the URI
  Portal portal;
  std::string target;  ///< "iqn.2026-01.com.example:disks"
  unsigned lun = 0;
  std::string user;                  ///< CHAP; empty: none
  std::string password_file;         ///< empty: the environment
  std::string target_user;           ///< mutual CHAP: by what name the target must answer; empty: need not
  std::string target_password_file;  ///< empty: the environment
  std::string initiator;             ///< our name; empty: this host's
  HeaderDigest header_digest = HeaderDigest::as_target_wants;
  bool reserves = true;             ///< no other initiator may write while we do
  bool steals_reservation = false;  ///< even where another one has reserved it
  unsigned connections = 0;         ///< 0: the driver's choice
  Duration connect_limit = std::chrono::seconds(10);
  /// How long a request waits for a lost target: as long as open-iscsi's sessions do by default.
  Duration reconnect_limit = std::chrono::seconds(120);
  /// Without a sign of life for this long, a connection counts as lost.
  Duration stall_limit = std::chrono::seconds(30);
};

inline constexpr unsigned connections_max = 16;
inline constexpr std::size_t name_bytes_max = 223;    // of targets and initiators (RFC 7143, 4.2.7.1)
inline constexpr std::size_t secret_bytes_max = 255;  // libiscsi's fields; users alike
/// In one level: 14 bits of the flat addressing method (SAM-5, 4.7.7.3).
inline constexpr std::uint32_t lun_max = 16383;

inline constexpr std::string_view password_variable = "DISKFERRY_ISCSI_PASSWORD";
inline constexpr std::string_view target_password_variable = "DISKFERRY_ISCSI_TARGET_PASSWORD";

inline constexpr std::array<DriverKey, 11> endpoint_keys{{
    {"password-file", "file with the CHAP password (default: environment DISKFERRY_ISCSI_PASSWORD)"},
    {"target-user", "mutual CHAP: the name by which the target must prove itself"},
    {"target-password-file",
     "file with the target's password (default: environment DISKFERRY_ISCSI_TARGET_PASSWORD)"},
    {"initiator",
     "our iSCSI name (default: that of /etc/iscsi/initiatorname.iscsi, else made of the host's)"},
    {"header-digest", "none or crc32c (default: as the target wants)"},
    {"reservation", "yes (default): other initiators cannot write while we do; no: they are trusted not to"},
    {"steal-reservation", "yes: write although another initiator has reserved it, whose owner is known gone"},
    {"connections", "sessions at once, 1 to 16 (default: one a core, 2 at least)"},
    {"connect-timeout", "seconds to log in and look at the LUN (default 10)"},
    {"reconnect-timeout", "seconds to wait for a lost target (default 120; 0: not at all)"},
    {"stall-timeout", "seconds without a sign of life until a session counts as lost (default 30)"},
}};

/// Errors: invalid_argument, too_large.
Result<Endpoint> parse_endpoint(const ImageUri& uri);

/// "iqn.", "eui." or "naa.", and then nothing that could be taken for something else.
bool is_iscsi_name(std::string_view name) noexcept;

/// What stands in a file of passwords: its first line. Errors: invalid_argument.
Result<std::string> password_of(std::string_view content, const std::string& path);
/// The name in the content of /etc/iscsi/initiatorname.iscsi; empty where there is none.
std::string initiator_of(std::string_view content);
/// A name for a host that has none yet.
std::string initiator_for_host(std::string_view host_name);

}  // namespace diskferry::iscsi
