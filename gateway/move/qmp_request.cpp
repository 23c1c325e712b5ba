// Names are taken apart by hand, as strictly as can be.
#include "gateway/move/qmp_request.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>

namespace diskferry {
namespace {

constexpr std::string_view scheme = "qmp:";
constexpr std::size_t socket_path_bytes_max = 107;
constexpr std::size_t host_bytes_max = 255;

Error wrong(std::string_view name, std::string why, std::string remedy) {
  return fail(ErrorKind::invalid_argument, "migrate", printable(std::string(name)))
      .why(std::move(why))
      .remedy(std::move(remedy));
}

bool is_word(char c) noexcept {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
}

/// "/run/qemu/vm-a.qmp": no part is hidden, "." or "..", and nothing in it means something to QEMU.
bool is_plain_path(std::string_view path) noexcept {
  if (path.size() > socket_path_bytes_max || !path.starts_with('/') || path.ends_with('/')) return false;
  char before = ' ';
  for (const char c : path) {
    const bool begins_part = before == '/';
    if (c == '/' ? begins_part : !is_word(c) && (c != '.' || begins_part)) return false;
    before = c;
  }
  return true;
}

bool is_plain_host(std::string_view host) noexcept {
  if (host.starts_with('[') && host.ends_with(']')) {
    const auto inside = host.substr(1, host.size() - 2);
    return !inside.empty() && std::ranges::all_of(inside, [](char c) {
      return std::isxdigit(static_cast<unsigned char>(c)) != 0 || c == ':' || c == '.';
    });
  }
  return !host.empty() && host.size() <= host_bytes_max && host.front() != '-' &&
         std::ranges::all_of(host, [](char c) { return is_word(c) || c == '.'; });
}

bool is_port(std::string_view text) noexcept {
  std::uint16_t port = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), port);
  return read.ec == std::errc() && read.ptr == text.data() + text.size() && port != 0;
}

}  // namespace

bool is_by_qmp(const MoveRequest& request) noexcept {
  return request.domain.starts_with(scheme) || request.destination.starts_with(scheme);
}

Result<std::string> monitor_path(std::string_view name) {
  std::string_view rest = name;
  if (rest.starts_with(scheme)) {
    rest.remove_prefix(scheme.size());
    if (rest.starts_with("//")) rest.remove_prefix(std::min(rest.size(), rest.find('/', 2)));
    if (is_plain_path(rest)) return std::string(rest);
  }
  return unexpected(wrong(name, "this names no monitor of a QEMU",
                          "say qmp:/run/qemu/vm.qmp, or qmp://HOST/run/qemu/vm.qmp for one on another host"));
}

Result<std::string> memory_address(std::string_view uri) {
  for (const std::string_view form : {"unix://", "unix:"}) {
    if (!uri.starts_with(form)) continue;
    if (const auto path = uri.substr(form.size()); is_plain_path(path)) return "unix:" + std::string(path);
    break;
  }
  for (const std::string_view form : {"tcp://", "tcp:"}) {
    if (!uri.starts_with(form)) continue;
    const auto address = uri.substr(form.size());
    const auto colon = address.rfind(':');
    if (colon != address.npos && is_plain_host(address.substr(0, colon)) &&
        is_port(address.substr(colon + 1)))
      return "tcp:" + std::string(address);
    break;
  }
  return unexpected(wrong(uri, "the memory cannot be sent there",
                          "say --memory-uri tcp://HOST:PORT, an address of the other host"));
}

Result<void> check_monitor_allowed(const std::string& folder, const std::string& path) {
  const auto refuse = [&](std::string why) {
    return unexpected(fail(ErrorKind::permission, "reach QEMU's monitor", printable(path))
                          .why(std::move(why))
                          .remedy("move.qmp-sockets in the gateway's configuration names the folder of the "
                                  "monitors that it may use"));
  };
  if (folder.empty()) return refuse("the gateway of that host uses no monitors");
  std::error_code failed;
  const auto allowed = std::filesystem::canonical(folder, failed);
  if (failed) return unexpected(errno_error(failed.value(), "look for the folder", printable(folder)));
  const auto is_in = [&allowed](const std::filesystem::path& place) {
    const auto [end, ignored] = std::ranges::mismatch(allowed, place);
    return end == allowed.end() && place != allowed;
  };
  const auto real = std::filesystem::canonical(path, failed);
  if (!failed) return is_in(real) ? Result<void>{} : refuse("it is not in " + folder);
  // Nothing is there. What once was, and where, its name tells.
  const auto parent = std::filesystem::canonical(std::filesystem::path(path).parent_path(), failed);
  if (failed || !is_in(parent / "monitor")) return refuse("it is not in " + folder);
  return unexpected(
      fail(ErrorKind::not_found, "reach QEMU's monitor", printable(path)).why("there is no such socket"));
}

bool is_nobody_there(const Error& error) noexcept {
  return error.kind() == ErrorKind::not_found || error.kind() == ErrorKind::gone;
}

Result<void> check_by_qmp(const MoveRequest& request) {
  DISKFERRY_CHECK(monitor_path(request.domain));
  DISKFERRY_CHECK(monitor_path(request.destination));
  if (request.memory_uri.empty())
    return unexpected(wrong(request.domain, "it is not said where the memory goes",
                            "say --memory-uri tcp://HOST:PORT, an address of the other host"));
  DISKFERRY_CHECK(memory_address(request.memory_uri));
  const std::array<std::pair<bool, std::string_view>, 8> options{
      {{request.cold, "--cold"},
       {!request.source.empty(), "--from"},
       {!request.networks.empty(), "--network"},
       {!request.new_name.empty(), "a new name"},
       {request.post_copy, "--post-copy"},
       {request.auto_converge, "--auto-converge"},
       {!request.compression.empty(), "--compression"},
       {request.timeout_action != TimeoutAction::abort, "--timeout-action"}}};
  for (const auto& [is_set, name] : options)
    if (is_set)
      return unexpected(fail(ErrorKind::unsupported, "migrate", printable(request.domain))
                            .why(fmt::format("{} means nothing for a machine without libvirt", name))
                            .remedy("leave it out"));
  return {};
}

}  // namespace diskferry
