// The table of libvirt's error codes.
#include "gateway/hypervisor/libvirt_error.hpp"

#include <algorithm>
#include <array>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

namespace diskferry {
namespace {
struct Row {
  int code;
  ErrorKind kind;
};
// Codes that are not here are failures of the hypervisor in something it could have done: io.
constexpr std::array rows{
    Row{VIR_ERR_NO_MEMORY, ErrorKind::too_large},
    Row{VIR_ERR_NO_SUPPORT, ErrorKind::unsupported},
    Row{VIR_ERR_UNKNOWN_HOST, ErrorKind::gone},
    Row{VIR_ERR_NO_CONNECT, ErrorKind::gone},
    Row{VIR_ERR_INVALID_CONN, ErrorKind::gone},
    Row{VIR_ERR_INVALID_DOMAIN, ErrorKind::invalid_argument},
    Row{VIR_ERR_INVALID_ARG, ErrorKind::invalid_argument},
    Row{VIR_ERR_OS_TYPE, ErrorKind::unsupported},
    Row{VIR_ERR_NO_SOURCE, ErrorKind::invalid_argument},
    Row{VIR_ERR_NO_TARGET, ErrorKind::invalid_argument},
    Row{VIR_ERR_NO_NAME, ErrorKind::invalid_argument},
    Row{VIR_ERR_NO_OS, ErrorKind::invalid_argument},
    Row{VIR_ERR_NO_DEVICE, ErrorKind::invalid_argument},
    Row{VIR_ERR_XML_ERROR, ErrorKind::invalid_argument},
    Row{VIR_ERR_DOM_EXIST, ErrorKind::already_exists},
    Row{VIR_ERR_OPERATION_DENIED, ErrorKind::permission},
    Row{VIR_ERR_PARSE_FAILED, ErrorKind::invalid_argument},
    Row{VIR_ERR_CONF_SYNTAX, ErrorKind::invalid_argument},
    Row{VIR_ERR_XML_DETAIL, ErrorKind::invalid_argument},
    Row{VIR_ERR_INVALID_NETWORK, ErrorKind::invalid_argument},
    Row{VIR_ERR_RPC, ErrorKind::gone},
    Row{VIR_ERR_GNUTLS_ERROR, ErrorKind::gone},
    Row{VIR_ERR_NO_DOMAIN, ErrorKind::not_found},
    Row{VIR_ERR_NO_NETWORK, ErrorKind::not_found},
    Row{VIR_ERR_INVALID_MAC, ErrorKind::invalid_argument},
    Row{VIR_ERR_AUTH_FAILED, ErrorKind::permission},
    Row{VIR_ERR_NO_STORAGE_POOL, ErrorKind::not_found},
    Row{VIR_ERR_NO_STORAGE_VOL, ErrorKind::not_found},
    Row{VIR_ERR_NO_NODE_DEVICE, ErrorKind::not_found},
    Row{VIR_ERR_OPERATION_INVALID, ErrorKind::invalid_argument},
    Row{VIR_ERR_NO_INTERFACE, ErrorKind::not_found},
    Row{VIR_ERR_NO_SECRET, ErrorKind::not_found},
    Row{VIR_ERR_CONFIG_UNSUPPORTED, ErrorKind::unsupported},
    Row{VIR_ERR_OPERATION_TIMEOUT, ErrorKind::timed_out},
    Row{VIR_ERR_ARGUMENT_UNSUPPORTED, ErrorKind::unsupported},
    Row{VIR_ERR_OPERATION_ABORTED, ErrorKind::cancelled},
    Row{VIR_ERR_AUTH_CANCELLED, ErrorKind::permission},
    Row{VIR_ERR_MIGRATE_UNSAFE, ErrorKind::unsupported},
    Row{VIR_ERR_OVERFLOW, ErrorKind::too_large},
    Row{VIR_ERR_BLOCK_COPY_ACTIVE, ErrorKind::in_use},
    Row{VIR_ERR_OPERATION_UNSUPPORTED, ErrorKind::unsupported},
    Row{VIR_ERR_SSH, ErrorKind::gone},
    Row{VIR_ERR_RESOURCE_BUSY, ErrorKind::in_use},
    Row{VIR_ERR_ACCESS_DENIED, ErrorKind::permission},
    Row{VIR_ERR_STORAGE_VOL_EXIST, ErrorKind::already_exists},
    Row{VIR_ERR_CPU_INCOMPATIBLE, ErrorKind::mismatch},
    Row{VIR_ERR_XML_INVALID_SCHEMA, ErrorKind::invalid_argument},
    Row{VIR_ERR_AUTH_UNAVAILABLE, ErrorKind::permission},
    Row{VIR_ERR_LIBSSH, ErrorKind::gone},
    Row{VIR_ERR_DEVICE_MISSING, ErrorKind::not_found},
};

struct Phrase {
  int code;
  std::string_view text;
  ErrorKind kind;
};
// One code for different things: what libvirt 9 to 11 say in untranslated words.
constexpr std::array phrases{
    Phrase{VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_INVALID, "active block job", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_INVALID, "already active", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_INVALID, "is already running", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_INVALID, "migration job", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_INVALID, "incoming migration", ErrorKind::in_use},
    Phrase{VIR_ERR_OPERATION_FAILED, "already exists with uuid", ErrorKind::already_exists},
    Phrase{VIR_ERR_OPERATION_FAILED, "is already defined", ErrorKind::already_exists},
    Phrase{VIR_ERR_OPERATION_FAILED, "Source and target image have different sizes", ErrorKind::mismatch},
    Phrase{VIR_ERR_OPERATION_FAILED, "canceled by client", ErrorKind::cancelled},
    Phrase{VIR_ERR_SYSTEM_ERROR, "unable to connect", ErrorKind::gone},
    Phrase{VIR_ERR_SYSTEM_ERROR, "Cannot recv data", ErrorKind::gone},
    Phrase{VIR_ERR_SYSTEM_ERROR, "Cannot write data", ErrorKind::gone},
    Phrase{VIR_ERR_SYSTEM_ERROR, "End of file while reading data", ErrorKind::gone},
    Phrase{VIR_ERR_SYSTEM_ERROR, "Permission denied", ErrorKind::permission},
    Phrase{VIR_ERR_SYSTEM_ERROR, "Failed to connect socket", ErrorKind::gone},
    Phrase{VIR_ERR_INTERNAL_ERROR, "client socket is closed", ErrorKind::gone},
    Phrase{VIR_ERR_INTERNAL_ERROR, "keepalive", ErrorKind::gone},
    Phrase{VIR_ERR_INTERNAL_ERROR, "no connection driver", ErrorKind::unsupported},
};
}  // namespace

ErrorKind kind_of_libvirt(int code, std::string_view message) noexcept {
  for (const auto& phrase : phrases) {
    if (phrase.code == code && message.contains(phrase.text)) return phrase.kind;
  }
  const auto* found = std::ranges::find(rows, code, &Row::code);
  return found == rows.end() ? ErrorKind::io : found->kind;
}

Error libvirt_error(_virConnect* connection, std::string operation, std::string object) {
  const auto* last = virGetLastError();
  const int code = last == nullptr ? VIR_ERR_OK : last->code;
  std::string message =
      last == nullptr || last->message == nullptr ? "libvirt did not say why" : last->message;
  while (message.ends_with('\n')) message.pop_back();
  ErrorKind kind = kind_of_libvirt(code, message);
  // Whatever a call says whose connection broke under it, it was the connection. Asking sends nothing.
  if (connection != nullptr && virConnectIsAlive(connection) == 0) kind = ErrorKind::gone;
  return fail(kind, std::move(operation), std::move(object)).why(std::move(message));
}

Result<void> check_libvirt(int result, _virConnect* connection, const char* operation, _virDomain* domain) {
  if (result >= 0) return {};
  auto error = libvirt_error(connection, operation, {});
  const char* const name = virDomainGetName(domain);
  return unexpected(std::move(error).object(name == nullptr ? "" : name));
}

void silence_libvirt() {
  virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
}

}  // namespace diskferry
