// Exports whose storage was away when the gateway started: each is tried again until it opens, and its guests
// are let in then. Until that their requests wait where they were told to (QEMU: reconnect-delay).
#include "diskferry/image_uri.hpp"
#include "gateway/daemon/exports_state.hpp"

#include <algorithm>

#include <spdlog/spdlog.h>

namespace diskferry::daemon {
namespace {
/// A guest waits for it, and a server that comes back is not to be asked all the time.
constexpr Duration first_pause = std::chrono::seconds(1);
constexpr Duration last_pause = std::chrono::seconds(15);
}  // namespace

std::shared_ptr<Exports::Entry> Exports::waiting_entry(control::ExportRequest request, Addition addition,
                                                       const Error& why) {
  auto entry = std::make_shared<Entry>();
  if (const auto uri = ImageUri::parse(request.image)) entry->shown_image = uri->without_secrets();
  entry->request = std::move(request);
  entry->kind = addition.kind;
  entry->configured = std::move(addition.configured);
  entry->size_bytes = addition.size_bytes;
  entry->is_taken_over = addition.is_taken_over;
  entry->waiting = why.message();
  return entry;
}

void Exports::keep_trying() {
  std::lock_guard lock(state_->guard);
  for (const auto& [name, entry] : state_->entries)
    if (!entry->waiting.empty()) state_->trying.spawn(try_until_open(name));
}

Task<void> Exports::stop_trying() {
  state_->trying.cancel();
  (void)co_await state_->trying.join();
}

Task<Result<void>> Exports::try_until_open(std::string name) {
  Duration pause = first_pause;
  do {
    DISKFERRY_CO_CHECK(co_await state_->context.clock.sleep_for(pause));
    pause = std::min(pause * 2, last_pause);
  } while (!co_await try_again(name));
  co_return Result<void>{};
}

/// True: there is nothing left to do.
Task<bool> Exports::try_again(std::string name) {
  std::shared_ptr<Entry> waiting;
  control::ExportRequest request;
  {
    std::lock_guard lock(state_->guard);
    const auto found = state_->entries.find(name);
    if (found == state_->entries.end() || found->second->waiting.empty()) co_return true;
    waiting = found->second;
    waiting->is_tried_now = true;
    request = waiting->request;
  }
  const auto opened = co_await open(
      std::move(request), {.is_taken_over = waiting->is_taken_over, .size_bytes = waiting->size_bytes});
  if (opened) {
    if (!take_opened(waiting, *opened)) (void)co_await (*opened)->device->close();
    co_return true;
  }
  const std::string why = opened.error().message();
  std::lock_guard lock(state_->guard);
  waiting->is_tried_now = false;
  if (opened.error().kind() != ErrorKind::cancelled && why != waiting->waiting) {
    spdlog::warn("export {} still waits for its storage: {}", printable(name), why);
    waiting->waiting = why;
  }
  co_return false;
}

/// False: it was removed meanwhile.
bool Exports::take_opened(const std::shared_ptr<Entry>& waiting, const std::shared_ptr<Entry>& opened) {
  std::lock_guard lock(state_->guard);
  const std::string& name = opened->request.name;
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end() || found->second != waiting) return false;
  opened->kind = waiting->kind;
  opened->configured = waiting->configured;
  opened->size_bytes = waiting->size_bytes;
  found->second = opened;
  if (const auto added = server_of(*opened).exports().add(opened->offered); !added)
    spdlog::error("export {} is left out: {}", printable(name), added.error().message());
  else
    spdlog::info("export {}: its storage is there: {}", printable(name), printable(opened->shown_image));
  return true;
}

}  // namespace diskferry::daemon
