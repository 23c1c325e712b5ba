// Which drivers there are, and opening storage by URI. Formats (qcow2 over storage) are above this, in
// drivers/image.
#pragma once

#include "diskferry/driver.hpp"

#include <span>

namespace diskferry {

std::span<const Driver* const> all_drivers();
/// One more than the table has, for simulations. Once, before the first use. Lifetime: the process's.
void add_driver(const Driver& driver);
/// The driver of a scheme. Errors: unsupported, with the list of what there is.
Result<const Driver*> find_driver(const ImageUri& uri);
/// Opens storage as raw bytes, behind a CheckedDevice. Errors: as Driver::open, and invalid_argument for a
/// query key the driver does not know.
Task<Result<DevicePtr>> open_storage(DriverContext& context, ImageUri uri, OpenOptions options);
/// Makes a volume. Errors: as Driver::create; unsupported where the storage cannot.
Task<Result<void>> create_storage(DriverContext& context, ImageUri uri, CreateOptions options);
/// Asks about a volume and changes nothing. Where the driver cannot ask without being a client that counts
/// (an NBD server may end with its first one), what it cannot create is taken to be there, and no more is
/// known. Errors: as Driver::look.
Task<Result<VolumeFacts>> look_at_volume(DriverContext& context, ImageUri uri, LookOptions options);

}  // namespace diskferry
