// no_tty is libvirt's own key, for the transports that run or speak ssh.
#include "gateway/hypervisor/libvirt_uri.hpp"

namespace diskferry {

std::string without_prompts(std::string_view uri) {
  const auto scheme = uri.substr(0, uri.find(':'));
  const bool speaks_ssh = scheme.ends_with("+ssh");
  const auto query = uri.find('?');
  if (!speaks_ssh || (query != uri.npos && uri.substr(query).contains("no_tty="))) return std::string(uri);
  return std::string(uri) + (query == uri.npos ? "?no_tty=1" : "&no_tty=1");
}

}  // namespace diskferry
