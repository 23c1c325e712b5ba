// Reading a target again and comparing it with what the copy noted. Used in the background while copying goes
// on and in a pass of its own at the end.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/copy/piece.hpp"

#include <atomic>
#include <span>
#include <string>
#include <vector>

namespace diskferry {

/// Compares each piece with what the device gives now, several at once on all reactors.
/// Errors: mismatch at the first offset known to differ (for hashed data the piece's), those of the device.
Task<Result<void>> verify_pieces(DriverContext& context, BlockDevice& device, std::span<const Piece> pieces,
                                 std::atomic<std::uint64_t>& verified_bytes);

/// Makes the next reads of these parts of a file come from its storage: drops their clean pages from the page
/// cache. No ranges: the whole file. A hint; dropping 2 GiB takes about 0.1 s.
Task<void> drop_page_cache(DriverContext& context, std::string path, std::vector<Range> ranges);
/// The first and the last `bytes` of the file, wherever it ends.
Task<void> drop_page_cache_at_ends(DriverContext& context, std::string path, std::uint64_t bytes);

}  // namespace diskferry
