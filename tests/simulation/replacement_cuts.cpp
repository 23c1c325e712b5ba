// Storages that are cut off, and what may come to the side that is not in charge. See replacement_trial.hpp.
#include "tests/simulation/replacement_trial.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <string_view>

namespace diskferry::sim {
using test::sector_bytes;

namespace {
bool is_in_commit(std::string_view phase) {
  constexpr std::array<std::string_view, 4> all{"synchronized", "switching", "committed", "retained"};
  return std::ranges::find(all, phase) != all.end();
}

/// What a sector holds, and which it is.
std::uint64_t mark_of(std::uint64_t sector, std::span<const std::byte> bytes) {
  const std::hash<std::string_view> hash;
  return hash({reinterpret_cast<const char*>(bytes.data()), bytes.size()}) ^ (sector * 0x9E3779B97F4A7C15u);
}

/// Calls `each` with every sector of `range` that `disk` has.
template <class Each>
void for_sectors(std::span<const std::byte> disk, Range range, Each each) {
  for (std::uint64_t at = range.offset; at < range.end(); at += sector_bytes)
    each(at / sector_bytes, disk.subspan(at, std::min(sector_bytes, disk.size() - at)));
}
}  // namespace

Link::Cut random_cut(World& world) {
  constexpr std::array errors{ErrorKind::gone, ErrorKind::timed_out, ErrorKind::io};
  return {.loss = world.one_in(2) ? Link::Loss::requests : Link::Loss::answers,
          .patience_steps = 1 + world.random(world.one_in(2) ? 60 : 2000),
          .is_sent_again = world.one_in(2),
          .error = errors[world.random(errors.size())],
          .done_within_steps = 1 + world.random(1000)};
}

void ReplacementTrial::watch_cuts() {
  held_.resize(course_.disks);
  for (unsigned i = 0; i < course_.disks; ++i) {
    begin_charge(i);
    for (const bool is_new : {false, true}) {
      Platter& platter = volume_of(i, is_new).platter;
      platter.link.on_request = [this, i, is_new] { note_request(i, is_new); };
      platter.on_put = [this, i, is_new](Range range) { note_put(i, is_new, range); };
    }
  }
}

void ReplacementTrial::note_request(unsigned disk, bool is_new) {
  if (is_over_ || !is_in_commit(journal_.job().phase)) return;
  const PlannedCut& planned = course_.planned_cut;
  if (++requests_ != planned.at) return;
  if (planned.side != PlannedCut::Side::other)
    cut(volume_of(disk, is_new).platter, planned.how, planned.heals_after_steps);
  if (planned.side != PlannedCut::Side::its_own)
    cut(volume_of(disk, !is_new).platter, planned.how, planned.heals_after_steps);
}

void ReplacementTrial::cut(Platter& platter, const Link::Cut& how, std::uint64_t heals_after_steps) {
  world_.trace(fmt::format("a storage is cut off: {}",
                           how.loss == Link::Loss::answers ? "answers are lost" : "requests are lost"));
  platter.link.cut(world_, how);
  world_.after_steps(heals_after_steps, [&platter] { platter.link.heal(); });
}

void ReplacementTrial::cut_somebody_off() {
  if (cuts_ >= course_.cuts) return;
  ++cuts_;
  const auto disk = static_cast<unsigned>(world_.random(course_.disks));
  cut(volume_of(disk, world_.one_in(2)).platter, random_cut(world_), 1 + world_.random(3000));
}

void ReplacementTrial::heal_links() {
  for (unsigned i = 0; i < course_.disks; ++i)
    for (const bool is_new : {false, true}) volume_of(i, is_new).platter.link.heal();
}

bool ReplacementTrial::is_charge_cut_off() {
  for (unsigned i = 0; i < course_.disks; ++i)
    if (volume_of(i, is_replaced(i)).platter.link.is_cut()) return true;
  return false;
}

/// Requests to any storage that were not answered in time.
std::uint64_t ReplacementTrial::given_up() {
  std::uint64_t all = 0;
  for (unsigned i = 0; i < course_.disks; ++i)
    for (const bool is_new : {false, true}) all += volume_of(i, is_new).platter.link.given_up();
  return all;
}

ReplacementTrial::Charge ReplacementTrial::charge_of(unsigned disk) {
  return {.disk = disk,
          .is_new = is_replaced(disk),
          .given_up_old = volume_of(disk, false).platter.link.given_up(),
          .given_up_new = volume_of(disk, true).platter.link.given_up()};
}

void ReplacementTrial::begin_charge(unsigned disk) {
  if (!course_.has_cuts()) return;
  held_[disk].clear();
  const auto& all = volume_of(disk, is_replaced(disk)).platter.current;
  for_sectors(all, {0, all.size()}, [&](std::uint64_t sector, std::span<const std::byte> bytes) {
    held_[disk].insert(mark_of(sector, bytes));
  });
}

/// Nothing comes to the side that is not in charge but by way of the one that is.
void ReplacementTrial::note_put(unsigned disk, bool is_new, Range range) {
  const bool is_in_charge = is_new == is_replaced(disk);
  const auto& all = volume_of(disk, is_new).platter.current;
  for_sectors(all, range, [&](std::uint64_t sector, std::span<const std::byte> bytes) {
    const std::uint64_t mark = mark_of(sector, bytes);
    if (is_in_charge)
      held_[disk].insert(mark);
    else if (!held_[disk].contains(mark))
      report(
          "at the side not in charge",
          fmt::format("sector {} of {} was written and not by way of the other side", sector, name_of(disk)));
  });
}

}  // namespace diskferry::sim
