// Driver: how a kind of storage is opened and, where the storage can make volumes, created. A driver is one
// folder under drivers/, one CMake line, one line in drivers/registry.cpp, and passes tests/contract.
#pragma once

#include "diskferry/block_device.hpp"
#include "diskferry/buffer.hpp"
#include "diskferry/clock.hpp"
#include "diskferry/image_uri.hpp"

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

class BlockingPool;  // drivers/support/blocking_pool.hpp: threads for calls that block

/// What the process lends to its devices. Lifetime: outlives every device.
struct DriverContext {
  /// One executor per reactor thread; each is a strand by being a single thread. A library handle that is not
  /// thread-safe belongs to one of them; a device with several handles spreads them.
  std::span<const Executor> reactors;
  BlockingPool& blocking_pool;
  BufferPool& buffers;
  Clock& clock;
  /// A folder of this machine in which drivers leave what has to be known when this process has died; empty:
  /// there is none, and nothing is.
  std::string notes_folder{};
};

struct OpenOptions {
  bool writable = false;
  /// Share an image that is locked by others (QEMU's image locks). For reading only; the operator asked for
  /// it.
  bool force_share = false;
  /// Take no lock, and reserve nothing (image locks, RBD's exclusive lock, SCSI reservations): for a disk
  /// that a move's hypervisor has open, does not write before we have written the last, and then writes
  /// without asking us. Whoever asks for this has made sure of it.
  bool without_lock = false;
  /// Files only: the real path that was checked for this URI. It is what is opened, with no symbolic link on
  /// the way; the URI is then only its name. Empty: the URI's path, whatever it goes through.
  std::string real_path{};
  /// Upper bound on connections to a server, where a driver uses several; 0: the driver's choice.
  unsigned connections = 0;
};

struct CreateOptions {
  std::uint64_t size_bytes = 0;
  bool preallocate = false;  ///< reserve all storage now
  bool replace = false;      ///< an existing volume may be emptied and reused
};

/// What a storage tells of a volume before anybody writes to it.
struct VolumeFacts {
  bool exists = false;
  bool can_be_emptied = false;   ///< create() with `replace` makes it new; false: it is used as it is (a LUN)
  std::uint64_t size_bytes = 0;  ///< 0: the storage tells only who opens it (NBD)
  std::uint32_t block_bytes = 1;  ///< smallest unit of a request
  /// The same text for every name of this volume, from whatever host; "kind|..." from what the storage itself
  /// calls it (RBD ids, LUN identity, NFS handle). Empty: it does not tell, or nothing is there.
  std::string identity{};
  /// When it was changed the last time, since the epoch; 0: the storage does not tell.
  std::int64_t modified_ns = 0;
  /// What a new volume, or a sparse one that fills, can take. nullopt: the storage does not tell.
  std::optional<std::uint64_t> free_bytes{};
  /// Each a reason why creating it (where it does not exist) or writing to it would fail: permission,
  /// read_only, in_use. Asked for by LookOptions::for_writing.
  std::vector<Error> obstacles{};
};

struct LookOptions {
  bool for_writing = false;
};

/// A key a driver understands in the query part of its URIs.
struct DriverKey {
  std::string_view name;
  std::string_view meaning;
  bool is_secret = false;
};

using DevicePtr = std::unique_ptr<BlockDevice>;

struct Driver {
  std::string_view scheme;  ///< "file", "nbd"; further ones in `aliases`
  std::span<const std::string_view> aliases;
  std::string_view summary;  ///< one line for --help and the manual
  std::span<const DriverKey> keys;
  /// Errors: not_found, permission, in_use, read_only, gone, protocol, unsupported, invalid_argument (a bad
  /// key).
  Task<Result<DevicePtr>> (*open)(DriverContext& context, ImageUri uri, OpenOptions options);
  /// Makes a volume of that size; nullptr where the storage cannot. Errors: already_exists, no_space,
  /// permission.
  Task<Result<void>> (*create)(DriverContext& context, ImageUri uri, CreateOptions options) = nullptr;
  /// Asks the storage about a volume, and changes nothing. A volume that is not there is no error; a storage
  /// that is not there, or does not let us in, is. nullptr: open() has to do. Errors: as open().
  Task<Result<VolumeFacts>> (*look)(DriverContext& context, ImageUri uri, LookOptions options) = nullptr;
  /// Deletes a volume; nullptr where the storage cannot.
  Task<Result<void>> (*remove)(DriverContext& context, ImageUri uri) = nullptr;
  /// Of a storage server: the requests with data that 2 GiB got there with fastest, measured on one host.
  /// 0: it is none (a file, memory), or another protocol in front of one (NBD).
  std::uint32_t server_request_bytes = 0;
};

}  // namespace diskferry
