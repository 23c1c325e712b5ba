// `diskferry export`: serves images over NBD in the foreground, until a signal or the last client ends it.
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/filters/rate.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/export_access.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/nbd/server.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry::cli {
namespace {
namespace nbd = nbd_server;

struct ExportCommandOptions {
  std::vector<std::string> images;
  SourceImageOptions image;
  std::vector<std::string> names;
  std::string description;
  std::vector<std::string> listen;
  bool writable = false;
  bool read_only = false;
  bool stdio = false;
  std::size_t shared = 0;
  std::size_t connections_max = nbd::Limits{}.connections_max;
  nbd::TlsOptions tls;
  AccessOptions access;
  std::uint64_t bytes_per_s = 0;
  std::string faults;
  std::vector<std::string> bitmaps;
  int ready_fd = -1;
  bool exit_with_last_client = false;
  bool verbose = false;
};

Error usage(std::string why, std::string remedy) {
  return fail(ErrorKind::invalid_argument, "export").why(std::move(why)).remedy(std::move(remedy));
}

std::string default_name(const ImageUri& uri) {
  const std::string name = std::filesystem::path(uri.path()).filename().string();
  return name.empty() ? uri.scheme() : name;
}

/// In the order of the images. Errors: invalid_argument.
Result<std::vector<std::string>> export_names(const ExportCommandOptions& options) {
  std::vector<std::string> names = options.names;
  for (std::size_t i = names.size(); i < options.images.size(); ++i) {
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(options.images[i]));
    names.push_back(default_name(uri));
  }
  return names;
}

/// What was meant to be protected is not served in the clear, nor to anybody who leaves TLS out.
Result<void> check_protection(const ExportCommandOptions& options) {
  const auto needs_tls = [](const std::string& address) {
    return address.starts_with("nbds:") || address.starts_with("tls:");
  };
  const bool any_tls =
      options.tls.mode != nbd::TlsMode::off || std::ranges::any_of(options.listen, needs_tls);
  const bool only_tls =
      options.tls.mode == nbd::TlsMode::require ||
      (!options.stdio && !options.listen.empty() && std::ranges::all_of(options.listen, needs_tls));
  // Where single exports are protected, the others are meant to be open.
  const bool names_clients =
      (options.tls.verify_peer && options.access.is_empty()) || !options.tls.allow.empty();
  if (!options.access.is_empty() && !any_tls)
    return unexpected(usage("exports are to be protected, but TLS is off",
                            "say --tls on (or require), or listen on nbds://"));
  if (!options.access.allow_for.empty() && !options.tls.verify_peer && options.tls.psk_file.empty())
    return unexpected(usage("--allow-for needs clients that prove their name",
                            "say --tls-verify-peer, or give keys with --tls-psk"));
  const bool has_keys = !options.tls.certificates.empty() || !options.tls.psk_file.empty();
  if ((names_clients || has_keys) && !any_tls)
    return unexpected(usage("certificates, keys or allowed names are given, but TLS is off",
                            "say --tls require (or --tls on), or listen on nbds://"));
  if (names_clients && !only_tls)
    return unexpected(usage("clients without TLS would get in whatever their name is",
                            "say --tls require, or listen on nbds:// or tls:// only"));
  return {};
}

Result<void> check(const ExportCommandOptions& options) {
  if (options.names.size() > options.images.size())
    return unexpected(usage("there are more names than images", "give at most one --name for each image"));
  if (options.writable && options.read_only)
    return unexpected(usage("--writable and --read-only exclude each other", "say one of them"));
  if (options.writable && !options.image.snapshot.empty())
    return unexpected(usage("a snapshot cannot be written to", "leave out --writable"));
  if (options.stdio && !options.listen.empty())
    return unexpected(usage("--stdio serves one connection and listens nowhere", "leave out --listen"));
  DISKFERRY_TRY(const auto names, export_names(options));
  DISKFERRY_CHECK(access_rules(options.access, names));
  return check_protection(options);
}

/// Descriptors 0 and 1 as a connection of its own; one descriptor when both are the same socket.
Result<void> take_stdio(nbd::ServerOptions& server) {
  struct stat in{};
  struct stat out{};
  if (fstat(STDIN_FILENO, &in) != 0 || fstat(STDOUT_FILENO, &out) != 0)
    return unexpected(errno_error(errno, "use stdin and stdout"));
  const bool is_one_socket = S_ISSOCK(in.st_mode) && in.st_dev == out.st_dev && in.st_ino == out.st_ino;
  server.connected_in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  server.connected_out = is_one_socket ? server.connected_in : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  if (server.connected_in < 0 || server.connected_out < 0)
    return unexpected(errno_error(errno, "use stdin and stdout"));
  return {};
}

Result<nbd::ServerOptions> server_options(const ExportCommandOptions& options, std::ostream& err) {
  nbd::ServerOptions server;
  server.tls = options.tls;
  server.limits.connections_max = options.connections_max;
  server.ends_with_last_client = options.exit_with_last_client;
  server.log = [&err, guard = std::make_shared<std::mutex>(), verbose = options.verbose](
                   nbd::ServerOptions::Severity severity, const std::string& text) {
    if (severity < nbd::ServerOptions::Severity::warn && !verbose) return;
    std::lock_guard lock(*guard);
    err << "diskferry: export: " << text << std::endl;
  };
  if (options.stdio) {
    DISKFERRY_CHECK(take_stdio(server));
    return server;
  }
  DISKFERRY_TRY(server.listening_sockets, nbd::activated_sockets());
  for (const std::string& text : options.listen) {
    DISKFERRY_TRY(auto address, nbd::ListenAddress::parse(text));
    server.listen.push_back(std::move(address));
  }
  if (server.listen.empty() && server.listening_sockets.empty())
    server.listen.push_back({.kind = nbd::ListenAddress::Kind::tcp, .host = "127.0.0.1", .path = {}});
  return server;
}

Error no_bitmap(const LayerDescription& top, const std::string& name) {
  const auto listed = std::ranges::find(top.bitmaps, name, &BitmapDescription::name);
  if (listed == top.bitmaps.end() || listed->problem.empty())
    return fail(ErrorKind::not_found, "export bitmap", printable(name))
        .why("the image has no such bitmap")
        .remedy("diskferry inspect lists them");
  return fail(ErrorKind::corrupt, "export bitmap", printable(name))
      .why(listed->problem)
      .remedy("what it should say is not known: copy the whole disk, and add a new bitmap for the next time");
}

Result<std::vector<std::shared_ptr<BitmapView>>> pick_bitmaps(const Image& image,
                                                              const std::vector<std::string>& wanted) {
  std::vector<std::shared_ptr<BitmapView>> picked;
  for (const std::string& name : wanted) {
    const auto found = std::ranges::find_if(
        image.bitmaps(), [&](const auto& bitmap) { return bitmap->description().name == name; });
    if (found == image.bitmaps().end()) return unexpected(no_bitmap(image.layers().front(), name));
    picked.push_back(*found);
  }
  return picked;
}

Result<void> announce(Invocation& invocation, const ExportCommandOptions& options,
                      const std::vector<std::string>& addresses, bool activated) {
  // Who hands over a connection or a socket waits for no line, and stdout may be the client's.
  if (options.stdio || activated) return {};
  std::string line = "READY";
  for (const std::string& address : addresses) line += " " + address;
  line += "\n";
  invocation.out << line << std::flush;
  if (options.ready_fd < 0) return {};
  const bool written = write(options.ready_fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const int failed = errno;
  close(options.ready_fd);
  if (!written) return unexpected(errno_error(failed, "write to --ready-fd"));
  return {};
}

/// Everything that is open while the command runs.
struct Serving {
  explicit Serving(Invocation& invocation_) : invocation(invocation_) {}
  Invocation& invocation;
  bool is_activated = false;  // by systemd, or something that does as it does
  std::vector<Image> images;
  std::optional<nbd::Server> server;
};

/// Limits and rehearsed faults, in front of the disk.
Result<void> add_filters(Image& image, const ExportCommandOptions& options, Clock& clock) {
  if (!options.faults.empty()) {
    DISKFERRY_TRY(FaultPlan plan, parse_fault_plan(options.faults));
    image.put_in_front(checked(
        make_fault_device(image.shared_device(), std::make_shared<FaultControl>(std::move(plan)), clock)));
  }
  if (options.bytes_per_s != 0)
    image.put_in_front(checked(
        make_rate_device(image.shared_device(), std::make_shared<RateLimit>(clock, options.bytes_per_s))));
  return {};
}

Task<Result<void>> add_images(Serving& serving, const ExportCommandOptions& options) {
  DISKFERRY_CO_TRY(const auto names, export_names(options));
  DISKFERRY_CO_TRY(const auto rules, access_rules(options.access, names));
  for (std::size_t i = 0; i < options.images.size(); ++i) {
    DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(options.images[i]));
    ImageOpenOptions open = options.image.open_options();
    open.writable = options.writable;
    open.keep = KeepOptions{};
    // What a guest may write to is never probed: it could make its raw disk look like something else.
    if (options.writable && open.format.empty()) open.format = format_for_target(uri);
    DISKFERRY_CO_TRY(auto image, co_await open_image(serving.invocation.runtime.context(), uri, open));
    serving.images.push_back(std::move(image));
    Image& opened = serving.images.back();
    if (options.writable && opened.layers().front().is_dirty)
      serving.invocation.err << "diskferry: export: " << uri.to_string()
                             << ": its last writer did not close it; its reference counts were counted anew"
                             << std::endl;
    DISKFERRY_CO_CHECK(add_filters(opened, options, serving.invocation.runtime.context().clock));
    nbd::ExportOptions made{.name = names[i],
                            .description = options.description,
                            .writable = options.writable,
                            .clients_max = options.shared,
                            .requires_tls = rules[i].requires_tls,
                            .allow = rules[i].allow,
                            .bitmaps = {}};
    DISKFERRY_CO_TRY(made.bitmaps, pick_bitmaps(opened, options.bitmaps));
    // Clients may read and write any byte, whatever the storage's blocks are.
    auto device = with_byte_granularity(opened.shared_device());
    DISKFERRY_CO_TRY(auto added, nbd::Export::make(std::move(made), std::move(device)));
    DISKFERRY_CO_CHECK(serving.server->exports().add(std::move(added)));
  }
  co_return Result<void>{};
}

Task<Result<void>> serve_opened(Serving& serving, const ExportCommandOptions& options) {
  DISKFERRY_CO_CHECK(co_await add_images(serving, options));
  DISKFERRY_CO_CHECK(co_await serving.server->start());
  auto result = announce(serving.invocation, options,
                         serving.server->addresses(serving.server->exports().all().front()->name()),
                         serving.is_activated);
  if (result) result = co_await serving.server->wait();
  // Requests in flight are finished, but not waited for where the storage is away.
  for (Image& image : serving.images) image.device().stop_waiting();
  auto stopped = co_await serving.server->stop();
  if (!result) co_return result;
  co_return stopped;
}

Task<Result<void>> serve(Invocation& invocation, const ExportCommandOptions& options) {
  Serving serving(invocation);
  DISKFERRY_CO_TRY(auto server, server_options(options, invocation.err));
  serving.is_activated = !server.listening_sockets.empty();
  serving.server.emplace(invocation.runtime.context(), std::move(server));
  auto result = co_await serve_opened(serving, options);
  // Images are closed whatever happened, also when a signal cancelled us.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  serving.server.reset();
  for (Image& image : serving.images) {
    auto closed = co_await image.close();
    if (!closed && result) result = std::move(closed);
  }
  co_return result;
}

void declare_network(CLI::App& app, ExportCommandOptions& options) {
  app.add_option("-l,--listen", options.listen,
                 "nbd://HOST:PORT, nbds://HOST:PORT (clients must use TLS), tls://HOST:PORT (TLS from the "
                 "first byte) or unix:PATH; may be repeated "
                 "(default: nbd://127.0.0.1:10809)")
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  app.add_flag("--stdio", options.stdio, "serve the one client that stdin and stdout are connected to");
  app.add_option("--shared", options.shared, "at most N clients at once for each image (default: no bound)")
      ->type_name("N");
  app.add_option("--max-connections", options.connections_max, "at most N connections in all (default: 100)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  add_choice(app, "--tls", options.tls.mode,
             {{"off", nbd::TlsMode::off}, {"on", nbd::TlsMode::on}, {"require", nbd::TlsMode::require}},
             "MODE", "off, on (clients may use it) or require (default: off)");
  app.add_option("--tls-certificates", options.tls.certificates,
                 "folder with ca-cert.pem, server-cert.pem and server-key.pem")
      ->type_name("DIR");
  app.add_option("--tls-psk", options.tls.psk_file,
                 "file of pre-shared keys, user:hexkey, as psktool makes it")
      ->type_name("FILE");
  app.add_flag("--tls-verify-peer", options.tls.verify_peer,
               "clients must show a certificate that ca-cert.pem signed");
  app.add_option(
         "--allow", options.tls.allow,
         "let in only clients of this name: CN or DN of the certificate, or PSK user; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--require-tls", options.access.require_tls,
                 "the export of this name is only for clients that use TLS, others do not see it; may be "
                 "repeated")
      ->type_name("EXPORT")
      ->allow_extra_args(false);
  app.add_option("--allow-for", options.access.allow_for,
                 "let only this client use this export, over TLS; may be repeated, for further clients too")
      ->type_name("EXPORT=NAME")
      ->allow_extra_args(false);
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<ExportCommandOptions>();
  app.add_option("IMAGE", options->images, "the images to export")->required()->type_name("");
  add_source_options(app, options->image);
  app.add_option("--name", options->names,
                 "export name of the image in the same place (default: its file name); the first image is "
                 "also what clients get that name none")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--description", options->description, "a text for clients that list exports")
      ->type_name("TEXT");
  app.add_flag("-w,--writable", options->writable, "let clients write; the format is never probed then");
  app.add_flag("-r,--read-only", options->read_only, "refuse writes (the default)");
  app.add_option("--bitmap", options->bitmaps, "offer this dirty bitmap; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  add_bytes(app, "--rate", options->bytes_per_s,
            "bytes a second at most for each image, all clients together (default: no limit)");
  app.add_option("--fault", options->faults,
                 "rehearse: the storage goes wrong by these rules (see the manual)")
      ->type_name("RULES");
  declare_network(app, *options);
  app.add_option("--ready-fd", options->ready_fd, "also write the READY line to this descriptor")
      ->type_name("FD");
  app.add_flag("--exit-with-last-client", options->exit_with_last_client, "end when the last client leaves");
  app.add_flag("-v,--verbose", options->verbose, "say on stderr how each client left");
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_CHECK(check(*options));
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(serve(invocation, *options)));
    return ExitCode::done;
  };
}

}  // namespace

extern const Command export_command;
const Command export_command{
    .name = "export",
    .summary = "serve images over NBD",
    .examples =
        "  diskferry export disk.qcow2\n"
        "  diskferry export --writable --listen unix:/run/disk.sock -f qcow2 disk.qcow2\n"
        "  diskferry export --tls require --tls-certificates /etc/pki/qemu --tls-verify-peer \\\n"
        "                   --listen nbd://[::]:10809 a.qcow2 b.raw",
    .declare = &declare};

}  // namespace diskferry::cli
