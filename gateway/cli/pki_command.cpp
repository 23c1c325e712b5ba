// `diskferry pki`: a private authority, keys and certificates for hosts, and their renewal.
#include "diskferry/image_uri.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/pki/pki_folder.hpp"

#include <chrono>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <memory>
#include <ostream>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace diskferry::cli {
namespace {
namespace json = boost::json;

const std::map<std::string, pki::KeyType> key_types{{"rsa", pki::KeyType::rsa}, {"ec", pki::KeyType::ec}};

struct PkiOptions {
  CLI::App* init = nullptr;
  CLI::App* host = nullptr;
  CLI::App* show = nullptr;
  CLI::App* renew = nullptr;
  std::string folder;
  pki::AuthorityOptions authority;
  pki::HostOptions host_options;
  std::vector<std::string> hosts;  // of renew
  unsigned renew_days = 0;         // 0: as when it is made
  bool renew_authority = false;
  unsigned within_days = 30;
  bool as_json = false;
};

std::int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string day_of(std::int64_t time_s) {
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(static_cast<std::time_t>(time_s)));
}

std::string joined(const std::vector<std::string>& words) {
  return printable(fmt::format("{}", fmt::join(words, ", ")));
}

// Text ----------------------------------------------------------------------------------------------------

std::string validity(const pki::CertificateFacts& facts) {
  const std::int64_t left_days = (facts.not_after_s - now_s() + 12 * 3600) / (24 * 3600);
  return fmt::format("{} ({} days)", day_of(facts.not_after_s), left_days);
}

void print_authority(std::ostream& out, const pki::CertificateFacts& facts) {
  FieldList fields;
  fields.add("authority", printable(facts.name));
  fields.add("key", facts.key);
  fields.add("valid until", validity(facts));
  fields.add("sha256", facts.sha256);
  fields.print(out);
}

void print_host(std::ostream& out, const pki::HostOverview& host) {
  FieldList fields;
  fields.add("host", host.server ? printable(host.server->name) : std::string("unknown"));
  fields.add("folder", printable(host.folder));
  if (host.server) {
    fields.add("addresses", joined(host.server->addresses));
    fields.add("key", host.server->key);
    fields.add("server until", validity(*host.server));
  }
  if (host.client) fields.add("client until", validity(*host.client));
  for (const std::string& problem : host.problems) fields.add("problem", printable(problem));
  fields.print(out);
}

void print_overview(std::ostream& out, const pki::Overview& overview) {
  if (overview.authority) print_authority(out, *overview.authority);
  FieldList problems;
  for (const std::string& problem : overview.problems) problems.add("problem", printable(problem));
  problems.print(out);
  for (const auto& host : overview.hosts) {
    out << "\n";
    print_host(out, host);
  }
}

/// What to do with the files, for who does this once a year.
void print_next_steps(std::ostream& out, const std::string& folder) {
  const std::string shown = printable(folder);
  out << "\n"
      << "Copy " << shown << " to the host, and nothing else: ca-key.pem stays where it is.\n"
      << "  our server and clients     diskferry export --tls require --tls-certificates DIR "
         "--tls-verify-peer ...\n"
      << "                             nbds://HOST/NAME?tls-certificates=DIR\n"
      << "  QEMU under libvirt         the five files to /etc/pki/qemu, readable for the group of QEMU\n"
      << "  libvirt itself             ca-cert.pem     to /etc/pki/CA/cacert.pem\n"
      << "                             server-cert.pem to /etc/pki/libvirt/servercert.pem\n"
      << "                             server-key.pem  to /etc/pki/libvirt/private/serverkey.pem\n"
      << "                             client-cert.pem to /etc/pki/libvirt/clientcert.pem\n"
      << "                             client-key.pem  to /etc/pki/libvirt/private/clientkey.pem\n";
}

// JSON ----------------------------------------------------------------------------------------------------

json::value to_json(const std::vector<std::string>& texts) {
  json::array all;
  for (const std::string& text : texts) all.emplace_back(is_utf8(text) ? text : printable(text));
  return all;
}

json::value to_json(const std::optional<pki::CertificateFacts>& facts) {
  if (!facts) return nullptr;
  return json::object{{"name", printable(facts->name)},         {"issuer", printable(facts->issuer)},
                      {"addresses", to_json(facts->addresses)}, {"not-before", facts->not_before_s},
                      {"not-after", facts->not_after_s},        {"key", facts->key},
                      {"authority", facts->is_authority},       {"server", facts->is_for_servers},
                      {"client", facts->is_for_clients},        {"sha256", facts->sha256}};
}

json::value to_json(const pki::Overview& overview) {
  json::array hosts;
  for (const auto& host : overview.hosts)
    hosts.push_back(json::object{{"folder", printable(host.folder)},
                                 {"server", to_json(host.server)},
                                 {"client", to_json(host.client)},
                                 {"problems", to_json(host.problems)}});
  return json::object{{"authority", to_json(overview.authority)},
                      {"authority-key", overview.has_authority_key},
                      {"problems", to_json(overview.problems)},
                      {"hosts", std::move(hosts)}};
}

// What they do --------------------------------------------------------------------------------------------

Result<ExitCode> run_init(Invocation& invocation, const PkiOptions& options) {
  DISKFERRY_TRY(const auto facts, pki::make_authority_folder(options.folder, options.authority));
  print_authority(invocation.out, facts);
  invocation.out << "\nKeep " << printable(options.folder)
                 << "/ca-key.pem on this machine: whoever has it can be any host.\n"
                 << "Next, for each host: diskferry pki host " << printable(options.folder)
                 << " NAME --address ADDRESS\n";
  return ExitCode::done;
}

Result<ExitCode> run_host(Invocation& invocation, const PkiOptions& options) {
  DISKFERRY_TRY(const auto host, pki::make_host_folder(options.folder, options.host_options));
  print_host(invocation.out, host);
  print_next_steps(invocation.out, host.folder);
  return ExitCode::done;
}

Result<ExitCode> run_show(Invocation& invocation, const PkiOptions& options) {
  DISKFERRY_TRY(const auto overview, pki::look(options.folder, now_s(), options.within_days));
  if (options.as_json) {
    print_json(invocation.out, to_json(overview));
  } else {
    print_overview(invocation.out, overview);
  }
  return ExitCode::done;
}

/// The folders to renew: those named, else those with something wrong now or soon.
Result<std::vector<std::string>> due_folders(const PkiOptions& options) {
  std::vector<std::string> folders;
  for (const std::string& host : options.hosts)
    folders.push_back(host.find('/') == std::string::npos ? options.folder + "/" + host : host);
  if (!folders.empty()) return folders;
  DISKFERRY_TRY(const auto overview, pki::look(options.folder, now_s(), options.within_days));
  for (const auto& host : overview.hosts) {
    if (!host.problems.empty()) folders.push_back(host.folder);
  }
  return folders;
}

Result<ExitCode> run_renew(Invocation& invocation, const PkiOptions& options) {
  if (options.renew_authority) {
    const unsigned days = options.renew_days == 0 ? pki::authority_days : options.renew_days;
    DISKFERRY_TRY(const auto facts, pki::renew_authority_folder(options.folder, days));
    print_authority(invocation.out, facts);
    invocation.out
        << "\nHosts go on with the ca-cert.pem they have until it ends; renew them to give them this one.\n";
    return ExitCode::done;
  }
  const unsigned days = options.renew_days == 0 ? pki::host_days : options.renew_days;
  DISKFERRY_TRY(const auto folders, due_folders(options));
  if (folders.empty())
    invocation.out << "nothing ends within " << options.within_days
                   << " days; name a host to renew it all the same\n";
  std::optional<Error> first;
  for (const std::string& folder : folders) {
    const auto host = pki::renew_host_folder(options.folder, folder, days);
    if (host) {
      print_host(invocation.out, *host);
    } else if (!first) {
      first = host.error();  // the others are renewed all the same
    }
  }
  if (first) return unexpected(*std::move(first));
  return ExitCode::done;
}

// Options -------------------------------------------------------------------------------------------------

CLI::App* add_verb(CLI::App& app, PkiOptions& options, const std::string& name, const std::string& summary) {
  CLI::App* verb = app.add_subcommand(name, summary);
  verb->set_help_flag("-h,--help", "print this help");
  verb->add_option("DIR", options.folder, "folder of the authority")->required();
  return verb;
}

void add_init(CLI::App& app, PkiOptions& options) {
  options.init = add_verb(app, options, "init", "make an authority");
  options.init->add_option("--name", options.authority.name, "its name (default: diskferry authority)")
      ->type_name("NAME");
  options.init->add_option("--days", options.authority.days, "how long it is valid (default: 3650)")
      ->type_name("N");
  add_choice(*options.init, "--key-type", options.authority.key_type, key_types, "TYPE",
             "rsa (default) or ec");
  options.init->add_flag("--force", options.authority.replace,
                         "replace the one that is there; what it signed is then worth nothing");
}

void add_host(CLI::App& app, PkiOptions& options) {
  options.host = add_verb(app, options, "host", "make keys and certificates for a host");
  auto& host = options.host_options;
  options.host->add_option("NAME", host.name, "the host's name, as others connect to it")->required();
  options.host->add_option("--address", host.addresses, "a further DNS name or IP address of it (repeatable)")
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  options.host->add_option("--out", host.folder, "folder for the files (default: DIR/NAME)")
      ->type_name("FOLDER");
  options.host->add_option("--days", host.days, "how long they are valid (default: 730)")->type_name("N");
  add_choice(*options.host, "--key-type", host.key_type, key_types, "TYPE",
             "rsa (default) or ec; libvirt 9.0 refuses ec");
  options.host->add_flag("--force", host.replace, "replace files that are there");
}

void add_show(CLI::App& app, PkiOptions& options) {
  options.show =
      add_verb(app, options, "show", "show the authority, its hosts, and what is wrong or ends soon");
  options.show
      ->add_option("--within", options.within_days,
                   "what ends within so many days is a problem (default: 30)")
      ->type_name("DAYS");
  add_json_flag(*options.show, options.as_json);
}

void add_renew(CLI::App& app, PkiOptions& options) {
  options.renew = add_verb(app, options, "renew", "renew certificates; keys stay as they are");
  options.renew->add_option("HOST", options.hosts, "hosts of DIR, or folders (default: those that end soon)");
  options.renew->add_option("--within", options.within_days, "soon is within so many days (default: 30)")
      ->type_name("DAYS");
  options.renew
      ->add_option("--days", options.renew_days, "how long they are valid (default: 730, the authority 3650)")
      ->type_name("N");
  options.renew->add_flag("--authority", options.renew_authority, "renew the authority itself and no host");
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<PkiOptions>();
  app.require_subcommand(1);
  add_init(app, *options);
  add_host(app, *options);
  add_show(app, *options);
  add_renew(app, *options);
  return [options](Invocation& invocation) {
    if (options->init->parsed()) return run_init(invocation, *options);
    if (options->host->parsed()) return run_host(invocation, *options);
    if (options->show->parsed()) return run_show(invocation, *options);
    return run_renew(invocation, *options);
  };
}

}  // namespace

extern const Command pki_command;
const Command pki_command{
    .name = "pki",
    .summary = "make and renew keys and certificates for TLS between hosts",
    .examples =
        "  diskferry pki init /root/pki\n"
        "  diskferry pki host /root/pki host-a --address 10.0.0.1 --address host-a.example\n"
        "  diskferry pki show /root/pki\n"
        "  diskferry pki renew /root/pki",
    .declare = &declare};

}  // namespace diskferry::cli
