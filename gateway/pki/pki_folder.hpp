// An authority's folder and those of its hosts, with the names that QEMU, nbdkit and our own server look for:
//
//   DIR/ca-cert.pem  DIR/ca-key.pem
//   DIR/HOST/ca-cert.pem  server-cert.pem  server-key.pem  client-cert.pem  client-key.pem
//
// Used by the command `diskferry pki`. Keys have mode 0600 from the first byte on; a file appears whole or
// not at all, and none is replaced unless asked. All calls block.
#pragma once

#include "gateway/pki/certificate.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry::pki {

struct AuthorityOptions {
  std::string name = "diskferry authority";
  unsigned days = authority_days;
  KeyType key_type = KeyType::rsa;
  bool replace = false;  ///< another authority in the place of one that is there
};

struct HostOptions {
  std::string name;
  std::vector<std::string> addresses{};  ///< besides the name
  std::string folder{};                  ///< empty: DIR/name
  unsigned days = host_days;
  KeyType key_type = KeyType::rsa;
  bool replace = false;
};

/// What lies in a host's folder. Facts are there where the file is and can be read; `problems` are for
/// people.
struct HostOverview {
  std::string folder;
  std::optional<CertificateFacts> server;
  std::optional<CertificateFacts> client;
  std::vector<std::string> problems;
};
struct Overview {
  std::optional<CertificateFacts> authority;  ///< of the folder's ca-cert.pem
  bool has_authority_key = false;
  std::vector<std::string> problems;
  std::vector<HostOverview> hosts;  ///< by folder; the folder itself where it is a host's
};

// Errors of all: permission, no_space, io, and those of certificate.hpp; not_found where the authority is
// missing.

/// Makes an authority. Errors: already_exists.
Result<CertificateFacts> make_authority_folder(const std::string& folder, const AuthorityOptions& options);
/// Makes a host's folder; returns what is in it. Errors: already_exists.
Result<HostOverview> make_host_folder(const std::string& authority_folder, const HostOptions& options);
/// Tells what is there, and what is wrong or will be within `soon_days`. Errors: not_found where there is
/// nothing.
Result<Overview> look(const std::string& folder, std::int64_t now_s, unsigned soon_days);
/// New certificates for the keys in a host's folder, and the authority's of today beside them.
/// Errors: not_found; unsupported where another authority signed those.
Result<HostOverview> renew_host_folder(const std::string& authority_folder, const std::string& host_folder,
                                       unsigned days);
/// A new certificate for the authority's key; the hosts' stay valid. Theirs are not touched.
Result<CertificateFacts> renew_authority_folder(const std::string& folder, unsigned days);

}  // namespace diskferry::pki
