// Metadata contexts.
#include "gateway/nbd/meta_context.hpp"

#include "gateway/nbd/protocol.hpp"

#include <algorithm>

namespace diskferry::nbd_server {
namespace {
constexpr std::string_view bitmap_prefix = "qemu:dirty-bitmap:";

bool names(std::string_view query, std::string_view context, QueryUse use) {
  if (query == context) return true;
  if (use == QueryUse::set) return false;
  const bool is_namespace = query == "base:" || query == "qemu:" || query == bitmap_prefix;
  return is_namespace && context.starts_with(query);
}
void append(std::vector<StatusRun>& runs, StatusRun next) {
  if (!runs.empty() && runs.back().status == next.status) {
    runs.back().length += next.length;
  } else {
    runs.push_back(next);
  }
}
std::uint32_t status_of(Context::Kind kind, const Extent& extent) {
  if (kind == Context::Kind::allocation)
    return (extent.is_hole ? state_hole : 0) | (extent.reads_zero ? state_zero : 0);
  // 0: nobody has it; 1: the top layer; 2: the one below ... (QEMU's interop/nbd.txt).
  return extent.depth == Extent::depth_none ? 0 : extent.depth + 1;
}
}  // namespace

std::vector<Context> contexts_of(const Export& of) {
  std::vector<Context> all;
  all.push_back({.name = "base:allocation", .kind = Context::Kind::allocation});
  all.push_back({.name = "qemu:allocation-depth", .kind = Context::Kind::depth});
  for (const auto& bitmap : of.options().bitmaps)
    all.push_back({.name = std::string(bitmap_prefix) + bitmap->description().name,
                   .kind = Context::Kind::bitmap,
                   .bitmap = bitmap});
  return all;
}

std::vector<Context> matching_contexts(const Export& of, const std::vector<std::string>& queries,
                                       QueryUse use) {
  std::vector<Context> all = contexts_of(of);
  if (use == QueryUse::list && queries.empty()) return all;
  std::erase_if(all, [&](const Context& context) {
    return std::ranges::none_of(queries,
                                [&](const std::string& query) { return names(query, context.name, use); });
  });
  return all;
}

std::vector<StatusRun> status_runs(Context::Kind kind, const std::vector<Extent>& extents) {
  std::vector<StatusRun> runs;
  for (const Extent& extent : extents) append(runs, {extent.length, status_of(kind, extent)});
  return runs;
}

std::vector<StatusRun> status_runs(const std::vector<BitmapRange>& ranges) {
  std::vector<StatusRun> runs;
  for (const BitmapRange& range : ranges) append(runs, {range.length, range.is_dirty ? state_dirty : 0});
  return runs;
}

}  // namespace diskferry::nbd_server
