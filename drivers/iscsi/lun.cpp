#include "drivers/iscsi/lun.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "drivers/iscsi/status.hpp"
#include "drivers/support/world_wide_names.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace diskferry::iscsi {
namespace {

constexpr std::uint32_t block_bytes_min = 512;
constexpr std::uint32_t block_bytes_max = 65536;
constexpr std::size_t name_bytes_max = 256;

unsigned byte_at(Bytes bytes, std::size_t at) noexcept {
  return at < bytes.size() ? std::to_integer<unsigned>(bytes[at]) : 0;
}
bool has_bit(Bytes bytes, std::size_t at, unsigned bit) noexcept {
  return ((byte_at(bytes, at) >> bit) & 1) != 0;
}
/// 0 where the answer ends before.
template <class T>
T number_at(Bytes bytes, std::size_t at) noexcept {
  return at + sizeof(T) <= bytes.size() ? load_big<T>(bytes.data() + at) : T{0};
}

/// Of a vital product data page: what follows its header.
Bytes content_of(Bytes page) noexcept {
  if (page.size() < 4) return {};
  return page.subspan(4, std::min<std::size_t>(number_at<std::uint16_t>(page, 2), page.size() - 4));
}

std::string text_of(Bytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto is_blank = [](char c) { return c == ' ' || c == '\0'; };
  while (!text.empty() && is_blank(text.back())) text.pop_back();
  text.erase(0, text.find_first_not_of(' ') == std::string::npos ? text.size() : text.find_first_not_of(' '));
  return printable(std::string_view(text).substr(0, name_bytes_max));
}

std::string hex_of(Bytes bytes) {
  std::string text;
  for (const std::byte one : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(one));
  return text;
}

enum : unsigned { designator_eui = 2, designator_naa = 3, designator_group = 6, designator_name = 8 };
/// PROVISIONING STATUS of a descriptor (SBC-4, GET LBA STATUS) where the blocks are unmapped. Anchored ones
/// keep their storage. All others are mapped, or nobody knows.
enum : unsigned { status_deallocated = 1, status_anchored = 2 };

/// How far one designator of the LUN goes before others, as the kernel's /sys/block/*/device/wwid has it:
/// longer ones clash less. 0: not at all.
unsigned rank_of(unsigned type, Bytes content) {
  switch (type) {
    case designator_name:
      return 9;
    case designator_naa:
      switch (byte_at(content, 0) >> 4) {
        case 6:
          return 8;
        case 5:
          return 5;
        case 2:
          return 4;
        default:
          return 0;  // assigned locally, and so others may have it, too
      }
    case designator_eui:
      return content.size() == 16 ? 7 : content.size() == 12 ? 6 : content.size() == 8 ? 3 : 0;
    default:
      return 0;
  }
}

std::string name_of(unsigned type, Bytes content) {
  if (type == designator_naa) return "naa." + hex_of(content);
  if (type == designator_eui) return "eui." + hex_of(content);
  return text_of(content);
}

}  // namespace

std::string difference(const LunFacts& then, const LunFacts& now) {
  if (then.world_wide_name != now.world_wide_name || then.serial != now.serial ||
      then.designators != now.designators)
    return "another LUN has this number now";
  if (then.block_bytes != now.block_bytes) return "its blocks have another size";
  if (now.size_bytes < then.size_bytes) return "the LUN is smaller than it was";
  return {};
}

Result<void> take_inquiry(Bytes answer) {
  if (answer.size() < 5) return unexpected(fail(ErrorKind::protocol, "look at").why("the answer is cut off"));
  const unsigned qualifier = byte_at(answer, 0) >> 5;
  const unsigned type = byte_at(answer, 0) & 0x1f;
  if (qualifier != 0) return unexpected(no_such_lun({}));
  if (type != 0x00 && type != 0x0e)
    return unexpected(
        fail(ErrorKind::unsupported, "look at")
            .why(fmt::format("this LUN is no disk but a device of type {:#04x}", type))
            .remedy(type == 0x0c ? "LUN 0 is the controller of some targets: the disks begin at 1" : ""));
  return {};
}

std::vector<std::uint8_t> pages_in(Bytes answer) {
  std::vector<std::uint8_t> pages;
  for (const std::byte page : content_of(answer)) pages.push_back(std::to_integer<std::uint8_t>(page));
  return pages;
}

void take_serial(Bytes answer, LunFacts& facts) {
  facts.serial = text_of(content_of(answer));
}

void take_identification(Bytes answer, LunFacts& facts) {
  unsigned best = 0;
  for (Bytes rest = content_of(answer); rest.size() > 4;) {
    const std::size_t length = byte_at(rest, 3);
    if (length == 0 || length > rest.size() - 4) return;
    const unsigned association = (byte_at(rest, 1) >> 4) & 3;
    const unsigned type = byte_at(rest, 1) & 0xf;
    const Bytes content = rest.subspan(4, length);
    rest = rest.subspan(4 + length);
    if (association != 0) continue;  // with a port, or the whole target
    // Groups of LUNs are made and changed while these are in use.
    if (type != designator_group) facts.designators += fmt::format("{:x}:{} ", type, hex_of(content));
    const unsigned rank = rank_of(type, content);
    if (rank <= best) continue;
    std::string name = name_of(type, content);
    if (!is_unique_in_the_world(name)) continue;
    best = rank;
    facts.world_wide_name = std::move(name);
  }
}

void take_block_limits(Bytes answer, LunFacts& facts) {
  facts.transfer_blocks_max = number_at<std::uint32_t>(answer, 8);
  facts.transfer_blocks_best = number_at<std::uint32_t>(answer, 12);
  facts.unmap_blocks_max = number_at<std::uint32_t>(answer, 20);
  facts.write_same_blocks_max = number_at<std::uint64_t>(answer, 36);
}

void take_characteristics(Bytes answer, LunFacts& facts) {
  const unsigned rate = number_at<std::uint16_t>(answer, 4);
  facts.is_rotational = rate > 1;  // 1: it does not rotate; 0: it does not say
}

void take_provisioning(Bytes answer, LunFacts& facts) {
  facts.can_unmap = has_bit(answer, 5, 7);
  facts.can_write_same_unmap = has_bit(answer, 5, 6);
}

Result<void> take_capacity(Bytes answer, LunFacts& facts) {
  if (answer.size() < 12)
    return unexpected(fail(ErrorKind::protocol, "look at").why("the answer is cut off"));
  const std::uint64_t blocks = number_at<std::uint64_t>(answer, 0) + 1;  // of an empty one 0
  const std::uint32_t block_bytes = number_at<std::uint32_t>(answer, 8);
  if (!std::has_single_bit(block_bytes) || block_bytes < block_bytes_min || block_bytes > block_bytes_max)
    return unexpected(fail(ErrorKind::unsupported, "look at")
                          .why(fmt::format("its blocks have {} bytes", block_bytes))
                          .remedy("give the LUN blocks of 512 or 4096 bytes"));
  if (blocks > INT64_MAX / block_bytes)
    return unexpected(fail(ErrorKind::protocol, "look at").why("it says that it is larger than any disk"));
  facts.size_bytes = blocks * block_bytes;
  facts.block_bytes = block_bytes;
  const unsigned exponent = byte_at(answer, 13) & 0xf;
  facts.physical_block_bytes = std::min(block_bytes << exponent, block_bytes_max);
  facts.is_thin = has_bit(answer, 14, 7);
  facts.unmapped_reads_zero = has_bit(answer, 14, 6);
  return {};
}

void take_mode(Bytes answer, LunFacts& facts) {
  facts.knows_mode = true;
  facts.is_write_protected = has_bit(answer, 2, 7);
  facts.can_fua = has_bit(answer, 2, 4);
  const std::size_t page = 4 + byte_at(answer, 3);  // after the block descriptors
  if (page + 2 < answer.size() && (byte_at(answer, page) & 0x3f) == 0x08)
    facts.may_have_cache = has_bit(answer, page + 2, 2);
}

bool is_operation_supported(Bytes answer) {
  const unsigned support = byte_at(answer, 1) & 7;
  return support == 3 || support == 5;
}

std::vector<Extent> extents_in(Bytes answer, Range wanted, const LunFacts& facts, std::size_t extents_max) {
  std::vector<Extent> extents;
  if (answer.size() < 8) return extents;
  const std::uint32_t follows = number_at<std::uint32_t>(answer, 0);
  Bytes rest = answer.first(std::min<std::uint64_t>(answer.size(), std::uint64_t{4} + follows));
  rest = rest.size() < 8 ? Bytes{} : rest.subspan(8);
  const std::uint64_t blocks = facts.size_bytes / facts.block_bytes;
  for (std::uint64_t at = wanted.offset; rest.size() >= 16 && at < wanted.end(); rest = rest.subspan(16)) {
    const auto first = number_at<std::uint64_t>(rest, 0);
    const auto count = number_at<std::uint32_t>(rest, 8);
    const unsigned status = byte_at(rest, 12) & 0xf;
    if (first >= blocks || first * facts.block_bytes > at) break;
    const std::uint64_t end =
        std::min((first + std::min<std::uint64_t>(count, blocks - first)) * facts.block_bytes, wanted.end());
    if (end <= at) continue;
    Extent extent{.offset = at, .length = end - at};
    extent.is_hole = status == status_deallocated;
    extent.reads_zero =
        (status == status_deallocated || status == status_anchored) && facts.unmapped_reads_zero;
    at = end;
    if (extents.size() == extents_max && !continues(extents.back(), extent)) break;
    append_merged(extents, extent);
  }
  return extents;
}

}  // namespace diskferry::iscsi
