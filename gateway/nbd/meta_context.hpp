// Metadata contexts: which an export has, which a client's queries name, and how a device's answers become
// status runs. Pure.
#pragma once

#include "diskferry/extent.hpp"
#include "drivers/image/image.hpp"
#include "gateway/nbd/codec.hpp"
#include "gateway/nbd/export.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

struct Context {
  enum class Kind : std::uint8_t { allocation, depth, bitmap };
  std::string name;  ///< "base:allocation"
  Kind kind = Kind::allocation;
  std::shared_ptr<BitmapView> bitmap = {};  ///< of Kind::bitmap
  std::uint32_t id = 0;                     ///< on the wire; set when it is selected
};

/// All contexts of an export, in a fixed order.
std::vector<Context> contexts_of(const Export& of);

enum class QueryUse : std::uint8_t { list, set };
/// The contexts that `queries` name, each once, in the export's order. In a listing no query means all, and
/// "base:", "qemu:" and "qemu:dirty-bitmap:" mean all below; a selection takes exact names only.
std::vector<Context> matching_contexts(const Export& of, const std::vector<std::string>& queries,
                                       QueryUse use);

/// What `extents` say in a context of kind allocation or depth; equal neighbours are merged.
std::vector<StatusRun> status_runs(Context::Kind kind, const std::vector<Extent>& extents);
std::vector<StatusRun> status_runs(const std::vector<BitmapRange>& ranges);

}  // namespace diskferry::nbd_server
