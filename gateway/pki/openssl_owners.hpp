// Owners of OpenSSL's objects, for the .cpp files of this room. The types are OpenSSL's own, by the names of
// their structs.
#pragma once

#include "diskferry/error.hpp"

#include <memory>
#include <string>
#include <vector>

struct x509_st;       // X509
struct evp_pkey_st;   // EVP_PKEY
struct X509_name_st;  // X509_NAME

namespace diskferry::pki {

struct Free {
  void operator()(x509_st* certificate) const noexcept;
  void operator()(evp_pkey_st* key) const noexcept;
};
using Certificate = std::unique_ptr<x509_st, Free>;
using Key = std::unique_ptr<evp_pkey_st, Free>;

/// What OpenSSL's queue of errors says first; empties it.
Error openssl_error(std::string operation, ErrorKind kind = ErrorKind::internal);

/// Errors: corrupt.
Result<Certificate> parse_certificate(const std::string& pem);
/// Never asks for a passphrase. Errors: corrupt.
Result<Key> parse_key(const std::string& pem);
Result<std::string> to_pem(x509_st* certificate);
/// PKCS #8 without a passphrase, as daemons need it.
Result<std::string> to_pem(evp_pkey_st* key);

/// Empty where there is none.
std::string common_name_in(const X509_name_st* name);
/// "10.0.0.1", "host.example" of the subject alternative names.
std::vector<std::string> addresses_of(const x509_st* certificate);

}  // namespace diskferry::pki
