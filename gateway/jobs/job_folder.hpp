// The folder of the job database and the lock that keeps a second gateway out of it.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry {

/// Holds the lock for as long as it lives; the system drops it when the process ends in whatever way.
class JobFolder {
 public:
  /// Makes the folder (mode 0700) and an empty database file (mode 0600) where they are missing.
  /// Errors: in_use, naming the process that has it; permission, also where others could exchange the files.
  static Result<JobFolder> take(const std::string& path);
  JobFolder(JobFolder&& other) noexcept;
  JobFolder& operator=(JobFolder&&) = delete;
  ~JobFolder();

  const std::string& database_path() const noexcept { return database_path_; }

 private:
  JobFolder(int lock_fd, std::string database_path)
      : lock_fd_(lock_fd), database_path_(std::move(database_path)) {}
  int lock_fd_;
  std::string database_path_;
};

}  // namespace diskferry
