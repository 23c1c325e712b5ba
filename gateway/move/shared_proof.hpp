// Whether both hosts have the same storage: proved, and not concluded from names, device numbers or times,
// which copies have in common with what they are copied from.
//
// A file: one gateway writes a random text beside it, and the other one reads it there; then it is the same
// file system, in which the number of the file tells. A block device: its maker's world-wide name. A network
// disk: the name leads to the same server from both hosts, and what is read there at random places agrees.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/image_uri.hpp"
#include "gateway/move/storage_view.hpp"
#include "gateway/move/target_gateway.hpp"

#include <string>

namespace diskferry {

struct ShareVerdict {
  bool is_shared = false;
  /// Neither host can look into it, and the name, which both have in common, is all there is.
  bool is_by_name = false;
  std::string reason{};  ///< why it is, or what was tried; for people, without a full stop
};

/// The verdicts, pure. Of a file, judge_plainly() can only say no for good; shared means then that a marker
/// has to tell, for judge_marked(). `text`: what was written into it.
ShareVerdict judge_plainly(const StorageView& here, const StorageView& there);
ShareVerdict judge_marked(const StorageView& here, const StorageView& there, const std::string& text);
ShareVerdict judge_network(const StorageView& here, const StorageView& there);

/// `there`: the storage's name on the other host. The marker is gone when this returns; but where the task is
/// cancelled while the other host holds it, or the gateway is killed, it stays behind.
/// Errors: cancelled, and internal. Whatever else goes wrong is a verdict.
Task<Result<ShareVerdict>> prove_shared(DriverContext& context, TargetGateway& gateway, ImageUri here,
                                        std::string there);

}  // namespace diskferry
