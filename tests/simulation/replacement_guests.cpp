// Guests of a simulated gateway, and what must be. See replacement_trial.hpp.
#include "tests/simulation/replacement_trial.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace diskferry::sim {
using std::chrono::milliseconds;
using test::sector_bytes;

// --- guests ---

Task<Result<void>> ReplacementTrial::use(unsigned guest) {
  const unsigned disk = guest / guests_per_disk;
  while (steps_left_[guest] > 0 && !is_dead_ && problem_.empty()) {
    --steps_left_[guest];
    const auto what = world_.random(20);
    if (what < 8) {
      co_await write(disk, random_range(what == 0 ? 200 : 9));
    } else if (what < 10) {
      co_await zero(disk, random_range(60), world_.one_in(2));
    } else if (what < 13) {
      co_await read(disk, random_range(40));
    } else if (what < 15) {
      co_await flush(disk);
    } else {
      DISKFERRY_CO_CHECK(co_await world_.clock().sleep_for(milliseconds(world_.random(course_.rest_ms))));
    }
  }
  co_return Result<void>{};
}

Range ReplacementTrial::random_range(std::uint64_t sectors_most) {
  const std::uint64_t sectors = course_.size_bytes / sector_bytes;
  const std::uint64_t first = world_.random(world_.one_in(2) ? sectors : sectors / 8);
  return {first * sector_bytes, std::min(sectors - first, 1 + world_.random(sectors_most)) * sector_bytes};
}

Task<void> ReplacementTrial::write(unsigned disk, Range range) {
  std::vector<std::byte> bytes(range.length);
  const std::uint64_t content = 100 + ++contents_;
  test::fill_sectors(bytes, content, range.offset / sector_bytes);
  const Charge before = charge_of(disk);
  const auto token = models_[disk].begin(range, content);
  trace("write", disk, range, "...");
  const auto hold = exports_->use(name_of(disk));
  auto done = world_.one_in(2) ? hold.device().try_write(range.offset, bytes) : std::nullopt;
  if (!done) done = co_await hold.device().write(range.offset, bytes, {.fua = world_.one_in(8)});
  if (*done) models_[disk].end(token);
  trace("write", disk, range, *done ? "done" : "failed");
  if (*done) check_charge(disk, range);
  note(*done, "write", before);
}
Task<void> ReplacementTrial::zero(unsigned disk, Range range, bool is_discard) {
  const Charge before = charge_of(disk);
  const auto token = models_[disk].begin(range, 0);
  trace("zero", disk, range, "...");
  const auto hold = exports_->use(name_of(disk));
  const auto done = is_discard ? co_await hold.device().discard(range)
                               : co_await hold.device().write_zeroes(range, {.may_unmap = world_.one_in(2)});
  if (done && !is_discard) models_[disk].end(token);
  trace("zero", disk, range, done ? "done" : "failed");
  if (done && !is_discard) check_charge(disk, range);
  note(done, "zero", before);
}
Task<void> ReplacementTrial::read(unsigned disk, Range range) {
  std::vector<std::byte> bytes(range.length);
  const Charge before = charge_of(disk);
  const auto since = models_[disk].now();
  const auto hold = exports_->use(name_of(disk));
  const auto done = co_await hold.device().read(range.offset, bytes);
  if (done) report("a read", models_[disk].check(bytes, range.offset, since));
  note(done, "read", before);
}
Task<void> ReplacementTrial::flush(unsigned disk) {
  const Charge before = charge_of(disk);
  const auto hold = exports_->use(name_of(disk));
  note(co_await hold.device().flush(), "flush", before);
}

// --- what must be ---

/// A guest sees an error where what is in charge was cut off for longer than anybody waits, and nowhere else.
void ReplacementTrial::note(const Result<void>& done, std::string_view verb, const Charge& before) {
  if (done || is_dead_) return;
  ++failed_guests_;
  const Charge now = charge_of(before.disk);
  const auto has_failed = [&](bool is_new) {
    return is_new ? now.given_up_new != before.given_up_new : now.given_up_old != before.given_up_old;
  };
  if (!has_failed(before.is_new) && !has_failed(now.is_new)) report(verb, done.error().message());
}

/// What was acknowledged is at the side that the record names.
void ReplacementTrial::check_charge(unsigned disk, Range range) {
  if (!course_.has_cuts() || is_dead_) return;
  const std::span<const std::byte> all = volume_of(disk, is_replaced(disk)).platter.current;
  report("at the side in charge",
         models_[disk].check(all.subspan(range.offset, range.length), range.offset, models_[disk].now()));
}

void ReplacementTrial::report(std::string_view when, const std::string& problem) {
  if (problem.empty() || !problem_.empty() || is_void_) return;
  problem_ = fmt::format("{}: {}", when, problem);
  world_.trace(problem_);
}
void ReplacementTrial::trace(const char* verb, unsigned disk, Range range, const char* what) {
  world_.trace(fmt::format("guest of {}: {} {}+{} {}", disk, verb, range.offset / sector_bytes,
                           range.length / sector_bytes, what));
}

void ReplacementTrial::places_changed() {
  check_same();
  // When little is noted, what is not noted is found.
  die_soon(3, 100);
  for (unsigned i = 0; i < course_.disks; ++i) {
    Volume& in_charge = volume_of(i, is_replaced(i));
    heal(in_charge.platter);
    begin_charge(i);
    // Lost after it was made durable: no mirror can help guests then.
    if (in_charge.is_lost() && !is_dead_) is_void_ = true;
  }
  note_charge();
}
/// When a change of places is written down, both sides are the same, durably.
void ReplacementTrial::check_same() {
  for (unsigned i = 0; i < course_.disks; ++i) {
    const auto& from = volume_of(i, false).platter.durable;
    const auto& to = volume_of(i, true).platter.durable;
    const auto differs = std::ranges::mismatch(from, to).in1;
    if (differs != from.end())
      report("at the commit", fmt::format("disk {} differs in sector {}", i,
                                          static_cast<std::uint64_t>(differs - from.begin()) / sector_bytes));
  }
}

/// What a later process finds noted is true, whichever way it goes on.
void ReplacementTrial::check_maps() {
  const auto phase = phase_named(journal_.job().phase);
  if (is_final(journal_.job().status) || !phase || *phase < Phase::prepared || *phase >= Phase::released)
    return;
  for (unsigned i = 0; i < course_.disks; ++i) {
    const auto found = maps_.find(fmt::format("{}/{}-{}.map", folder_.path(), journal_.job().id, i));
    if (found != maps_.end() && volume_of(i, !is_replaced(i)).exists) check_map(i, found->second);
  }
}

/// A granule that is not noted is the same on both sides, and can not be lost at the one that follows.
void ReplacementTrial::check_map(unsigned disk, std::string_view file) {
  constexpr std::size_t header_bytes = 4096;  // difference_file.cpp
  const auto& here = volume_of(disk, is_replaced(disk)).platter.current;
  const auto& there = volume_of(disk, !is_replaced(disk)).platter.durable;
  for (std::uint64_t at = 0; at < here.size(); at += granule_bytes) {
    const std::uint64_t granule = at / granule_bytes;
    const auto byte = static_cast<unsigned char>(file.at(header_bytes + granule / 8));
    if ((byte >> granule % 8 & 1) != 0) continue;
    const std::size_t length = std::min<std::size_t>(granule_bytes, here.size() - at);
    if (std::memcmp(here.data() + at, there.data() + at, length) != 0)
      report("at the beginning",
             fmt::format("granule {} of {} differs and is not noted", granule, name_of(disk)));
  }
}

Task<void> ReplacementTrial::check_end() {
  report("storages", storages_.problem());
  report("the record", journal_.problem());
  for (unsigned i = 0; i < course_.disks; ++i) {
    std::vector<std::byte> all(course_.size_bytes);
    const auto since = models_[i].now();
    const auto done = co_await exports_->use(name_of(i)).device().read(0, all);
    if (!done) report("at the end", done.error().message());
    report("at the end", models_[i].check(all, 0, since));
    // One that was cancelled too late has ended without having been released.
    const std::string& phase = journal_.job().phase;
    if ((phase == "released" && !is_replaced(i)) || (phase == "aborted" && is_replaced(i)))
      report("at the end", fmt::format("{} is on the wrong side of a job that is {}", name_of(i), phase));
    const std::string wanted = is_replaced(i) ? course_.request.disks[i].uri : source_of(i);
    if (exports_->place(name_of(i)) != wanted)
      report("at the end", fmt::format("{} is at {}", name_of(i), exports_->place(name_of(i))));
  }
}

}  // namespace diskferry::sim
