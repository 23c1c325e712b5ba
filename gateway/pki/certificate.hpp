// A private certificate authority in a few functions: PEM texts in, PEM texts out, no files. Used by
// pki_folder. Makes what QEMU, libvirt, nbdkit and our own server and client accept of each other; it is no
// general tool.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace diskferry::pki {

/// RSA with 3072 bits unless asked: libvirt 9.0 refuses server certificates with an elliptic key ("usage does
/// not permit key encipherment").
enum class KeyType : std::uint8_t { rsa, ec };
/// A certificate is for one of them, so that a stolen client's key does not make a server.
enum class Purpose : std::uint8_t { server, client };

inline constexpr unsigned days_max = 36'500;
inline constexpr unsigned authority_days = 3650;
inline constexpr unsigned host_days = 730;
/// A certificate is valid from this long before it was made: hosts' clocks differ.
inline constexpr std::int64_t backdated_s = 24 * 3600;

/// PEM texts. The key is a secret: it goes into a file of mode 0600 and nowhere else.
struct KeyPair {
  std::string certificate;
  std::string key;
};

struct HostRequest {
  std::string name;  ///< becomes the common name, and is what --allow of an export compares
  std::vector<std::string> addresses{};  ///< IP addresses and DNS names that clients connect to
  Purpose purpose = Purpose::server;
  KeyType key_type = KeyType::rsa;
  unsigned days = host_days;  ///< but no longer than the authority
};

/// What a certificate says. Times are seconds since 1970.
struct CertificateFacts {
  std::string name;    ///< common name
  std::string issuer;  ///< that of its authority
  std::vector<std::string> addresses;
  std::int64_t not_before_s = 0;
  std::int64_t not_after_s = 0;
  std::string key;  ///< "RSA 3072", "EC 256"
  bool is_authority = false;
  bool is_for_servers = false;
  bool is_for_clients = false;
  std::string sha256;  ///< fingerprint, upper case hex with colons as openssl prints it
};

/// Whether the name may be a host's: letters, digits, ".", "-", "_", at most 64, not beginning with "." or
/// "-". It is also the name of a folder. Errors: invalid_argument.
Result<void> check_host_name(const std::string& name);
/// An IP address or a DNS name, also with "*." in front. Errors: invalid_argument.
Result<void> check_address(const std::string& address);

// Errors of all: invalid_argument (names, days), corrupt (a PEM text, a key that is not the
// certificate's), internal (OpenSSL). They compute for up to some seconds and block on nothing.

Result<KeyPair> make_authority(const std::string& name, unsigned days, KeyType key_type);
/// The same authority with another end: what it signed stays valid.
Result<std::string> renew_authority(const KeyPair& authority, unsigned days);
/// A new key and a certificate for it. Errors: also unsupported when the authority has expired.
Result<KeyPair> issue(const KeyPair& authority, const HostRequest& wanted);
/// The same names, purpose and key with another end. Errors: as issue(); unsupported also where another
/// authority signed.
Result<std::string> reissue(const KeyPair& authority, const std::string& certificate, unsigned days);

Result<CertificateFacts> describe(const std::string& certificate);
/// Whether the authority's key made the certificate's signature; says nothing of times.
Result<bool> is_signed_by(const std::string& certificate, const std::string& authority_certificate);

}  // namespace diskferry::pki
