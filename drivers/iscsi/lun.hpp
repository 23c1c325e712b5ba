// What a LUN tells of itself, out of its answers. Pure: the answers are hostile, and their lengths are lies
// until they are checked.
#pragma once

#include "diskferry/error.hpp"
#include "diskferry/extent.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace diskferry::iscsi {

using Bytes = std::span<const std::byte>;

struct LunFacts {
  /// As the kernel calls a disk of that LUN ("naa.600..."), where that name is its own; else empty.
  std::string world_wide_name{};
  std::string serial{};
  /// All names of the LUN, with their types, in hex: others may have the same, but it does not change them.
  std::string designators{};
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 512;
  std::uint32_t physical_block_bytes = 512;
  std::uint32_t transfer_blocks_max = 0;  ///< 0: it does not say, as in the others
  std::uint32_t transfer_blocks_best = 0;
  std::uint32_t unmap_blocks_max = 0;
  std::uint64_t write_same_blocks_max = 0;
  bool is_thin = false;
  bool unmapped_reads_zero = false;
  bool can_unmap = false;
  bool can_write_same_unmap = false;
  bool can_write_same = false;
  bool can_fua = false;
  bool is_write_protected = false;
  bool is_rotational = false;
  bool knows_mode = false;     ///< a target may refuse to tell it while another initiator has it reserved
  bool may_have_cache = true;  ///< that forgets when the power goes: writes are durable when flushed
};

/// What of it must be the same after a connection was lost. Empty, or what is not.
std::string difference(const LunFacts& then, const LunFacts& now);

/// Standard INQUIRY data. Errors: not_found, unsupported (no disk), protocol.
Result<void> take_inquiry(Bytes answer);
/// The pages that there are.
std::vector<std::uint8_t> pages_in(Bytes answer);
void take_serial(Bytes answer, LunFacts& facts);
void take_identification(Bytes answer, LunFacts& facts);
void take_block_limits(Bytes answer, LunFacts& facts);
void take_characteristics(Bytes answer, LunFacts& facts);
void take_provisioning(Bytes answer, LunFacts& facts);
/// Errors: protocol, unsupported (a size of blocks that no disk of ours has).
Result<void> take_capacity(Bytes answer, LunFacts& facts);
/// MODE SENSE (6) with the page of the cache, or without it.
void take_mode(Bytes answer, LunFacts& facts);
/// Of REPORT SUPPORTED OPERATION CODES for one.
bool is_operation_supported(Bytes answer);
/// Of GET LBA STATUS: `wanted` from its start, in bytes, at most `extents_max`, as far as the answer makes
/// sense; the first descriptor may begin before it. Empty: it makes none.
std::vector<Extent> extents_in(Bytes answer, Range wanted, const LunFacts& facts, std::size_t extents_max);

}  // namespace diskferry::iscsi
