// What Exports has of each export; for its own files only.
#pragma once

#include "diskferry/task_group.hpp"
#include "gateway/daemon/exports.hpp"

#include <map>
#include <mutex>

namespace diskferry::daemon {

struct Exports::Entry {
  control::ExportRequest request{};
  Kind kind = Kind::added;
  std::string shown_image{};
  /// Null while a job has it, which gives back the one that is behind the export then.
  std::shared_ptr<BlockDevice> device{};
  std::vector<std::string> storages{};
  std::shared_ptr<std::atomic<bool>> keeps_unflushed{};  // as KeepOptions::is_on
  nbd_server::ExportPtr offered{};                       // set: ready; else it is being added or removed
  bool is_lent = false;
  std::string configured{};      // the image that the configuration names; empty: it names none
  std::uint64_t size_bytes = 0;  // of the disk, where that may be less than its storage has
  bool is_taken_over = false;    // as of Exports::open_disk()
  bool is_tried_now = false;     // it waits, and its storage is just being opened
  std::string waiting{};         // why its storage could not be opened; empty: it is open

  bool is_there_again() const noexcept { return kind != Kind::added; }  // after a restart
};

struct Exports::State {
  DriverContext& context;
  nbd_server::Server& server;
  DiskServer& disks;
  mutable std::mutex guard{};
  std::map<std::string, std::shared_ptr<Entry>> entries{};  // guard; also the members of each
  TaskGroup trying;                                         // one for each that waits for its storage
};

}  // namespace diskferry::daemon
