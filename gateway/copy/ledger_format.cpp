// The bytes of a ledger: encoding, and decoding that trusts nothing.
#include "diskferry/units.hpp"
#include "gateway/copy/ledger.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <xxhash.h>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr std::uint32_t record_magic = 0x44464c31;  // "DFL1"
constexpr std::uint32_t header_type = 1;
constexpr std::uint32_t entries_type = 2;
constexpr std::size_t front_bytes = 16;
constexpr std::size_t checksum_bytes = 8;
constexpr std::size_t entry_bytes = 32;
constexpr std::uint64_t length_mask = (std::uint64_t{1} << 56) - 1;

template <class T>
void put(std::string& text, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_big(bytes.data(), value);
  text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::string record_of(std::uint32_t type, std::string_view payload) {
  std::string record;
  record.reserve(front_bytes + payload.size() + checksum_bytes);
  put(record, record_magic);
  put(record, type);
  put(record, static_cast<std::uint64_t>(payload.size()));
  record += payload;
  put(record, static_cast<std::uint64_t>(XXH3_64bits(record.data(), record.size())));
  return record;
}

json::value to_json(const LedgerLayer& layer) {
  const LayerIdentity& id = layer.identity;
  return {{"uri", layer.uri},      {"device", id.device},           {"inode", id.inode},
          {"size", id.size_bytes}, {"modified_ns", id.modified_ns}, {"header_hash", id.header_hash}};
}

LedgerLayer layer_from(const json::value& value) {
  return {.uri = json::value_to<std::string>(value.at("uri")),
          .identity = {.device = value.at("device").to_number<std::uint64_t>(),
                       .inode = value.at("inode").to_number<std::uint64_t>(),
                       .size_bytes = value.at("size").to_number<std::uint64_t>(),
                       .modified_ns = value.at("modified_ns").to_number<std::int64_t>(),
                       .header_hash = value.at("header_hash").to_number<std::uint64_t>()}};
}

LedgerHeader header_from(const json::value& value) {
  LedgerHeader header;
  header.source_bytes = value.at("source_bytes").to_number<std::uint64_t>();
  header.target = json::value_to<std::string>(value.at("target"));
  header.target_format = json::value_to<std::string>(value.at("target_format"));
  header.target_identity = json::value_to<std::string>(value.at("target_identity"));
  header.target_bytes = value.at("target_bytes").to_number<std::uint64_t>();
  header.options = json::value_to<std::string>(value.at("options"));
  for (const json::value& layer : value.at("source").as_array()) header.source.push_back(layer_from(layer));
  return header;
}

bool is_state(std::uint64_t value) {
  return value >= static_cast<std::uint64_t>(PieceState::copied) &&
         value <= static_cast<std::uint64_t>(PieceState::verified_zero);
}

}  // namespace

std::string encode_header(const LedgerHeader& header) {
  json::array layers;
  for (const LedgerLayer& layer : header.source) layers.push_back(to_json(layer));
  const json::value value{{"version", 1},
                          {"source", std::move(layers)},
                          {"source_bytes", header.source_bytes},
                          {"target", header.target},
                          {"target_format", header.target_format},
                          {"target_identity", header.target_identity},
                          {"target_bytes", header.target_bytes},
                          {"options", header.options}};
  return record_of(header_type, json::serialize(value));
}

std::string encode_entries(std::span<const Piece> entries) {
  std::string payload;
  payload.reserve(entries.size() * entry_bytes);
  for (const Piece& entry : entries) {
    put(payload, entry.range.offset);
    put(payload, (static_cast<std::uint64_t>(entry.state) << 56) | (entry.range.length & length_mask));
    put(payload, entry.hash.high);
    put(payload, entry.hash.low);
  }
  return record_of(entries_type, payload);
}

std::optional<std::span<const std::byte>> LedgerReader::record(std::uint32_t type) {
  const auto rest = bytes_.subspan(at_);
  if (rest.size() < front_bytes + checksum_bytes) return std::nullopt;
  const auto payload_bytes = load_big<std::uint64_t>(rest.data() + 8);
  if (load_big<std::uint32_t>(rest.data()) != record_magic ||
      load_big<std::uint32_t>(rest.data() + 4) != type || payload_bytes > record_bytes_max ||
      payload_bytes > rest.size() - front_bytes - checksum_bytes)
    return std::nullopt;
  const std::size_t checked_bytes = front_bytes + payload_bytes;
  if (XXH3_64bits(rest.data(), checked_bytes) != load_big<std::uint64_t>(rest.data() + checked_bytes))
    return std::nullopt;
  at_ += checked_bytes + checksum_bytes;
  return rest.subspan(front_bytes, payload_bytes);
}

Result<LedgerHeader> LedgerReader::header() {
  const auto payload = record(header_type);
  if (!payload || payload->size() > header_bytes_max)
    return unexpected(fail(ErrorKind::corrupt, "read ledger").why("it has no whole header"));
  try {
    const std::string_view text(reinterpret_cast<const char*>(payload->data()), payload->size());
    const json::value value = json::parse(text);
    if (value.at("version").to_number<int>() != 1)
      return unexpected(fail(ErrorKind::unsupported, "read ledger").why("it was written by another version"));
    return header_from(value);
  } catch (const std::exception& problem) {
    return unexpected(fail(ErrorKind::corrupt, "read ledger").why(printable(problem.what())));
  }
}

std::vector<Piece> LedgerReader::next() {
  const std::uint64_t before = at_;
  const auto payload = record(entries_type);
  std::vector<Piece> entries;
  if (!payload) return entries;
  for (std::size_t at = 0; at + entry_bytes <= payload->size(); at += entry_bytes) {
    const std::byte* from = payload->data() + at;
    const auto state_and_length = load_big<std::uint64_t>(from + 8);
    const Range range{load_big<std::uint64_t>(from), state_and_length & length_mask};
    if (!is_state(state_and_length >> 56) || range.offset > UINT64_MAX - range.length) {
      at_ = before;  // a checksum that fits and content that does not: nothing after this is believed
      return {};
    }
    entries.push_back({range,
                       static_cast<PieceState>(state_and_length >> 56),
                       {load_big<std::uint64_t>(from + 16), load_big<std::uint64_t>(from + 24)}});
  }
  return entries;
}

std::string difference(const LedgerHeader& then, const LedgerHeader& now) {
  if (then.source.size() != now.source.size())
    return fmt::format("the source had {} layers and has {} now", then.source.size(), now.source.size());
  for (std::size_t i = 0; i < now.source.size(); ++i) {
    if (then.source[i].uri != now.source[i].uri)
      return fmt::format("the source was {}, not {}", then.source[i].uri, now.source[i].uri);
    if (then.source[i].identity != now.source[i].identity)
      return fmt::format("{} has changed since", now.source[i].uri);
  }
  if (then.source_bytes != now.source_bytes) return "the source has another size";
  if (then.target != now.target) return fmt::format("the target was {}, not {}", then.target, now.target);
  if (then.target_identity != now.target_identity)
    return fmt::format("{} is not the file that was written", now.target);
  if (then.target_format != now.target_format || then.target_bytes != now.target_bytes)
    return "the target has another format or size";
  if (then.options != now.options)
    return fmt::format("the options were '{}', not '{}'", then.options, now.options);
  return {};
}

}  // namespace diskferry
