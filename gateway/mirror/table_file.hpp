// The table of a move that did not come to its end, in a file: what its target holds durably, so that the
// next attempt sends only what differs.
//
// It is true until somebody writes to the target. So it is written when the window has stopped, and reading
// it removes it: an attempt that ends in a crash leaves none.
//
// File, integers big-endian: the header (table_file.cpp), the target's identity, ranges of zero blocks,
// blocks with their hashes, and XXH3 with 128 bits of all of it before.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/mirror/block_table.hpp"

#include <memory>
#include <string>

namespace diskferry {

/// Longest identity that is written and read.
inline constexpr std::size_t target_identity_bytes_max = 4096;

/// What a table must be of, to be of use.
struct TableKey {
  std::string target_identity;
  TableShape shape;
};

/// Replaces `path` in one step and durably. Errors: permission, no_space, io, too_large (the identity).
/// Lifetime: `table` until the task ends; nobody changes it meanwhile.
Task<Result<void>> save_block_table(DriverContext& context, const BlockTable& table, std::string path,
                                    std::string target_identity);

/// Reads the file and removes it, durably, before it returns a table. The bytes are hostile: sizes are
/// bounded by the key, and all is verified. Errors: not_found (there is none), corrupt, mismatch (of another
/// target, size or block; it stays), unsupported (another version), permission, io.
Task<Result<std::unique_ptr<BlockTable>>> load_block_table(DriverContext& context, std::string path,
                                                           TableKey key);

}  // namespace diskferry
