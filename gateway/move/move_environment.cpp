#include "gateway/move/move_environment.hpp"

#include "diskferry/image_uri.hpp"

namespace diskferry {

Result<std::string> gateway_beside(std::string_view libvirt_uri) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(libvirt_uri));
  if (uri.host().empty())
    return unexpected(fail(ErrorKind::invalid_argument, "find the other gateway", printable(libvirt_uri))
                          .why("the URI names no host")
                          .remedy("say --gateway-to https://HOST, or a destination with a host"));
  const bool is_v6 = uri.host().contains(':');
  return "https://" + (is_v6 ? "[" + uri.host() + "]" : uri.host());
}

Task<Result<std::unique_ptr<TargetGateway>>> connect_other_gateway(MoveEnvironment& environment,
                                                                   const MoveRequest& request) {
  std::string address = request.gateway;
  if (address.empty()) {
    DISKFERRY_CO_TRY(address, gateway_beside(request.destination));
  }
  co_return co_await environment.connect_gateway(std::move(address));
}

std::string source_uri(const MoveEnvironment& environment, const MoveRequest& request) {
  return request.source.empty() ? environment.libvirt_uri : request.source;
}

}  // namespace diskferry
