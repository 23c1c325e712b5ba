// Small files that are whole under their names or not there at all, also after a power cut: written beside,
// made durable, renamed, and the folder made durable. For records, keys and tables; never for disks. All of
// it blocks: call it where blocking is allowed, on the blocking pool.
#pragma once

#include "diskferry/error.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>

namespace diskferry {

/// A file under way. Without give_name() it is removed again. Thread: one.
class NewFile {
 public:
  /// Makes `path` + `suffix`, with that mode whatever the umask says; one that an earlier process left is
  /// replaced. Errors: not_found (the folder), permission, no_space, read_only.
  static Result<NewFile> create(std::string path, mode_t mode = 0600, std::string_view suffix = ".new");
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  /// All of it. Errors: no_space, io.
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  /// Makes the content durable and closes the file. Errors: as write().
  Result<void> finish();
  /// After finish(). The name is durable once sync_folder_of() has been called. Errors: already_exists
  /// (without `replace`), and those of renaming.
  Result<void> give_name(bool replace = true);

 private:
  NewFile(std::string path, std::string temporary, int fd);
  void close() noexcept;
  std::string path_;
  std::string temporary_;  ///< empty: it has its name
  int fd_;
};

/// Makes the name of a new or removed file durable. Errors: not_found (the folder), permission, io. A network
/// file system that cannot do it, and keeps names durable at its server, is no error.
Result<void> sync_folder_of(const std::string& path);

/// The same of a folder itself.
Result<void> sync_folder(const std::string& folder);

/// All of the above. Errors: theirs.
Result<void> replace_durably(const std::string& path, std::string_view text, mode_t mode = 0600);

}  // namespace diskferry
