// Parsing and writing of the qcow2 header. No I/O; every length and offset is checked before it is used.
#include "drivers/image/qcow2/header.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "drivers/image/qcow2/tables.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {

constexpr std::size_t v2_bytes = 72;
constexpr std::size_t v3_bytes_min = 104;
constexpr std::size_t compression_type_at = 104;
constexpr std::size_t feature_name_bytes = 48;  // type, bit, 46 bytes of name

/// Reads big-endian fields at fixed positions; the caller has checked that they are there.
struct Fields {
  std::span<const std::byte> bytes;
  std::uint32_t u32(std::size_t at) const { return load_big<std::uint32_t>(bytes.data() + at); }
  std::uint64_t u64(std::size_t at) const { return load_big<std::uint64_t>(bytes.data() + at); }
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Parser {
  std::span<const std::byte> area;
  std::string_view name;
  Header header{};
  std::size_t header_bytes = v2_bytes;
  std::uint64_t backing_offset = 0;

  Error bad(ErrorKind kind, std::string why) const {
    return fail(kind, "open qcow2 image", std::string(name)).why(std::move(why));
  }
  Error corrupt(std::string why) const { return bad(ErrorKind::corrupt, std::move(why)); }

  Result<void> fixed_fields();
  Result<void> length_and_compression();
  Result<void> backing();
  Result<void> all_extensions();
  Result<void> extension(std::uint32_t type, std::span<const std::byte> data);
  Result<void> features() const;
  Result<void> limits() const;
};

Result<void> Parser::fixed_fields() {
  const Fields in{area};
  header.version = in.u32(4);
  backing_offset = in.u64(8);
  header.cluster_bits = in.u32(20);
  header.size_bytes = in.u64(24);
  header.crypt_method = in.u32(32);
  header.l1_entries = in.u32(36);
  header.l1_offset = in.u64(40);
  header.refcount_table_offset = in.u64(48);
  header.refcount_table_clusters = in.u32(56);
  header.snapshot_count = in.u32(60);
  header.snapshots_offset = in.u64(64);
  if (header.version == 2) return {};
  if (area.size() < v3_bytes_min) return unexpected(corrupt("the file ends inside the header"));
  header.incompatible_features = in.u64(72);
  header.compatible_features = in.u64(80);
  header.autoclear_features = in.u64(88);
  header.refcount_order = in.u32(96);
  header_bytes = in.u32(100);
  return {};
}

Result<void> Parser::length_and_compression() {
  if (header.version == 2) return {};
  if (header_bytes < v3_bytes_min || header_bytes % 8 != 0 || header_bytes > header.cluster_bytes())
    return unexpected(corrupt(fmt::format(
        "header length {} is not a multiple of 8 from {} to the cluster size", header_bytes, v3_bytes_min)));
  if (header_bytes > area.size()) return unexpected(corrupt("the file ends inside the header"));
  const auto further = area.subspan(v3_bytes_min, header_bytes - v3_bytes_min);
  header.further_fields.assign(further.begin(), further.end());
  const unsigned type = further.empty() ? 0 : std::to_integer<unsigned>(further[0]);
  const bool has_bit = (header.incompatible_features & incompatible::compression) != 0;
  if (type > 1)
    return unexpected(bad(ErrorKind::unsupported, fmt::format("unknown compression type {}", type)));
  if (has_bit != (type != 0))
    return unexpected(corrupt("the compression type and its feature bit contradict each other"));
  header.compression_type = static_cast<CompressionType>(type);
  return {};
}

Result<void> Parser::backing() {
  const std::uint32_t length = Fields{area}.u32(16);
  if (backing_offset == 0) return {};
  if (length > backing_name_max)
    return unexpected(
        corrupt(fmt::format("the backing name has {} bytes, the limit is {}", length, backing_name_max)));
  if (backing_offset < header_bytes || backing_offset > header.cluster_bytes() ||
      length > header.cluster_bytes() - backing_offset)
    return unexpected(corrupt("the backing name lies outside the first cluster").at(backing_offset, length));
  if (backing_offset + length > area.size())
    return unexpected(corrupt("the file ends inside the backing name"));
  header.backing_name = text_of(area.subspan(backing_offset, length));
  if (header.backing_name.find('\0') != std::string::npos)
    return unexpected(corrupt("the backing name contains a zero byte"));
  return {};
}

Result<void> Parser::all_extensions() {
  const std::uint64_t end =
      std::min<std::uint64_t>(area.size(), backing_offset != 0 ? backing_offset : header.cluster_bytes());
  std::uint64_t at = header_bytes;
  while (at + 8 <= end) {
    const std::uint32_t type = Fields{area}.u32(at);
    const std::uint32_t length = Fields{area}.u32(at + 4);
    at += 8;
    if (type == extension::end) break;
    if (length > end - at)
      return unexpected(
          corrupt(fmt::format("header extension 0x{:08x} is too large", type)).at(at - 8, length));
    const auto data = area.subspan(at, length);
    if (std::ranges::find(header.extensions, type, &HeaderExtension::type) != header.extensions.end())
      return unexpected(corrupt(fmt::format("header extension 0x{:08x} is there twice", type)));
    DISKFERRY_CHECK(extension(type, data));
    header.extensions.push_back({type, {data.begin(), data.end()}});
    at = align_up(at + length, 8);
  }
  return {};
}

Result<void> Parser::extension(std::uint32_t type, std::span<const std::byte> data) {
  const Fields in{data};
  switch (type) {
    case extension::backing_format:
      header.backing_format = text_of(data);
      break;
    case extension::data_file:
      header.data_file = text_of(data);
      if (header.data_file->find('\0') != std::string::npos)
        return unexpected(corrupt("the name of the data file contains a zero byte"));
      break;
    case extension::feature_names:
      for (std::size_t at = 0; at + feature_name_bytes <= data.size(); at += feature_name_bytes) {
        std::string text = text_of(data.subspan(at + 2, feature_name_bytes - 2));
        text.resize(std::min(text.find('\0'), text.size()));
        header.feature_names.push_back({.group = static_cast<FeatureGroup>(data[at]),
                                        .bit = std::to_integer<std::uint8_t>(data[at + 1]),
                                        .name = std::move(text)});
      }
      break;
    case extension::bitmaps:
      if (data.size() != 24)
        return unexpected(corrupt(fmt::format("the bitmaps extension has {} bytes, not 24", data.size())));
      header.bitmaps =
          BitmapsExtension{.count = in.u32(0), .directory_bytes = in.u64(8), .directory_offset = in.u64(16)};
      break;
    case extension::encryption:
      if (header.crypt_method != 2)
        return unexpected(corrupt("there is an encryption header, but the image is not LUKS-encrypted"));
      break;
    default:
      break;
  }
  return {};
}

Result<void> Parser::features() const {
  if (const std::uint64_t unknown = header.incompatible_features & ~incompatible::known; unknown != 0) {
    const auto bit = static_cast<unsigned>(std::countr_zero(unknown));
    return unexpected(
        bad(ErrorKind::unsupported, "the image needs a feature that this program does not know: " +
                                        feature_name(header, FeatureGroup::incompatible, bit)));
  }
  if (header.crypt_method != 0) {
    const char* method = header.crypt_method == 1   ? "AES"
                         : header.crypt_method == 2 ? "LUKS"
                                                    : "an unknown method";
    return unexpected(
        bad(ErrorKind::unsupported, fmt::format("the image is encrypted with {}", method))
            .remedy("decrypt it into a new image with qemu-img convert, or serve it with qemu-nbd"));
  }
  if (header.has_extended_l2() && header.cluster_bits < extended_l2_cluster_bits_min)
    return unexpected(corrupt("extended L2 entries need clusters of 16 KiB or more"));
  if (header.has_data_file() && (!header.data_file || header.data_file->empty()))
    return unexpected(corrupt("the image needs an external data file, but does not name it"));
  if (header.has_raw_data_file() && !header.has_data_file())
    return unexpected(corrupt("the image declares a raw external data file, but has none"));
  if (header.has_raw_data_file() && !header.backing_name.empty())
    return unexpected(corrupt("an image with a raw external data file cannot have a backing image"));
  if ((header.autoclear_features & autoclear::bitmaps) != 0 && !header.bitmaps && header.version == 3)
    return {};  // nothing to read; QEMU opens such images as well
  return {};
}

Result<void> Parser::limits() const {
  const std::uint64_t cluster = header.cluster_bytes();
  const Geometry geometry(header);
  if (header.size_bytes > INT64_MAX ||
      divide_up(header.size_bytes, geometry.l1_entry_covers_bytes()) > l1_bytes_max / 8)
    return unexpected(
        bad(ErrorKind::too_large,
            fmt::format("a disk of {} bytes does not fit into an L1 table of {} MiB with clusters "
                        "of {} bytes",
                        header.size_bytes, l1_bytes_max >> 20, cluster)));
  if (header.l1_entries > l1_bytes_max / 8)
    return unexpected(bad(ErrorKind::too_large, fmt::format("the L1 table has {} entries, the limit is {}",
                                                            header.l1_entries, l1_bytes_max / 8)));
  if (header.l1_entries < geometry.l1_entries_needed(header.size_bytes))
    return unexpected(corrupt(fmt::format("the L1 table has {} entries, too few for a disk of {} bytes",
                                          header.l1_entries, header.size_bytes)));
  const auto table = [&](std::string_view what, std::uint64_t offset) -> Result<void> {
    if (!is_aligned(offset, cluster) || offset > host_offset_max)
      return unexpected(
          corrupt(fmt::format("the {} offset is not a valid cluster address", what)).at(offset, 0));
    return {};
  };
  DISKFERRY_CHECK(table("L1 table", header.l1_offset));
  if (header.l1_entries != 0 && header.l1_offset == 0)
    return unexpected(corrupt("the L1 table lies in the header's cluster"));
  if (header.refcount_order > refcount_order_max)
    return unexpected(bad(ErrorKind::corrupt, fmt::format("refcounts of 2^{} bits; the limit is 64 bits",
                                                          header.refcount_order)));
  DISKFERRY_CHECK(table("refcount table", header.refcount_table_offset));
  // At offset 0 there is none either; reading does without, and the writer asks (Allocator::load).
  if (header.refcount_table_clusters == 0) return unexpected(corrupt("the image has no refcount table"));
  if (header.refcount_table_clusters > refcount_table_bytes_max >> header.cluster_bits)
    return unexpected(bad(ErrorKind::too_large,
                          fmt::format("the refcount table has {} clusters, the limit is "
                                      "{} MiB",
                                      header.refcount_table_clusters, refcount_table_bytes_max >> 20)));
  if (header.snapshot_count > snapshots_max)
    return unexpected(bad(ErrorKind::too_large, fmt::format("the image has {} snapshots, the limit is {}",
                                                            header.snapshot_count, snapshots_max)));
  if (header.snapshot_count != 0) DISKFERRY_CHECK(table("snapshot table", header.snapshots_offset));
  return {};
}

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}
template <class T>
void append_big(std::vector<std::byte>& out, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_big(bytes.data(), value);
  append(out, bytes);
}
void append_extension(std::vector<std::byte>& out, std::uint32_t type, std::span<const std::byte> data) {
  append_big(out, type);
  append_big(out, static_cast<std::uint32_t>(data.size()));
  append(out, data);
  out.resize(align_up(out.size(), 8));
}

std::vector<std::byte> encode_bitmaps(const BitmapsExtension& bitmaps) {
  std::vector<std::byte> data;
  append_big(data, bitmaps.count);
  append_big(data, std::uint32_t{0});
  append_big(data, bitmaps.directory_bytes);
  append_big(data, bitmaps.directory_offset);
  return data;
}
std::vector<std::byte> encode_feature_names(const std::vector<FeatureName>& names) {
  std::vector<std::byte> data;
  for (const FeatureName& one : names) {
    data.push_back(static_cast<std::byte>(one.group));
    data.push_back(static_cast<std::byte>(one.bit));
    const auto text = as_bytes(std::string_view(one.name).substr(0, feature_name_bytes - 2));
    append(data, text);
    data.resize(data.size() + (feature_name_bytes - 2 - text.size()));
  }
  return data;
}

/// The data of a known extension from the decoded fields; nullopt where the header has none.
std::optional<std::vector<std::byte>> encode_known(const Header& header, std::uint32_t type) {
  const auto text = [](const std::optional<std::string>& value) -> std::optional<std::vector<std::byte>> {
    if (!value) return std::nullopt;
    const auto bytes = as_bytes(*value);
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  switch (type) {
    case extension::backing_format:
      return text(header.backing_format);
    case extension::data_file:
      return text(header.data_file);
    case extension::bitmaps:
      return header.bitmaps ? std::optional(encode_bitmaps(*header.bitmaps)) : std::nullopt;
    default:
      return header.feature_names.empty() ? std::nullopt
                                          : std::optional(encode_feature_names(header.feature_names));
  }
}
constexpr std::array known_extensions{extension::backing_format, extension::data_file,
                                      extension::feature_names, extension::bitmaps};

}  // namespace

bool has_magic(std::span<const std::byte> start) noexcept {
  return start.size() >= 8 && load_big<std::uint32_t>(start.data()) == magic &&
         load_big<std::uint32_t>(start.data() + 4) >= 2;
}

Result<std::uint64_t> header_area_bytes(std::span<const std::byte> start, std::string_view name) {
  const auto bad = [&](ErrorKind kind, std::string why) {
    return unexpected(fail(kind, "open qcow2 image", std::string(name)).why(std::move(why)));
  };
  if (start.size() < 24) return bad(ErrorKind::corrupt, "the file ends inside the header");
  if (load_big<std::uint32_t>(start.data()) != magic) return bad(ErrorKind::corrupt, "not a qcow2 image");
  const auto version = load_big<std::uint32_t>(start.data() + 4);
  if (version != 2 && version != 3)
    return bad(ErrorKind::unsupported, fmt::format("qcow2 version {}; versions 2 and 3 are known", version));
  const auto bits = load_big<std::uint32_t>(start.data() + 20);
  if (bits < cluster_bits_min || bits > cluster_bits_max)
    return bad(ErrorKind::corrupt, fmt::format("clusters of 2^{} bytes; 2^{} to 2^{} are valid", bits,
                                               cluster_bits_min, cluster_bits_max));
  return std::uint64_t{1} << bits;
}

Result<Header> parse_header(std::span<const std::byte> area, std::string_view name) {
  DISKFERRY_TRY(const std::uint64_t wanted, header_area_bytes(area, name));
  Parser parser{.area = area.first(std::min<std::uint64_t>(area.size(), wanted)), .name = name};
  if (area.size() < v2_bytes) return unexpected(parser.corrupt("the file ends inside the header"));
  DISKFERRY_CHECK(parser.fixed_fields());
  DISKFERRY_CHECK(parser.length_and_compression());
  DISKFERRY_CHECK(parser.backing());
  DISKFERRY_CHECK(parser.all_extensions());
  DISKFERRY_CHECK(parser.features());
  DISKFERRY_CHECK(parser.limits());
  return std::move(parser.header);
}

Result<void> check_tables_inside(const Header& header, std::uint64_t storage_bytes, std::string_view name) {
  struct Table {
    std::string_view what;
    Range range;
  };
  const std::array tables{
      Table{"header", {0, header.header_bytes()}},
      Table{"L1 table", {header.l1_offset, std::uint64_t{header.l1_entries} * 8}},
      Table{"refcount table",
            {header.refcount_table_offset,
             header.refcount_table_offset == 0
                 ? 0
                 : std::uint64_t{header.refcount_table_clusters} << header.cluster_bits}},
      // Entries have 40 bytes and more.
      Table{"snapshot table", {header.snapshots_offset, std::uint64_t{header.snapshot_count} * 40}}};
  for (const Table& one : tables) {
    if (one.range.empty()) continue;
    const auto bad = [&](std::string why) {
      return unexpected(fail(ErrorKind::corrupt, "open qcow2 image", std::string(name))
                            .why(std::move(why))
                            .at(one.range.offset, one.range.length));
    };
    if (one.range.offset >= storage_bytes)
      return bad(fmt::format("the {} lies beyond the end of the file", one.what));
    // The tail of the last table may be missing from a file that was never written there; the L1 must be
    // whole.
    if (one.what == "L1 table" && !is_inside(one.range, storage_bytes))
      return bad("the file ends inside the L1 table");
    for (const Table& other : tables) {
      if (&other != &one && !intersect(one.range, other.range).empty())
        return bad(fmt::format("the {} overlaps the {}", one.what, other.what));
    }
  }
  return {};
}

Result<std::vector<std::byte>> serialize_header(const Header& header) {
  std::vector<std::byte> out;
  append_big(out, magic);
  append_big(out, header.version);
  append_big(out, std::uint64_t{0});  // backing name: set below
  append_big(out, static_cast<std::uint32_t>(header.backing_name.size()));
  append_big(out, static_cast<std::uint32_t>(header.cluster_bits));
  append_big(out, header.size_bytes);
  append_big(out, header.crypt_method);
  append_big(out, header.l1_entries);
  append_big(out, header.l1_offset);
  append_big(out, header.refcount_table_offset);
  append_big(out, header.refcount_table_clusters);
  append_big(out, header.snapshot_count);
  append_big(out, header.snapshots_offset);
  if (header.version >= 3) {
    append_big(out, header.incompatible_features);
    append_big(out, header.compatible_features);
    append_big(out, header.autoclear_features);
    append_big(out, static_cast<std::uint32_t>(header.refcount_order));
    append_big(out, header.header_bytes());
    append(out, header.further_fields);
    DISKFERRY_ASSERT(header.compression_type == CompressionType::zlib || !header.further_fields.empty(),
                     "a header with a compression type has the field for it");
    if (!header.further_fields.empty())
      out[compression_type_at] = static_cast<std::byte>(header.compression_type);
  }
  for (const HeaderExtension& one : header.extensions) {
    if (std::ranges::find(known_extensions, one.type) == known_extensions.end()) {
      append_extension(out, one.type, one.data);
    } else if (const auto data = encode_known(header, one.type)) {
      append_extension(out, one.type, *data);
    }
  }
  for (const std::uint32_t type : known_extensions) {
    if (std::ranges::find(header.extensions, type, &HeaderExtension::type) != header.extensions.end())
      continue;
    if (const auto data = encode_known(header, type)) append_extension(out, type, *data);
  }
  append_extension(out, extension::end, {});
  if (!header.backing_name.empty()) {
    store_big(out.data() + 8, static_cast<std::uint64_t>(out.size()));
    append(out, as_bytes(header.backing_name));
  }
  if (out.size() > header.cluster_bytes())
    return unexpected(
        fail(ErrorKind::too_large, "write qcow2 header")
            .why(fmt::format("{} bytes do not fit into a cluster of {}", out.size(), header.cluster_bytes()))
            .remedy("use larger clusters or a shorter backing name"));
  return out;
}

std::vector<FeatureName> known_feature_names() {
  return {{FeatureGroup::incompatible, 0, "dirty bit"},
          {FeatureGroup::incompatible, 1, "corrupt bit"},
          {FeatureGroup::incompatible, 2, "external data file"},
          {FeatureGroup::incompatible, 3, "compression type"},
          {FeatureGroup::incompatible, 4, "extended L2 entries"},
          {FeatureGroup::compatible, 0, "lazy refcounts"},
          {FeatureGroup::autoclear, 0, "bitmaps"},
          {FeatureGroup::autoclear, 1, "raw external data"}};
}

std::string feature_name(const Header& header, FeatureGroup group, unsigned bit) {
  const auto named = [&](const FeatureName& one) { return one.group == group && one.bit == bit; };
  if (const auto found = std::ranges::find_if(header.feature_names, named);
      found != header.feature_names.end() && !found->name.empty())
    return printable(found->name);
  const auto known = known_feature_names();
  if (const auto found = std::ranges::find_if(known, named); found != known.end()) return found->name;
  constexpr std::array groups{"incompatible", "compatible", "autoclear"};
  return fmt::format("{} feature bit {}", groups[std::min<std::size_t>(static_cast<std::size_t>(group), 2)],
                     bit);
}

}  // namespace diskferry::qcow2
