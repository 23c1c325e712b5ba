// PEM texts to objects of OpenSSL's and back, and what a certificate says.
#include "gateway/pki/certificate.hpp"
#include "gateway/pki/openssl_owners.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <ctime>
#include <fmt/format.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace diskferry::pki {
namespace {

struct FreeParts {
  void operator()(BIO* bio) const noexcept { BIO_free(bio); }
  void operator()(GENERAL_NAMES* names) const noexcept { GENERAL_NAMES_free(names); }
};
using Bio = std::unique_ptr<BIO, FreeParts>;

Bio bio_over(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(std::min<std::size_t>(text.size(), 1u << 20))));
}

std::string text_in(BIO* bio) {
  char* from = nullptr;
  const long bytes = BIO_get_mem_data(bio, &from);
  return bytes > 0 ? std::string(from, static_cast<std::size_t>(bytes)) : std::string{};
}

int no_passphrase(char*, int, int, void*) {
  return -1;
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? static_cast<std::int64_t>(timegm(&parts)) : 0;
}

std::string sha256_of(const X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned bytes = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &bytes) != 1) return {};
  std::string text;
  for (unsigned i = 0; i < bytes; ++i) text += fmt::format("{}{:02X}", i == 0 ? "" : ":", digest[i]);
  return text;
}

std::string address_text(const GENERAL_NAME& name) {
  int type = 0;
  const auto* value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(&name, &type));
  const unsigned char* bytes = type == GEN_DNS || type == GEN_IPADD ? ASN1_STRING_get0_data(value) : nullptr;
  if (bytes == nullptr) return {};
  const auto length = static_cast<std::size_t>(ASN1_STRING_length(value));
  if (type == GEN_DNS) return {reinterpret_cast<const char*>(bytes), length};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (length != 4 && length != 16) return {};
  return inet_ntop(length == 4 ? AF_INET : AF_INET6, bytes, text.data(), text.size()) != nullptr ? text.data()
                                                                                                 : "";
}

}  // namespace

void Free::operator()(X509* certificate) const noexcept {
  X509_free(certificate);
}
void Free::operator()(EVP_PKEY* key) const noexcept {
  EVP_PKEY_free(key);
}

Error openssl_error(std::string operation, ErrorKind kind) {
  std::string why;
  while (const unsigned long code = ERR_get_error()) {
    if (const char* reason = ERR_reason_error_string(code); reason != nullptr && why.empty()) why = reason;
  }
  return fail(kind, std::move(operation)).why(why.empty() ? "OpenSSL refused" : why);
}

Result<Certificate> parse_certificate(const std::string& pem) {
  Certificate certificate(PEM_read_bio_X509(bio_over(pem).get(), nullptr, &no_passphrase, nullptr));
  if (!certificate) return unexpected(openssl_error("read certificate", ErrorKind::corrupt));
  return certificate;
}

Result<Key> parse_key(const std::string& pem) {
  Key key(PEM_read_bio_PrivateKey(bio_over(pem).get(), nullptr, &no_passphrase, nullptr));
  if (!key) return unexpected(openssl_error("read key", ErrorKind::corrupt));
  return key;
}

Result<std::string> to_pem(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(bio.get(), certificate) != 1) return unexpected(openssl_error("write certificate"));
  return text_in(bio.get());
}

Result<std::string> to_pem(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_secmem()));
  if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return unexpected(openssl_error("write key"));
  return text_in(bio.get());
}

std::string common_name_in(const X509_NAME* name) {
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at < 0) return {};
  unsigned char* text = nullptr;
  const int bytes = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  std::string found =
      bytes > 0 ? std::string(reinterpret_cast<char*>(text), static_cast<std::size_t>(bytes)) : "";
  OPENSSL_free(text);
  return found;
}

std::vector<std::string> addresses_of(const X509* certificate) {
  const std::unique_ptr<GENERAL_NAMES, FreeParts> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> found;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    if (auto text = address_text(*sk_GENERAL_NAME_value(names.get(), i)); !text.empty())
      found.push_back(std::move(text));
  }
  return found;
}

Result<CertificateFacts> describe(const std::string& pem) {
  DISKFERRY_TRY(const Certificate certificate, parse_certificate(pem));
  X509* const x509 = certificate.get();
  const EVP_PKEY* key = X509_get0_pubkey(x509);
  const std::uint32_t purposes = X509_get_extended_key_usage(x509);  // all bits set where it does not say
  const bool is_authority = X509_check_ca(x509) == 1;
  return CertificateFacts{
      .name = common_name_in(X509_get_subject_name(x509)),
      .issuer = common_name_in(X509_get_issuer_name(x509)),
      .addresses = addresses_of(x509),
      .not_before_s = seconds_of(X509_get0_notBefore(x509)),
      .not_after_s = seconds_of(X509_get0_notAfter(x509)),
      .key = key == nullptr ? std::string("unknown")
                            : fmt::format("{} {}", EVP_PKEY_get0_type_name(key), EVP_PKEY_get_bits(key)),
      .is_authority = is_authority,
      .is_for_servers = !is_authority && (purposes & XKU_SSL_SERVER) != 0,
      .is_for_clients = !is_authority && (purposes & XKU_SSL_CLIENT) != 0,
      .sha256 = sha256_of(x509)};
}

Result<bool> is_signed_by(const std::string& certificate, const std::string& authority_certificate) {
  DISKFERRY_TRY(const Certificate signed_one, parse_certificate(certificate));
  DISKFERRY_TRY(const Certificate authority, parse_certificate(authority_certificate));
  EVP_PKEY* const key = X509_get0_pubkey(authority.get());
  const bool is_signed =
      key != nullptr && X509_verify(signed_one.get(), key) == 1 &&
      X509_NAME_cmp(X509_get_issuer_name(signed_one.get()), X509_get_subject_name(authority.get())) == 0;
  ERR_clear_error();
  return is_signed;
}

}  // namespace diskferry::pki
