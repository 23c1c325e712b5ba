// Owners of OpenSSL's objects, for the .cpp files of this room.
#pragma once

#include "diskferry/error.hpp"

#include <memory>
#include <string>
#include <vector>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace diskferry::pki {

struct Free {
  void operator()(X509* certificate) const noexcept { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
  void operator()(BIO* bio) const noexcept { BIO_free(bio); }
  void operator()(BIGNUM* number) const noexcept { BN_free(number); }
  void operator()(X509_EXTENSION* extension) const noexcept { X509_EXTENSION_free(extension); }
  void operator()(GENERAL_NAMES* names) const noexcept { GENERAL_NAMES_free(names); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Bio = std::unique_ptr<BIO, Free>;

/// What OpenSSL's queue of errors says first; empties it.
Error openssl_error(std::string operation, ErrorKind kind = ErrorKind::internal);

/// Errors: corrupt.
Result<Certificate> parse_certificate(const std::string& pem);
/// Never asks for a passphrase. Errors: corrupt.
Result<Key> parse_key(const std::string& pem);
Result<std::string> to_pem(X509* certificate);
/// PKCS #8 without a passphrase, as daemons need it.
Result<std::string> to_pem(EVP_PKEY* key);

/// Empty where there is none.
std::string common_name_in(const X509_NAME* name);
/// "10.0.0.1", "host.example" of the subject alternative names.
std::vector<std::string> addresses_of(const X509* certificate);

}  // namespace diskferry::pki
