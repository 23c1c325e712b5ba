#include "drivers/iscsi/command.hpp"

#include "diskferry/units.hpp"

namespace diskferry::iscsi {
namespace {

enum : std::uint8_t {
  op_test_unit_ready = 0x00,
  op_inquiry = 0x12,
  op_mode_sense6 = 0x1a,
  op_unmap = 0x42,
  op_persistent_reserve_in = 0x5e,
  op_persistent_reserve_out = 0x5f,
  op_read16 = 0x88,
  op_write16 = 0x8a,
  op_synchronize_cache16 = 0x91,
  op_write_same16 = 0x93,
  op_service_action_in16 = 0x9e,
  op_maintenance_in = 0xa3,
};
enum : std::uint8_t { action_read_capacity16 = 0x10, action_get_lba_status = 0x12 };
constexpr std::uint8_t action_report_operations = 0x0c;

Command command(std::string_view verb, std::uint8_t opcode, std::uint8_t length) {
  Command made{.length = length, .verb = verb};
  made.bytes[0] = opcode;
  return made;
}

template <class T>
void store(Command& into, std::size_t at, T value) {
  store_big<T>(reinterpret_cast<std::byte*>(into.bytes.data()) + at, value);
}

void store(Command& into, Blocks blocks) {
  store<std::uint64_t>(into, 2, blocks.first);
  store<std::uint32_t>(into, 10, blocks.count);
}

}  // namespace

Command test_unit_ready() {
  return command("look at", op_test_unit_ready, 6);
}

Command inquiry(std::uint16_t answer_bytes) {
  Command made = command("look at", op_inquiry, 6);
  store<std::uint16_t>(made, 3, answer_bytes);
  return made;
}

Command inquiry_page(std::uint8_t page, std::uint16_t answer_bytes) {
  Command made = inquiry(answer_bytes);
  made.bytes[1] = 1;
  made.bytes[2] = page;
  return made;
}

Command read_capacity16(std::uint32_t answer_bytes) {
  Command made = command("look at", op_service_action_in16, 16);
  made.bytes[1] = action_read_capacity16;
  store<std::uint32_t>(made, 10, answer_bytes);
  return made;
}

Command mode_sense6(std::uint8_t page, std::uint8_t answer_bytes) {
  Command made = command("look at", op_mode_sense6, 6);
  made.bytes[2] = page;
  made.bytes[4] = answer_bytes;
  return made;
}

Command report_operation(std::uint8_t opcode, std::uint32_t answer_bytes) {
  Command made = command("look at", op_maintenance_in, 12);
  made.bytes[1] = action_report_operations;
  made.bytes[2] = 1;  // of one opcode
  made.bytes[3] = opcode;
  store<std::uint32_t>(made, 6, answer_bytes);
  return made;
}

Command get_lba_status(std::uint64_t first, std::uint32_t answer_bytes) {
  Command made = command("map", op_service_action_in16, 16);
  made.bytes[1] = action_get_lba_status;
  store(made, {.first = first, .count = answer_bytes});
  return made;
}

Command read16(Blocks blocks) {
  Command made = command("read", op_read16, 16);
  store(made, blocks);
  return made;
}

Command write16(Blocks blocks, bool fua) {
  Command made = command("write", op_write16, 16);
  made.changes_content = true;
  made.bytes[1] = fua ? 0x08 : 0;
  store(made, blocks);
  return made;
}

Command write_same16(Blocks blocks, bool may_unmap) {
  Command made = command("zero", op_write_same16, 16);
  made.changes_content = true;
  made.bytes[1] = may_unmap ? 0x08 : 0;
  store(made, blocks);
  return made;
}

Command unmap() {
  Command made = command("discard", op_unmap, 10);
  made.changes_content = true;
  store<std::uint16_t>(made, 7, 24);
  return made;
}

std::array<std::byte, 24> unmap_parameters(Blocks blocks) {
  std::array<std::byte, 24> list{};
  store_big<std::uint16_t>(list.data(), 22);      // bytes that follow
  store_big<std::uint16_t>(list.data() + 2, 16);  // of ranges
  store_big<std::uint64_t>(list.data() + 8, blocks.first);
  store_big<std::uint32_t>(list.data() + 16, blocks.count);
  return list;
}

Command synchronize_cache16() {
  return command("flush", op_synchronize_cache16, 16);  // from block 0, and no count: all
}

Command persistent_reserve_in(ReserveIn action, std::uint16_t answer_bytes) {
  Command made = command("look at the reservation of", op_persistent_reserve_in, 10);
  made.bytes[1] = static_cast<std::uint8_t>(action);
  store<std::uint16_t>(made, 7, answer_bytes);
  return made;
}

Command persistent_reserve_out(ReserveOut action) {
  Command made = command("reserve", op_persistent_reserve_out, 10);
  made.bytes[1] = static_cast<std::uint8_t>(action);
  if (action != ReserveOut::register_and_ignore) made.bytes[2] = reserve_type;
  store<std::uint32_t>(made, 5, 24);
  return made;
}

std::array<std::byte, 24> reserve_parameters(std::uint64_t key, std::uint64_t other) {
  std::array<std::byte, 24> list{};
  store_big<std::uint64_t>(list.data(), key);
  store_big<std::uint64_t>(list.data() + 8, other);
  return list;
}

}  // namespace diskferry::iscsi
