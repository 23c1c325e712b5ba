// OpenFile: one opening of a file on a volume. It is of use for as long as the brick's connection stands, and
// then never again: a lock is held on the file, and with strict-locks the library lets nothing pass through
// an opening whose lock was lost with its connection. That is how a brick that went away and came back
// between two requests is noticed, whose unflushed writes may be lost; without a lock the library opens the
// file again by itself, and a flush would succeed. The lock also keeps two of us apart.
#pragma once

#include "diskferry/clock.hpp"
#include "drivers/gluster/endpoint.hpp"
#include "drivers/gluster/volume.hpp"

#include <array>
#include <atomic>
#include <span>

struct glfs_fd;

namespace diskferry::gluster {

using FileId = std::array<unsigned char, 16>;  // the volume's name of a file, also across renames

struct FileFacts {
  FileId id{};
  std::uint64_t size_bytes = 0;
  bool can_discard = false;
  bool can_seek = false;  ///< SEEK_DATA and SEEK_HOLE
  bool is_hole = false;   ///< all of it
};

enum class Purpose : std::uint8_t {
  write,        ///< alone
  read,         ///< beside others who read
  read_shared,  ///< beside anybody: no lock
};

enum class Verb : std::uint8_t {
  read,
  write,
  punch,  ///< zeroes by giving the storage back
  fill,   ///< zeroes by writing at the brick
  flush,
};
std::string_view to_string(Verb verb) noexcept;

struct Call {
  Verb verb;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  ///< punch, fill
  std::span<std::byte> into{};
  std::span<const std::byte> from{};
};

struct Answer {
  bool is_cancelled = false;
  int number = 0;  ///< an errno; 0: done
  std::size_t bytes = 0;
};

/// Changes that were cancelled, not answered in time, and may still be carried out: whoever changes something
/// after them has to wait.
using Abandoned = std::shared_ptr<std::atomic<unsigned>>;

/// Thread: any.
class OpenFile : public std::enable_shared_from_this<OpenFile> {
 public:
  OpenFile(VolumePtr volume, glfs_fd* fd, FileFacts facts, std::uint64_t generation)
      : generation_(generation), facts_(facts), volume_(std::move(volume)), fd_(fd) {}
  /// Closes it on a thread of the volume, where close() was not called.
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  /// Lifetime: the call's memory until then. Cancel: a read at once; a change when it is answered, or after
  /// two seconds, and is then counted in `abandoned`.
  Task<Answer> perform(Clock& clock, Call call, Abandoned abandoned);

  /// Its lock is free when this succeeds. No request may be under way. Cancel: at once; it is closed all the
  /// same, when the volume comes to it.
  Task<Result<void>> close();

  std::uint64_t generation() const noexcept { return generation_; }
  const FileFacts& facts() const noexcept { return facts_; }
  glfs_fd* fd() const noexcept { return fd_; }

 private:
  const std::uint64_t generation_;
  const FileFacts facts_;
  const VolumePtr volume_;
  glfs_fd* fd_;
};
using OpenFilePtr = std::shared_ptr<OpenFile>;

/// Opens and locks it. Errors: as Driver::open. Cancel: at once.
Task<Result<OpenFilePtr>> open_file(VolumePtr volume, const Endpoint& endpoint, Purpose purpose,
                                    std::uint64_t generation);

}  // namespace diskferry::gluster
