// What a host is and offers, and whether a machine's CPU fits it.
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"

#include <cstdlib>
#include <span>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pugixml.hpp>

namespace diskferry {
namespace {
struct FreeText {
  void operator()(char* text) const noexcept { std::free(text); }
};
using Text = std::unique_ptr<char, FreeText>;

/// A list of objects that libvirt allocated, and how one is let go.
template <class T>
class List {
 public:
  explicit List(int (*free_one)(T*)) : free_one_(free_one) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    for (T* one : all()) free_one_(one);
    std::free(static_cast<void*>(items_));
  }
  T*** into() noexcept { return &items_; }
  void count(int number) noexcept { count_ = number > 0 ? static_cast<std::size_t>(number) : 0; }
  std::span<T*> all() const noexcept { return {items_, count_}; }

 private:
  int (*free_one_)(T*);
  T** items_ = nullptr;
  std::size_t count_ = 0;
};

std::string or_empty(const char* text) {
  return text == nullptr ? std::string() : std::string(text);
}

Error host_error(virConnectPtr connection) {
  return libvirt_error(connection, "ask about the host", {});
}

/// A daemon may be built or run without networks or without interfaces; then there are none.
Result<void> check_list(int number, virConnectPtr connection) {
  if (number >= 0) return {};
  auto error = host_error(connection);
  if (error.kind() == ErrorKind::unsupported) return {};
  return unexpected(std::move(error));
}

Result<void> read_numbers(virConnectPtr connection, LibvirtHost& host) {
  unsigned long version = 0;
  if (virConnectGetLibVersion(connection, &version) < 0) return unexpected(host_error(connection));
  host.libvirt_version = version;
  if (virConnectGetVersion(connection, &version) < 0) return unexpected(host_error(connection));
  host.hypervisor_version = version;
  virNodeInfo info{};
  if (virNodeGetInfo(connection, &info) < 0) return unexpected(host_error(connection));
  host.memory_bytes = std::uint64_t{info.memory} * 1024;
  host.cpus = info.cpus;
  host.memory_free_bytes = virNodeGetFreeMemory(connection);  // 0 stands for an error too
  return {};
}

Result<void> read_names(virConnectPtr connection, LibvirtHost& host) {
  const Text hostname(virConnectGetHostname(connection));
  if (!hostname) return unexpected(host_error(connection));
  host.hostname = hostname.get();
  const Text capabilities(virConnectGetCapabilities(connection));
  if (!capabilities) return unexpected(host_error(connection));
  host.capabilities_xml = capabilities.get();
  pugi::xml_document document;
  if (document.load_string(host.capabilities_xml.c_str()))
    host.host_uuid = document.child("capabilities").child("host").child_value("uuid");
  return {};
}

Result<void> read_networks(virConnectPtr connection, LibvirtHost& host) {
  List<virNetwork> networks(virNetworkFree);
  int number = virConnectListAllNetworks(connection, networks.into(), VIR_CONNECT_LIST_NETWORKS_ACTIVE);
  networks.count(number);
  DISKFERRY_CHECK(check_list(number, connection));
  for (auto* network : networks.all()) {
    const auto name = or_empty(virNetworkGetName(network));
    host.networks.push_back(name);
    const Text bridge(virNetworkGetBridgeName(network));  // none for a network of another kind
    if (bridge) host.network_bridges[name] = bridge.get();
  }
  List<virInterface> interfaces(virInterfaceFree);
  number = virConnectListAllInterfaces(connection, interfaces.into(), VIR_CONNECT_LIST_INTERFACES_ACTIVE);
  interfaces.count(number);
  DISKFERRY_CHECK(check_list(number, connection));
  for (auto* one : interfaces.all()) host.interfaces.push_back(or_empty(virInterfaceGetName(one)));
  return {};
}

Result<LibvirtHost> read_host(virConnectPtr connection) {
  LibvirtHost host;
  DISKFERRY_CHECK(read_numbers(connection, host));
  DISKFERRY_CHECK(read_names(connection, host));
  DISKFERRY_CHECK(read_networks(connection, host));
  return host;
}

Result<std::vector<LibvirtDomain>> read_domains(virConnectPtr connection) {
  List<virDomain> found(virDomainFree);
  const int number = virConnectListAllDomains(connection, found.into(), 0);
  found.count(number);
  if (number < 0) return unexpected(libvirt_error(connection, "list domains", {}));
  std::vector<LibvirtDomain> domains;
  for (auto* one : found.all()) {
    char uuid[VIR_UUID_STRING_BUFLEN] = {};
    if (virDomainGetUUIDString(one, uuid) < 0) continue;
    domains.push_back(
        {.name = or_empty(virDomainGetName(one)), .uuid = uuid, .is_active = virDomainIsActive(one) == 1});
  }
  return domains;
}

const char* or_null(const std::string& text) {
  return text.empty() ? nullptr : text.c_str();
}

Result<std::string> compare(virConnectPtr connection, const VmDescription& vm) {
  const int answer = virConnectCompareHypervisorCPU(
      connection, or_null(vm.emulator), or_null(vm.architecture), or_null(vm.machine),
      or_null(vm.domain_type), vm.cpu_xml.c_str(), VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE);
  switch (answer) {
    case VIR_CPU_COMPARE_IDENTICAL:
      return "identical";
    case VIR_CPU_COMPARE_SUPERSET:
      return "superset";
    case VIR_CPU_COMPARE_INCOMPATIBLE:
      return unexpected(
          fail(ErrorKind::mismatch, "compare CPU", vm.name).why("the host cannot give this CPU"));
    default:
      return unexpected(libvirt_error(connection, "compare CPU", vm.name));
  }
}
}  // namespace

Task<Result<LibvirtHost>> Libvirt::host() {
  return connection_->call<LibvirtHost>({.operation = "ask about the host", .object = connection_->uri},
                                        read_host);
}

Task<Result<std::vector<LibvirtDomain>>> Libvirt::domains() {
  return connection_->call<std::vector<LibvirtDomain>>(
      {.operation = "list domains", .object = connection_->uri}, read_domains);
}

Task<Result<std::string>> Libvirt::domain_capabilities(VmDescription vm) {
  return connection_->call<std::string>(
      {.operation = "ask for capabilities", .object = connection_->uri},
      [vm = std::move(vm)](auto* connection) -> Result<std::string> {
        const Text xml(virConnectGetDomainCapabilities(connection, or_null(vm.emulator),
                                                       or_null(vm.architecture), or_null(vm.machine),
                                                       or_null(vm.domain_type), 0));
        if (!xml) return unexpected(libvirt_error(connection, "ask for capabilities", vm.name));
        return std::string(xml.get());
      });
}

Task<Result<std::string>> Libvirt::compare_cpu(VmDescription vm) {
  if (vm.cpu_xml.empty()) co_return std::string("identical");  // it asks for no particular CPU
  if (vm.cpu_mode == "host-passthrough" || vm.cpu_mode == "maximum") {
    co_return unexpected(
        fail(ErrorKind::unsupported, "compare CPU", vm.name)
            .why("its CPU is whatever its host has (" + vm.cpu_mode + "), which no list can tell"));
  }
  CallTerms terms{.operation = "compare CPU", .object = vm.name};
  co_return co_await connection_->call<std::string>(
      std::move(terms), [vm = std::move(vm)](auto* connection) { return compare(connection, vm); });
}

}  // namespace diskferry
