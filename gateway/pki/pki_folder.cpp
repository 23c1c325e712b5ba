// See the header.
#include "gateway/pki/pki_folder.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/pki/pem_files.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

namespace diskferry::pki {
namespace {

constexpr const char* authority_certificate = "/ca-cert.pem";
constexpr const char* authority_key = "/ca-key.pem";
constexpr const char* server_certificate = "/server-cert.pem";
constexpr const char* client_certificate = "/client-cert.pem";
constexpr std::size_t hosts_max = 10'000;  // of one listing
constexpr std::int64_t day_s = 24 * 3600;

Result<KeyPair> read_authority(const std::string& folder) {
  auto certificate = read_file(folder + authority_certificate);
  if (!certificate && certificate.error().kind() == ErrorKind::not_found)
    return unexpected(std::move(certificate)
                          .error()
                          .remedy("make an authority first: diskferry pki init " + printable(folder)));
  DISKFERRY_CHECK(certificate);
  DISKFERRY_TRY(std::string key, read_file(folder + authority_key));
  return KeyPair{.certificate = *std::move(certificate), .key = std::move(key)};
}

/// The name first, whether it is an address too; none twice.
std::vector<std::string> with_name(const std::string& name, const std::vector<std::string>& addresses) {
  std::vector<std::string> all{name};
  for (const std::string& address : addresses) {
    if (std::ranges::find(all, address) == all.end()) all.push_back(address);
  }
  return all;
}

/// Facts of a certificate file, and what is wrong with it.
std::optional<CertificateFacts> look_at(const std::string& path, std::vector<std::string>& problems) {
  const auto text = read_file(path);
  if (!text) {
    problems.push_back(text.error().message());
    return std::nullopt;
  }
  auto facts = describe(*text);
  if (!facts) {
    problems.push_back(facts.error().with_step(printable(path)).message());
    return std::nullopt;
  }
  return *std::move(facts);
}

struct Today {
  std::int64_t now_s;
  unsigned soon_days;
};

void judge_time(const std::string& what, const CertificateFacts& facts, Today today,
                std::vector<std::string>& problems) {
  if (facts.not_after_s <= today.now_s) {
    problems.push_back(what + " has expired");
  } else if (facts.not_before_s > today.now_s) {
    problems.push_back(what + " is not valid yet");
  } else if (facts.not_after_s - today.now_s < std::int64_t{today.soon_days} * day_s) {
    problems.push_back(fmt::format("{} expires in {} days", what, (facts.not_after_s - today.now_s) / day_s));
  }
}

void judge_signature(const std::string& folder, const char* name, std::vector<std::string>& problems) {
  const auto certificate = read_file(folder + name);
  const auto authority = read_file(folder + authority_certificate);
  if (!certificate || !authority) return;  // told already
  const auto is_signed = is_signed_by(*certificate, *authority);
  if (is_signed && !*is_signed)
    problems.push_back(
        fmt::format("{} was not signed by the authority of the ca-cert.pem beside it", name + 1));
}

HostOverview look_at_host(const std::string& folder, const std::optional<CertificateFacts>& authority,
                          Today today) {
  HostOverview host{.folder = folder, .server = {}, .client = {}, .problems = {}};
  const auto own = look_at(folder + authority_certificate, host.problems);
  if (own && authority && own->sha256 != authority->sha256)
    host.problems.emplace_back("its ca-cert.pem is not the authority's of today");
  host.server = look_at(folder + server_certificate, host.problems);
  host.client = look_at(folder + client_certificate, host.problems);
  for (const char* name : {server_certificate, client_certificate}) {
    judge_signature(folder, name, host.problems);
    const auto& facts = name == server_certificate ? host.server : host.client;
    if (facts) judge_time(name + 1, *facts, today, host.problems);
  }
  return host;
}

bool is_host_folder(const std::string& folder) {
  return is_there(folder + server_certificate) || is_there(folder + client_certificate);
}

/// The folders below that are hosts', by name.
Result<std::vector<std::string>> host_folders(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code problem;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end;
       at.increment(problem)) {
    if (is_host_folder(at->path().string())) found.push_back(at->path().string());
    if (found.size() > hosts_max)
      return unexpected(fail(ErrorKind::too_large, "read folder", printable(folder))
                            .why(fmt::format("there are more than {} hosts", hosts_max)));
  }
  if (problem) return unexpected(errno_error(problem.value(), "read folder", printable(folder)));
  std::ranges::sort(found);
  return found;
}

}  // namespace

Result<CertificateFacts> make_authority_folder(const std::string& folder, const AuthorityOptions& options) {
  DISKFERRY_TRY(const KeyPair made, make_authority(options.name, options.days, options.key_type));
  DISKFERRY_CHECK(write_files(folder,
                              {{.name = "ca-key.pem", .text = made.key, .is_secret = true},
                               {.name = "ca-cert.pem", .text = made.certificate}},
                              options.replace));
  return describe(made.certificate);
}

Result<HostOverview> make_host_folder(const std::string& authority_folder, const HostOptions& options) {
  DISKFERRY_CHECK(check_host_name(options.name));
  DISKFERRY_TRY(const KeyPair authority, read_authority(authority_folder));
  HostRequest wanted{.name = options.name,
                     .addresses = with_name(options.name, options.addresses),
                     .purpose = Purpose::server,
                     .key_type = options.key_type,
                     .days = options.days};
  DISKFERRY_TRY(const KeyPair server, issue(authority, wanted));
  wanted.purpose = Purpose::client;
  wanted.addresses.clear();
  DISKFERRY_TRY(const KeyPair client, issue(authority, wanted));
  const std::string folder = options.folder.empty() ? authority_folder + "/" + options.name : options.folder;
  DISKFERRY_CHECK(write_files(folder,
                              {{.name = "ca-cert.pem", .text = authority.certificate},
                               {.name = "server-key.pem", .text = server.key, .is_secret = true},
                               {.name = "server-cert.pem", .text = server.certificate},
                               {.name = "client-key.pem", .text = client.key, .is_secret = true},
                               {.name = "client-cert.pem", .text = client.certificate}},
                              options.replace));
  DISKFERRY_TRY(CertificateFacts server_facts, describe(server.certificate));
  DISKFERRY_TRY(CertificateFacts client_facts, describe(client.certificate));
  return HostOverview{
      .folder = folder, .server = std::move(server_facts), .client = std::move(client_facts), .problems = {}};
}

Result<Overview> look(const std::string& folder, std::int64_t now_s, unsigned soon_days) {
  const Today today{.now_s = now_s, .soon_days = soon_days};
  Overview overview;
  overview.authority = look_at(folder + authority_certificate, overview.problems);
  overview.has_authority_key = is_there(folder + authority_key);
  if (overview.authority) judge_time("the authority", *overview.authority, today, overview.problems);
  DISKFERRY_TRY(auto folders, host_folders(folder));
  if (is_host_folder(folder)) folders.insert(folders.begin(), folder);
  if (!overview.authority && folders.empty())
    return unexpected(fail(ErrorKind::not_found, "look for certificates", printable(folder))
                          .why("no authority and no host is there")
                          .remedy("diskferry pki init makes an authority"));
  for (const std::string& one : folders)
    overview.hosts.push_back(look_at_host(one, overview.authority, today));
  return overview;
}

Result<HostOverview> renew_host_folder(const std::string& authority_folder, const std::string& host_folder,
                                       unsigned days) {
  DISKFERRY_TRY(const KeyPair authority, read_authority(authority_folder));
  std::vector<PemFile> files{{.name = "ca-cert.pem", .text = authority.certificate}};
  HostOverview host{.folder = host_folder, .server = {}, .client = {}, .problems = {}};
  for (const char* name : {server_certificate, client_certificate}) {
    const std::string path = host_folder + name;
    DISKFERRY_TRY(const std::string old, read_file(path));
    auto renewed = reissue(authority, old, days);
    if (!renewed) return unexpected(renewed.error().with_step(printable(path)));
    DISKFERRY_TRY(auto facts, describe(*renewed));
    (name == server_certificate ? host.server : host.client) = std::move(facts);
    files.push_back({.name = name + 1, .text = *std::move(renewed)});
  }
  // The keys stay, so that a server that starts between two of these writes finds a pair that fits.
  DISKFERRY_CHECK(write_files(host_folder, files, true));
  return host;
}

Result<CertificateFacts> renew_authority_folder(const std::string& folder, unsigned days) {
  DISKFERRY_TRY(const KeyPair authority, read_authority(folder));
  DISKFERRY_TRY(const std::string renewed, renew_authority(authority, days));
  DISKFERRY_CHECK(write_files(folder, {{.name = "ca-cert.pem", .text = renewed}}, true));
  return describe(renewed);
}

}  // namespace diskferry::pki
