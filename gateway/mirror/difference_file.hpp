// The bits of a DifferenceMap in a file that is mapped into memory: they are there after the process has been
// killed, for the kernel keeps the pages. After the machine has gone down they are not believed.
//
// File, in this machine's byte order, since nobody else reads it: a page with the header
// (difference_file.cpp), then a bit for each granule.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/mirror/difference_map.hpp"

#include <memory>
#include <span>
#include <string>

namespace diskferry {

/// Thread: any, but one at a time; every call blocks for as long as the file system does.
class DifferenceFile {
 public:
  /// A new file in which everything differs; replaces one that is there. All of it is allocated, so that
  /// writing to it can not fail later. `key`: of what it is (identities of primary and target, sizes).
  /// Errors: no_space, permission, io.
  static Result<std::unique_ptr<DifferenceFile>> create(const std::string& path, DifferenceShape shape,
                                                        const std::string& key);
  /// As it was left. Errors: not_found; mismatch (of another key or shape, or of a machine that has been down
  /// since: everything may differ); corrupt; permission, io.
  static Result<std::unique_ptr<DifferenceFile>> open(const std::string& path, DifferenceShape shape,
                                                      const std::string& key);
  ~DifferenceFile();
  DifferenceFile(const DifferenceFile&) = delete;
  DifferenceFile& operator=(const DifferenceFile&) = delete;

  /// Lifetime: this.
  std::span<std::uint64_t> words() const noexcept;

 private:
  DifferenceFile(std::byte* mapped, std::size_t bytes) : mapped_(mapped), bytes_(bytes) {}
  static Result<std::unique_ptr<DifferenceFile>> map(int fd, DifferenceShape shape, const std::string& path);

  std::byte* const mapped_;
  const std::size_t bytes_;
};

}  // namespace diskferry
