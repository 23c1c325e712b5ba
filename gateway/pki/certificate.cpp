// See the header. Extensions are those that GnuTLS (QEMU, libnbd, nbdkit) and OpenSSL both insist on.
#include "gateway/pki/certificate.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/pki/openssl_owners.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cctype>
#include <ctime>
#include <fmt/format.h>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace diskferry::pki {
namespace {

struct FreeParts {
  void operator()(BIGNUM* number) const noexcept { BN_free(number); }
  void operator()(X509_EXTENSION* extension) const noexcept { X509_EXTENSION_free(extension); }
};

constexpr unsigned rsa_bits = 3072;  // NIST SP 800-57: good beyond 2030
constexpr const char* curve = "P-256";
constexpr std::size_t common_name_max = 64;  // X.520
constexpr std::size_t dns_name_max = 253;

Error bad(std::string what, std::string why) {
  return fail(ErrorKind::invalid_argument, "make certificate", std::move(what)).why(std::move(why));
}

Result<void> check_days(unsigned days) {
  if (days == 0 || days > days_max)
    return unexpected(bad("days", fmt::format("a certificate is valid for 1 to {} days", days_max)));
  return {};
}

bool is_ip_address(const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  return inet_pton(AF_INET, text.c_str(), bytes.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1;
}

Result<Key> make_key(KeyType type) {
  Key key(type == KeyType::rsa ? EVP_RSA_gen(rsa_bits) : EVP_EC_gen(curve));
  if (!key) return unexpected(openssl_error("make key"));
  return key;
}

/// A certificate under way. What fails is remembered and told at the end.
class Builder {
 public:
  explicit Builder(EVP_PKEY* key) : certificate_(X509_new()) {
    // 159 random bits: positive, and at most the 20 bytes of RFC 5280.
    const std::unique_ptr<BIGNUM, FreeParts> serial(BN_new());
    expect(certificate_ && X509_set_version(certificate_.get(), X509_VERSION_3) == 1 && serial &&
           BN_rand(serial.get(), 159, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
           BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate_.get())) != nullptr &&
           X509_set_pubkey(certificate_.get(), key) == 1);
  }

  /// Adds a part to the subject's name.
  void name_part(int nid, const std::string& value) {
    const auto* text = reinterpret_cast<const unsigned char*>(value.data());
    expect(is_good_ &&
           X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate_.get()), nid, MBSTRING_UTF8, text,
                                      static_cast<int>(value.size()), -1, 0) == 1);
  }
  /// `end` (nullptr: none) is the authority's: a certificate that outlives it verifies nowhere.
  void valid_for(unsigned days, const ASN1_TIME* end) {
    const std::time_t now = std::time(nullptr);
    expect(is_good_ &&
           X509_time_adj_ex(X509_getm_notBefore(certificate_.get()), 0, -backdated_s, nullptr) != nullptr &&
           X509_time_adj_ex(X509_getm_notAfter(certificate_.get()), static_cast<int>(days), 0, nullptr) !=
               nullptr);
    if (end == nullptr || !is_good_) return;
    if (ASN1_TIME_compare(X509_get0_notAfter(certificate_.get()), end) > 0)
      expect(X509_set1_notAfter(certificate_.get(), end) == 1);
    if (ASN1_TIME_cmp_time_t(end, now) <= 0) is_authority_over_ = true;
  }
  /// `value` in OpenSSL's notation; the authority's own certificate is its issuer.
  void extend(int nid, const std::string& value, X509* issuer = nullptr) {
    if (!is_good_) return;
    X509V3_CTX context{};
    X509V3_set_ctx(&context, issuer == nullptr ? certificate_.get() : issuer, certificate_.get(), nullptr,
                   nullptr, 0);
    const std::unique_ptr<X509_EXTENSION, FreeParts> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
    expect(extension && X509_add_ext(certificate_.get(), extension.get(), -1) == 1);
  }
  /// Signs with the authority's key; `authority` nullptr: by itself.
  Result<std::string> sign(X509* authority, EVP_PKEY* key) {
    if (is_authority_over_)
      return unexpected(fail(ErrorKind::unsupported, "sign certificate")
                            .why("the authority has expired")
                            .remedy("renew it: diskferry pki renew --authority"));
    X509* const issuer = authority == nullptr ? certificate_.get() : authority;
    expect(is_good_ && X509_set_issuer_name(certificate_.get(), X509_get_subject_name(issuer)) == 1 &&
           X509_sign(certificate_.get(), key, EVP_sha256()) > 0);
    if (!is_good_) return unexpected(openssl_error("make certificate"));
    return to_pem(certificate_.get());
  }

 private:
  void expect(bool is_good) { is_good_ = is_good_ && is_good; }
  Certificate certificate_;
  bool is_good_ = true;
  bool is_authority_over_ = false;
};

std::string alternative_names(const std::vector<std::string>& addresses) {
  std::string text;
  for (const std::string& address : addresses)
    text += fmt::format("{}{}:{}", text.empty() ? "" : ",", is_ip_address(address) ? "IP" : "DNS", address);
  return text;
}

struct Authority {
  Certificate certificate;
  Key key;
};

Result<Authority> parse_authority(const KeyPair& pair) {
  DISKFERRY_TRY(Certificate certificate, parse_certificate(pair.certificate));
  DISKFERRY_TRY(Key key, parse_key(pair.key));
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return unexpected(openssl_error("use authority", ErrorKind::corrupt)
                          .why("the key is not that of the authority's certificate"));
  if (X509_check_ca(certificate.get()) != 1)
    return unexpected(
        fail(ErrorKind::corrupt, "use authority").why("the certificate is not that of an authority"));
  return Authority{std::move(certificate), std::move(key)};
}

Result<std::string> sign_authority(EVP_PKEY* key, const std::string& name, unsigned days) {
  Builder builder(key);
  builder.name_part(NID_commonName, name);
  builder.valid_for(days, nullptr);
  // Hosts only: it signs no further authorities.
  builder.extend(NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  builder.extend(NID_key_usage, "critical,keyCertSign,cRLSign");
  builder.extend(NID_subject_key_identifier, "hash");
  return builder.sign(nullptr, key);
}

struct HostCertificate {
  EVP_PKEY* key = nullptr;
  const std::string& name;
  const std::vector<std::string>& addresses;
  bool is_for_servers = false;
  unsigned days = 0;
};

Result<std::string> sign_host(const Authority& authority, const HostCertificate& wanted) {
  Builder builder(wanted.key);
  // virt-pki-validate wants the authority's name as the organization.
  const std::string organization = common_name_in(X509_get_subject_name(authority.certificate.get()));
  if (!organization.empty()) builder.name_part(NID_organizationName, organization);
  builder.name_part(NID_commonName, wanted.name);
  builder.valid_for(wanted.days, X509_get0_notAfter(authority.certificate.get()));
  builder.extend(NID_basic_constraints, "critical,CA:FALSE");
  // TLS 1.2 clients may send their secret encrypted to an RSA key, and GnuTLS asks whether they may.
  const bool is_rsa = EVP_PKEY_is_a(wanted.key, "RSA") == 1;
  builder.extend(NID_key_usage,
                 is_rsa ? "critical,digitalSignature,keyEncipherment" : "critical,digitalSignature");
  builder.extend(NID_ext_key_usage, wanted.is_for_servers ? "serverAuth" : "clientAuth");
  if (!wanted.addresses.empty()) builder.extend(NID_subject_alt_name, alternative_names(wanted.addresses));
  builder.extend(NID_subject_key_identifier, "hash");
  builder.extend(NID_authority_key_identifier, "keyid:always", authority.certificate.get());
  return builder.sign(authority.certificate.get(), authority.key.get());
}

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_';
}

}  // namespace

Result<void> check_host_name(const std::string& name) {
  const bool is_good = !name.empty() && name.size() <= common_name_max &&
                       std::ranges::all_of(name, is_name_character) && name.front() != '.' &&
                       name.front() != '-';
  if (is_good) return {};
  return unexpected(bad(printable(name),
                        "a host's name has 1 to 64 letters, digits, '.', '-' or '_', and begins with "
                        "a letter, a digit or '_'"));
}

Result<void> check_address(const std::string& address) {
  if (is_ip_address(address)) return {};
  const std::string name = address.starts_with("*.") ? address.substr(2) : address;
  const bool is_good = !name.empty() && name.size() <= dns_name_max &&
                       std::ranges::all_of(name, is_name_character) && name.front() != '.' &&
                       name.front() != '-';
  if (is_good) return {};
  return unexpected(bad(printable(address), "neither an IP address nor a DNS name"));
}

Result<KeyPair> make_authority(const std::string& name, unsigned days, KeyType key_type) {
  DISKFERRY_CHECK(check_days(days));
  if (name.empty() || name.size() > common_name_max || !is_utf8(name) || printable(name) != name)
    return unexpected(bad(printable(name), "an authority's name has 1 to 64 characters that can be printed"));
  DISKFERRY_TRY(const Key key, make_key(key_type));
  DISKFERRY_TRY(std::string certificate, sign_authority(key.get(), name, days));
  DISKFERRY_TRY(std::string key_text, to_pem(key.get()));
  return KeyPair{.certificate = std::move(certificate), .key = std::move(key_text)};
}

Result<std::string> renew_authority(const KeyPair& authority, unsigned days) {
  DISKFERRY_CHECK(check_days(days));
  DISKFERRY_TRY(const Authority old, parse_authority(authority));
  DISKFERRY_TRY(const CertificateFacts facts, describe(authority.certificate));
  return sign_authority(old.key.get(), facts.name, days);
}

Result<KeyPair> issue(const KeyPair& authority, const HostRequest& wanted) {
  DISKFERRY_CHECK(check_days(wanted.days));
  DISKFERRY_CHECK(check_host_name(wanted.name));
  for (const std::string& address : wanted.addresses) DISKFERRY_CHECK(check_address(address));
  DISKFERRY_TRY(const Authority signer, parse_authority(authority));
  DISKFERRY_TRY(const Key key, make_key(wanted.key_type));
  DISKFERRY_TRY(std::string certificate,
                sign_host(signer, {.key = key.get(),
                                   .name = wanted.name,
                                   .addresses = wanted.addresses,
                                   .is_for_servers = wanted.purpose == Purpose::server,
                                   .days = wanted.days}));
  DISKFERRY_TRY(std::string key_text, to_pem(key.get()));
  return KeyPair{.certificate = std::move(certificate), .key = std::move(key_text)};
}

Result<std::string> reissue(const KeyPair& authority, const std::string& certificate, unsigned days) {
  DISKFERRY_CHECK(check_days(days));
  DISKFERRY_TRY(const Authority signer, parse_authority(authority));
  DISKFERRY_TRY(const Certificate old, parse_certificate(certificate));
  DISKFERRY_TRY(const CertificateFacts facts, describe(certificate));
  DISKFERRY_TRY(const bool is_ours, is_signed_by(certificate, authority.certificate));
  if (!is_ours)
    return unexpected(fail(ErrorKind::unsupported, "renew certificate", printable(facts.name))
                          .why("another authority signed it"));
  DISKFERRY_CHECK(check_host_name(facts.name));
  for (const std::string& address : facts.addresses) DISKFERRY_CHECK(check_address(address));
  EVP_PKEY* const key = X509_get0_pubkey(old.get());
  return sign_host(signer, {.key = key,
                            .name = facts.name,
                            .addresses = facts.addresses,
                            .is_for_servers = facts.is_for_servers,
                            .days = days});
}

}  // namespace diskferry::pki
