// The work of collect_preflight(), in parts; internal to preflight.
#pragma once

#include "diskferry/image_uri.hpp"
#include "gateway/move/preflight_collect.hpp"
#include "gateway/move/shared_proof.hpp"

#include <string>

namespace diskferry {

class PreflightCollector {
 public:
  PreflightCollector(DriverContext& context, PreflightPeers peers, MoveRequest request, bool is_cold);
  Task<Result<PreflightFacts>> run();

 private:
  // preflight_collect.cpp: machine, hosts, gateway
  Task<Result<void>> ask_source();
  Task<void> ask_for_job();
  Task<void> ask_target();
  Task<void> compare_cpu();
  Task<void> ask_gateway();
  Task<void> ask_for_way_back();
  // preflight_collect_disks.cpp
  Task<void> look_at_disks();
  Task<void> look_at_source(DiskFacts& disk);
  Task<void> look_into_image(DiskFacts& disk, ImageUri uri);
  Task<void> look_at_target(DiskFacts& disk);
  Task<void> look_at_network_target(DiskFacts& disk, ImageUri uri);
  // preflight_collect_through.cpp
  void note_export(DiskFacts& disk) const;
  Task<bool> is_target_of_export(const DiskFacts& disk);
  Task<void> look_at_shared_target(DiskFacts& disk);
  Task<Result<TargetDiskFacts>> ask_for_disk(const DiskFacts& disk, std::string uri, std::string format);
  // preflight_collect_shared.cpp
  Task<void> prove_disk_is_shared(DiskFacts& disk);
  Task<ShareVerdict> prove_storage_is_shared(ImageUri storage, std::string name_there);
  Task<bool> is_same_medium(const DiskFacts& disk);
  Task<void> compare_with_sources(DiskFacts& disk);

  void note_unknown(std::string subject, Error error);

  DriverContext& context_;
  PreflightPeers peers_;
  PreflightFacts facts_;
};

/// The name by which this host opens a disk's storage; an error where it has none.
Result<ImageUri> source_uri(const VmDisk& disk);

}  // namespace diskferry
