// What this host's page cache has of the disks that a move brings here: verification must not be answered
// from it.
#include "diskferry/image_uri.hpp"
#include "gateway/copy/verify.hpp"
#include "gateway/move/target_disks.hpp"

namespace diskferry {

Task<void> drop_target_caches(DriverContext& context, std::vector<TargetDiskRecord> records,
                              std::string move) {
  for (const TargetDiskRecord& record : records) {
    if (record.request.move != move) continue;
    const auto uri = ImageUri::parse(record.request.uri);
    if (uri && uri->is_file()) co_await drop_page_cache(context, uri->path(), {});
  }
}

}  // namespace diskferry
