// The table of libvirt's errors, row by row, with messages that libvirt 9 really gave.
#include "gateway/hypervisor/libvirt_error.hpp"

#include <string_view>

#include <gtest/gtest.h>
#include <libvirt/virterror.h>

namespace diskferry {
namespace {
struct Row {
  std::string_view name;
  int code;
  std::string_view message;
  ErrorKind kind;
};
constexpr Row rows[] = {
    {"NoDomain", VIR_ERR_NO_DOMAIN, "Domain not found: no domain with matching name 'g1'",
     ErrorKind::not_found},
    {"Aborted", VIR_ERR_OPERATION_ABORTED, "operation aborted: migration out: canceled by client",
     ErrorKind::cancelled},
    {"MirrorCancelled", VIR_ERR_OPERATION_FAILED, "operation failed: migration out: canceled by client",
     ErrorKind::cancelled},
    {"TlsOverUnix", VIR_ERR_OPERATION_UNSUPPORTED,
     "Operation not supported: NBD migration with TLS is not supported over UNIX socket",
     ErrorKind::unsupported},
    {"NoSuchConfig", VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: disk driver",
     ErrorKind::unsupported},
    {"NoSuchCall", VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver: x",
     ErrorKind::unsupported},
    {"NoSuchArgument", VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: x", ErrorKind::unsupported},
    {"Unsafe", VIR_ERR_MIGRATE_UNSAFE, "Unsafe migration: Migration without shared storage is unsafe",
     ErrorKind::unsupported},
    {"AuthFailed", VIR_ERR_AUTH_FAILED, "authentication failed: x", ErrorKind::permission},
    {"AuthUnavailable", VIR_ERR_AUTH_UNAVAILABLE, "authentication unavailable: no polkit agent",
     ErrorKind::permission},
    {"AuthCancelled", VIR_ERR_AUTH_CANCELLED, "authentication cancelled: x", ErrorKind::permission},
    {"Denied", VIR_ERR_ACCESS_DENIED, "access denied", ErrorKind::permission},
    {"SocketDenied", VIR_ERR_SYSTEM_ERROR,
     "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied", ErrorKind::permission},
    {"NoDaemon", VIR_ERR_SYSTEM_ERROR,
     "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
     ErrorKind::gone},
    {"NoServer", VIR_ERR_SYSTEM_ERROR, "unable to connect to server at '10.77.0.2:16509': Connection refused",
     ErrorKind::gone},
    {"PeerGone", VIR_ERR_SYSTEM_ERROR, "Cannot recv data: Connection reset by peer", ErrorKind::gone},
    {"OtherSystem", VIR_ERR_SYSTEM_ERROR, "Unable to open '/x': Is a directory", ErrorKind::io},
    {"Closed", VIR_ERR_INTERNAL_ERROR, "internal error: client socket is closed", ErrorKind::gone},
    {"OtherInternal", VIR_ERR_INTERNAL_ERROR, "internal error: unable to execute QEMU command 'cont'",
     ErrorKind::io},
    {"Rpc", VIR_ERR_RPC, "End of file while reading data: Input/output error", ErrorKind::gone},
    {"JobTimeout", VIR_ERR_OPERATION_TIMEOUT,
     "Timed out during operation: cannot acquire state change lock (held by "
     "monitor=remoteDispatchDomainMigrate)",
     ErrorKind::in_use},
    {"OtherTimeout", VIR_ERR_OPERATION_TIMEOUT, "Timed out during operation: x", ErrorKind::timed_out},
    {"BlockJob", VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain has active block job",
     ErrorKind::in_use},
    {"NotRunning", VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is not running",
     ErrorKind::invalid_argument},
    {"Exists", VIR_ERR_DOM_EXIST, "domain 'g1' already exists", ErrorKind::already_exists},
    {"OtherUuid", VIR_ERR_OPERATION_FAILED, "operation failed: domain 'g1' already exists with uuid 1",
     ErrorKind::already_exists},
    {"Sizes", VIR_ERR_OPERATION_FAILED,
     "operation failed: migration of disk vda failed: Source and target image have different sizes",
     ErrorKind::mismatch},
    {"Cpu", VIR_ERR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU: missing features: avx512f",
     ErrorKind::mismatch},
    {"CopyActive", VIR_ERR_BLOCK_COPY_ACTIVE, "block copy still active: disk 'vda' not ready for pivot yet",
     ErrorKind::in_use},
    {"Xml", VIR_ERR_XML_ERROR, "XML error: x", ErrorKind::invalid_argument},
    {"NoPool", VIR_ERR_NO_STORAGE_POOL, "Storage pool not found: no storage pool with matching target path",
     ErrorKind::not_found},
    {"MigrationFailed", VIR_ERR_OPERATION_FAILED, "operation failed: job 'migration out' unexpectedly failed",
     ErrorKind::io},
    {"Unknown", 100000, "something new", ErrorKind::io},
    {"NoError", VIR_ERR_OK, "", ErrorKind::io},
};

class LibvirtError : public testing::TestWithParam<Row> {};
TEST_P(LibvirtError, HasItsKind) {
  const auto& row = GetParam();
  EXPECT_EQ(to_string(kind_of_libvirt(row.code, row.message)), to_string(row.kind));
}
INSTANTIATE_TEST_SUITE_P(Table, LibvirtError, testing::ValuesIn(rows),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(LibvirtErrorText, IsThatWithoutAnError) {
  virResetLastError();
  const auto error = libvirt_error(nullptr, "ask", "host");
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_EQ(error.why(), "libvirt did not say why");
}
}  // namespace
}  // namespace diskferry
