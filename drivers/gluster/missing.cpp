// The driver in a build without libgfapi: it is known, and says what is missing.
#include "drivers/gluster/endpoint.hpp"
#include "drivers/gluster/gluster_driver.hpp"
#include "drivers/gluster/schemes.hpp"

namespace diskferry {
namespace {

Error missing(const ImageUri& uri) {
  return fail(ErrorKind::unsupported, "open", uri.to_string())
      .why("this program was built without GlusterFS (libgfapi)")
      .remedy("install the package libglusterfs-dev (glusterfs-api-devel) and build it again");
}
Task<Result<DevicePtr>> open(DriverContext&, ImageUri uri, OpenOptions) {
  co_return unexpected(missing(uri));
}
Task<Result<void>> create(DriverContext&, ImageUri uri, CreateOptions) {
  co_return unexpected(missing(uri));
}
Task<Result<VolumeFacts>> look(DriverContext&, ImageUri uri, LookOptions) {
  co_return unexpected(missing(uri));
}
Task<Result<void>> remove(DriverContext&, ImageUri uri) {
  co_return unexpected(missing(uri));
}

}  // namespace

const Driver gluster_driver{.scheme = "gluster",
                            .aliases = gluster::aliases,
                            .summary = gluster::summary,
                            .keys = gluster::endpoint_keys,
                            .open = open,
                            .create = create,
                            .look = look,
                            .remove = remove};

}  // namespace diskferry
