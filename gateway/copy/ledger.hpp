// The ledger: a durable, append-only record of what a copy has finished, so that an interrupted copy can go
// on and a finished one can prove what it did. A record is only written once the data it speaks of is durable
// at the target; what is not recorded was in flight and is copied again.
//
// File: records one after the other, integers big-endian:
//   u32 magic "DFL1" | u32 type | u64 payload bytes | payload | u64 XXH3-64 of all of it before
// Type 1, once, first: the header, JSON (its fields: LedgerHeader). Type 2: entries of 32 bytes each. A torn
// or damaged record ends the ledger: it and what follows count as never written.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/image/image.hpp"
#include "gateway/copy/piece.hpp"
#include "gateway/copy/range_set.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry {

struct LedgerLayer {
  std::string uri;
  LayerIdentity identity;
  bool operator==(const LedgerLayer&) const = default;
};

/// What the two sides were, precisely enough not to go on with others.
struct LedgerHeader {
  std::vector<LedgerLayer> source;  ///< every layer, top first, and its data file
  std::uint64_t source_bytes = 0;
  std::string target;
  std::string target_format;
  std::string target_identity{};  ///< VolumeFacts::identity; empty: not known
  std::uint64_t target_bytes = 0;
  std::string options;  ///< those that decide what is written
  bool operator==(const LedgerHeader&) const = default;
};

/// Why a copy with `now` must not go on from `then`, in words; empty when it may.
std::string difference(const LedgerHeader& then, const LedgerHeader& now);

// The format. Pure.
std::string encode_header(const LedgerHeader& header);
std::string encode_entries(std::span<const Piece> entries);
/// Reads records one by one from hostile bytes.
class LedgerReader {
 public:
  /// No header is longer: a thousand layers with long names. No record is longer than record_bytes_max.
  static constexpr std::uint64_t header_bytes_max = 4u << 20;
  static constexpr std::uint64_t record_bytes_max = 8u << 20;

  explicit LedgerReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// Errors: corrupt (no whole header, or one that makes no sense).
  Result<LedgerHeader> header();
  /// The entries of the next record; empty at the end, be it torn or not.
  std::vector<Piece> next();
  /// Where the last whole record ended.
  std::uint64_t valid_bytes() const noexcept { return at_; }

 private:
  std::optional<std::span<const std::byte>> record(std::uint32_t type);
  std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;
};

/// The file. Thread: one task at a time. Lifetime: of the context.
class Ledger {
 public:
  /// Longest record of entries; a longer list becomes several.
  static constexpr std::size_t entries_per_record = 65536;

  /// Begins a new ledger; one that is there is replaced. Errors: permission, no_space, not_found, io.
  static Task<Result<std::unique_ptr<Ledger>>> create(DriverContext& context, std::string path,
                                                      LedgerHeader header);
  struct Loaded {
    std::unique_ptr<Ledger> ledger;
    LedgerHeader header;
    RangeSet done;
  };
  /// Goes on with the ledger of an interrupted copy. Errors: not_found (there is none), corrupt, in_use
  /// (that copy still runs), io.
  static Task<Result<Loaded>> load(DriverContext& context, std::string path);

  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Appends and waits until it is durable. Precondition: the data is. Errors: no_space, io.
  Task<Result<void>> append(std::vector<Piece> entries);
  /// Calls `visit` for the entries, a record at a time, until it fails.
  using Visit = std::function<Task<Result<void>>(std::vector<Piece>)>;
  Task<Result<void>> replay(Visit visit);
  /// Deletes the file: the copy is complete.
  Task<Result<void>> remove();
  const std::string& path() const noexcept { return path_; }
  std::uint64_t appends() const noexcept { return appends_; }

 private:
  Ledger(DriverContext& context, std::string path, int fd)
      : context_(context), path_(std::move(path)), fd_(fd) {}
  /// Keeps storage ready for the next records, so that a full file system does not cost what was done.
  void reserve();

  DriverContext& context_;
  const std::string path_;
  int fd_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t appends_ = 0;
  std::uint64_t reserved_to_ = 0;  // storage that the file system keeps for it
};

/// Where the ledger of a copy to `target` lives: beside a regular file, else in $XDG_STATE_HOME/diskferry (or
/// ~/.local/state/diskferry) under a hash of the target's name.
std::string ledger_path(const ImageUri& target);

}  // namespace diskferry
