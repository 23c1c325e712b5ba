// What a replacement does about storage that cannot be read, and what it tells where it rests.
#include "diskferry/image_uri.hpp"
#include "gateway/move/replacement_disk.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr std::size_t places_told_max = 16;  // in one event; the job's state has them all

NewJobEvent text_event(std::string kind, const std::string& text) {
  return {.kind = std::move(kind), .text = serialize(boost::json::object{{"text", text}})};
}

std::string loss_text(const ReplaceDiskState& disk) {
  std::string text = fmt::format("{}: ", printable(disk.name));
  if (disk.unreadable.empty()) return text + "nothing is skipped any more";
  text += fmt::format("{} cannot be read, and is zeros at the target, at", printable(disk.source));
  for (const Range place :
       std::span(disk.unreadable).first(std::min(places_told_max, disk.unreadable.size())))
    text += fmt::format(" {}+{}", place.offset, place.length);
  return disk.unreadable.size() > places_told_max ? text + " and more" : text;
}

}  // namespace

NewJobEvent paused_event(const Error& why) {
  return text_event("paused", why.message());
}

/// What was skipped is in the job's record before anything goes by it.
Task<Result<void>> Replacement::note_losses() {
  for (std::size_t i = 0; i < disks_.size(); ++i)
    if (disks_[i].disk.note_loss()) unsaved_loss_ = loss_text(state_.disks[i]);
  if (unsaved_loss_.empty()) co_return Result<void>{};
  spdlog::warn("replacement {}: {}", job_.id, unsaved_loss_);
  DISKFERRY_CO_CHECK(co_await save({.event = text_event("unreadable", unsaved_loss_)}));
  unsaved_loss_.clear();
  co_return Result<void>{};
}

void Replacement::set_skips() {
  const bool skips = limits().on_read_error == OnReadError::skip;
  for (Disk& each : disks_) each.disk.set_skips_unreadable(skips);
}

/// Of a replacement that has just failed.
bool Replacement::is_to_be_undone() const {
  return !is_committed_ && limits().on_read_error == OnReadError::abort &&
         std::ranges::any_of(disks_, [](const Disk& each) { return each.disk.read_failure().has_value(); });
}

/// With what an operator can do about it.
Error Replacement::paused_error(Error why) const {
  const bool is_read =
      std::ranges::any_of(disks_, [](const Disk& each) { return each.disk.read_failure().has_value(); });
  const std::string& known = why.remedy();
  std::string remedy = known.empty() ? fmt::format("diskferry resume {}", job_.id)
                                     : fmt::format("{}, then diskferry resume {}", known, job_.id);
  if (is_read)
    remedy = fmt::format(
        "restore that place by writing to it, or have it skipped (diskferry set {0} --on-read-error skip), "
        "then diskferry resume {0}; or diskferry cancel {0}",
        job_.id);
  else if (why.kind() == ErrorKind::no_space)
    remedy = fmt::format("make room there, then diskferry resume {}", job_.id);
  return std::move(why).remedy(std::move(remedy));
}

}  // namespace diskferry
