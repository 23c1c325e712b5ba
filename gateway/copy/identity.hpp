// Telling storages apart: that both sides of a copy are not the same, and that a source has not changed
// meanwhile.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/image/image.hpp"
#include "gateway/copy/ledger.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// What a storage is, whatever name it goes by: device and inode of a file, the device number of a block
/// device, server, socket and export of a network disk, and what the storage itself calls it (RBD ids, a
/// LUN's identity, an NFS handle), also where the kernel has it mounted or attached. Two names of one storage
/// have a key in common. None: there is nothing.
Task<Result<std::vector<std::string>>> storage_keys(DriverContext& context, ImageUri uri);
/// The same of a storage that was just looked at: looking at one on a network takes a connection.
Task<Result<std::vector<std::string>>> storage_keys(DriverContext& context, ImageUri uri, std::string told);

/// The first text that both have; empty: none.
std::string common_key(const std::vector<std::string>& one, const std::vector<std::string>& other);

/// The same for two hosts to compare: a shared file keeps its inode, size, time of change and content
/// wherever it is mounted, while device numbers differ. Equal texts: the same storage. Empty: there is
/// nothing.
Task<Result<std::string>> storage_identity(DriverContext& context, ImageUri uri);
/// The same of network storage that was just looked at. Blocks for a moment.
std::string network_identity(const ImageUri& uri, std::string told);

/// A layer of a source as it is now.
struct SourceLayer {
  LedgerLayer noted{};
  std::vector<std::string> keys{};  ///< as storage_keys()
};
/// Every layer, looked at once. Errors: of the storage.
Task<Result<std::vector<SourceLayer>>> look_at_layers(DriverContext& context, std::vector<ImageUri> layers);
std::vector<LedgerLayer> noted_layers(std::vector<SourceLayer> layers);
/// The same without the keys, which names are looked up for.
Task<Result<std::vector<LedgerLayer>>> note_layers(DriverContext& context, std::vector<ImageUri> layers);

/// The layers' names that have changed; empty when none has.
std::string changed_layers(const std::vector<LedgerLayer>& then, const std::vector<LedgerLayer>& now);

}  // namespace diskferry
