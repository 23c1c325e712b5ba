// SCSI commands as they go over the wire: SPC-5 and SBC-4. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace diskferry::iscsi {

struct Command {
  std::array<std::uint8_t, 16> bytes{};
  std::uint8_t length = 0;
  std::string_view verb;         ///< for messages
  bool changes_content = false;  ///< of the LUN: may not be done twice while others write there
};

/// Which blocks.
struct Blocks {
  std::uint64_t first = 0;
  std::uint32_t count = 0;
};

Command test_unit_ready();
Command inquiry(std::uint16_t answer_bytes);
/// Vital product data.
Command inquiry_page(std::uint8_t page, std::uint16_t answer_bytes);
Command read_capacity16(std::uint32_t answer_bytes);
Command mode_sense6(std::uint8_t page, std::uint8_t answer_bytes);
Command report_operation(std::uint8_t opcode, std::uint32_t answer_bytes);
Command get_lba_status(std::uint64_t first, std::uint32_t answer_bytes);
Command read16(Blocks blocks);
Command write16(Blocks blocks, bool fua);
Command write_same16(Blocks blocks, bool may_unmap);
/// One range, which is in the parameters.
Command unmap();
std::array<std::byte, 24> unmap_parameters(Blocks blocks);
/// Of the whole LUN.
Command synchronize_cache16();

/// What can be asked of persistent reservations, and done with them (SPC-5, 5.15).
enum class ReserveIn : std::uint8_t { read_keys = 0, read_reservation = 1 };
enum class ReserveOut : std::uint8_t { reserve = 1, preempt = 4, register_and_ignore = 6 };
/// Who has registered may write, everybody may read.
inline constexpr std::uint8_t reserve_type = 5;
Command persistent_reserve_in(ReserveIn action, std::uint16_t answer_bytes);
Command persistent_reserve_out(ReserveOut action);
/// `key`: the one that is registered; `other`: the one that the action is about.
std::array<std::byte, 24> reserve_parameters(std::uint64_t key, std::uint64_t other);

}  // namespace diskferry::iscsi
