#include "gateway/daemon/disk_server.hpp"

#include "drivers/support/blocking_pool.hpp"

#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

namespace diskferry::daemon {
namespace {

nbd_server::ServerOptions options_of(const std::string& socket) {
  nbd_server::ServerOptions options;
  options.listen.push_back({.kind = nbd_server::ListenAddress::Kind::unix_socket, .path = socket});
  options.log = [](nbd_server::ServerOptions::Severity severity, const std::string& text) {
    const bool is_bad = severity == nbd_server::ServerOptions::Severity::error ||
                        severity == nbd_server::ServerOptions::Severity::warn;
    spdlog::log(is_bad ? spdlog::level::warn : spdlog::level::debug, "disks: {}", text);
  };
  return options;
}

/// Whoever gets in here has a guest's disk.
Result<void> give_away(const std::string& path, const DiskServerOptions& options, mode_t mode) {
  if (::chmod(path.c_str(), mode) != 0) return unexpected(errno_error(errno, "protect", path));
  if (options.hypervisor_uid < 0 || ::geteuid() != 0) return {};
  if (::lchown(path.c_str(), static_cast<uid_t>(options.hypervisor_uid),
               static_cast<gid_t>(options.hypervisor_gid)) != 0)
    return unexpected(errno_error(errno, "give to the hypervisor's user", path));
  return {};
}

Result<void> make_folder(const DiskServerOptions& options) {
  const std::string folder = std::filesystem::path(options.socket).parent_path().string();
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return unexpected(errno_error(failed.value(), "make the folder", folder));
  return give_away(folder, options, 0700);
}

}  // namespace

DiskServer::DiskServer(DriverContext& context, DiskServerOptions options)
    : context_(context), options_(std::move(options)), server_(context, options_of(options_.socket)) {}

Task<Result<void>> DiskServer::have_listening() {
  DISKFERRY_CO_TRY(const auto lock, co_await guard_.lock());
  if (is_listening_) co_return Result<void>{};
  auto listening = co_await listen();
  if (!listening) co_return unexpected(std::move(listening).error().in("let the hypervisor in"));
  co_return listening;
}

Task<Result<void>> DiskServer::listen() {
  DISKFERRY_CO_CHECK(co_await context_.blocking_pool.run([this] { return make_folder(options_); }));
  DISKFERRY_CO_CHECK(co_await server_.start());
  is_listening_ = true;
  co_return give_away(options_.socket, options_, 0600);
}

Task<Result<void>> DiskServer::stop() {
  DISKFERRY_CO_TRY(const auto lock, co_await guard_.lock());
  if (!is_listening_) co_return Result<void>{};
  is_listening_ = false;
  co_return co_await server_.stop();
}

}  // namespace diskferry::daemon
