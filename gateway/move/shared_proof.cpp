// Asking both hosts, and comparing what they say.
#include "gateway/move/shared_proof.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <random>

namespace diskferry {
namespace {

/// A guest that writes may change a block between the two looks at it; a mount may be late to see a file.
constexpr int attempts = 3;
constexpr Duration attempt_pause = std::chrono::milliseconds(100);

std::string random_text() {
  std::random_device device;
  std::string text;
  for (int i = 0; i < 8; ++i) text += fmt::format("{:08x}", device());
  return text;
}

ShareVerdict no(std::string reason) {
  return {.reason = std::move(reason)};
}

ShareVerdict cannot_say(const Error& error) {
  return no("the other gateway cannot say: " + error.message());
}

/// Whether they can be the same file at all: for that nothing needs to be written.
ShareVerdict judge_files_plainly(const StorageView& here, const StorageView& there) {
  if (here.inode != there.inode) return no("the file of that name on the other host is another one");
  if (here.kernel != there.kernel && (!here.file_system.empty() || !there.file_system.empty()))
    return no(fmt::format("two hosts cannot have the same {} mounted",
                          here.file_system.empty() ? there.file_system : here.file_system));
  return {.is_shared = true};
}

ShareVerdict judge_markers(const StorageView& here, const StorageView& there, const std::string& text) {
  if (here.marker_text != text || there.marker_text != text)
    return no("a file that one gateway wrote beside it is not there for the other one");
  if (!here.is_marker_beside || !there.is_marker_beside)
    return no("it is on another file system than its folder");
  return {.is_shared = true,
          .reason = "what one gateway wrote beside it the other one read, and it is the same file there"};
}

ShareVerdict judge_devices(const StorageView& here, const StorageView& there) {
  if (here.device_name.empty() || there.device_name.empty())
    return no("the block device has no world-wide name");
  if (here.device_name != there.device_name)
    return no(fmt::format("the block device is {} here and {} there", here.device_name, there.device_name));
  if (here.size_bytes != there.size_bytes)
    return no(
        fmt::format("the block device has {} bytes here and {} there", here.size_bytes, there.size_bytes));
  return {.is_shared = true, .reason = "both hosts know the block device as " + here.device_name};
}

}  // namespace

ShareVerdict judge_network(const StorageView& here, const StorageView& there) {
  const auto is_there_too = [&](const std::string& address) {
    return std::ranges::find(there.addresses, address) != there.addresses.end();
  };
  if (!here.addresses.empty() && !there.addresses.empty() &&
      std::ranges::none_of(here.addresses, is_there_too))
    return no(fmt::format("its server is {} here and {} there", fmt::join(here.addresses, ", "),
                          fmt::join(there.addresses, ", ")));
  if (!here.problem.empty() && !there.problem.empty())
    return {.is_shared = true,
            .is_by_name = true,
            .reason = "both hosts reach it by the same name; no gateway can look into it: " + here.problem};
  if (!here.problem.empty()) return no("this host's gateway cannot open it: " + here.problem);
  if (!there.problem.empty()) return no("the other host's gateway cannot open it: " + there.problem);
  if (here.size_bytes != there.size_bytes || here.samples != there.samples)
    return no("what the name leads to differs in size or content");
  return {.is_shared = true, .reason = "the name leads to the same server and content from both hosts"};
}

ShareVerdict judge_plainly(const StorageView& here, const StorageView& there) {
  if (!here.problem.empty()) return no(here.problem);
  if (!there.problem.empty()) return no("the other host: " + there.problem);
  if (!here.exists) return no("this host has nothing of that name");
  if (!there.exists) return no("the other host has nothing of that name");
  if (here.is_block_device != there.is_block_device)
    return no("it is a block device on one host and a file on the other");
  return here.is_block_device ? judge_devices(here, there) : judge_files_plainly(here, there);
}

ShareVerdict judge_marked(const StorageView& here, const StorageView& there, const std::string& text) {
  ShareVerdict plain = judge_plainly(here, there);
  const bool is_settled = !plain.is_shared || here.is_block_device;
  return is_settled ? plain : judge_markers(here, there, text);
}

namespace {

/// Both views of a file, with a marker that one of the hosts wrote.
class MarkedFile {
 public:
  MarkedFile(DriverContext& context, TargetGateway& gateway, ImageUri here, std::string there)
      : context_(context),
        gateway_(gateway),
        here_{.uri = here.to_string()},
        there_{.uri = std::move(there)},
        text_(random_text()) {
    here_.text = there_.text = text_;
    here_.marker = there_.marker = marker_name(random_text());
  }

  Task<Result<ShareVerdict>> judge() {
    using enum StorageQuestion::Act;
    DISKFERRY_CO_TRY(const StorageView here, co_await view_storage(context_, {.uri = here_.uri}));
    const auto there = co_await gateway_.see({.uri = there_.uri});
    if (!there) co_return cannot_say(there.error());
    ShareVerdict plain = judge_plainly(here, *there);
    if (!plain.is_shared || here.is_block_device) co_return plain;
    here_.act = write;
    DISKFERRY_CO_TRY(const StorageView written, co_await view_storage(context_, here_));
    if (!written.problem.empty()) co_return co_await judge_by_other(written.problem);
    auto verdict = co_await look_there(written);
    here_.act = remove;
    (void)co_await view_storage(context_, here_);
    co_return verdict;
  }

 private:
  Task<Result<ShareVerdict>> look_there(const StorageView& here) {
    ShareVerdict verdict;
    for (int i = 0; i < attempts && !verdict.is_shared; ++i) {
      if (i != 0) DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(attempt_pause));
      auto there = co_await gateway_.see(there_);
      if (!there) co_return cannot_say(there.error());
      verdict = judge_marked(here, *there, text_);
      if (!there->marker_text.empty()) break;  // only that it is not seen may be a matter of time
    }
    co_return verdict;
  }

  /// The folder cannot be written on this host: perhaps on the other one.
  Task<Result<ShareVerdict>> judge_by_other(std::string problem) {
    using enum StorageQuestion::Act;
    there_.act = write;
    auto there = co_await gateway_.see(there_);
    if (!there) co_return no(fmt::format("{}; the other gateway: {}", problem, there.error().message()));
    if (!there->problem.empty()) co_return no(fmt::format("{}; the other host: {}", problem, there->problem));
    here_.act = look;
    const auto here = co_await view_storage(context_, here_);
    there_.act = remove;
    (void)co_await gateway_.see(there_);
    if (!here) co_return no(here.error().message());
    co_return judge_marked(*here, *there, text_);
  }

  DriverContext& context_;
  TargetGateway& gateway_;
  StorageQuestion here_;
  StorageQuestion there_;
  const std::string text_;
};

Task<Result<ShareVerdict>> prove_network(DriverContext& context, TargetGateway& gateway, ImageUri here,
                                         std::string there) {
  ShareVerdict verdict;
  for (int i = 0; i < attempts && !verdict.is_shared; ++i) {
    const std::uint64_t seed = std::random_device{}();
    auto said = co_await gateway.see({.uri = there, .sample_seed = seed});
    if (!said) co_return cannot_say(said.error());
    DISKFERRY_CO_TRY(
        const StorageView seen,
        co_await view_storage(context, {.uri = here.to_uri_with_secrets(), .sample_seed = seed}));
    verdict = judge_network(seen, *said);
    if (!seen.problem.empty() || !said->problem.empty()) break;
  }
  co_return verdict;
}

}  // namespace

Task<Result<ShareVerdict>> prove_shared(DriverContext& context, TargetGateway& gateway, ImageUri here,
                                        std::string there) {
  if (!here.is_file()) co_return co_await prove_network(context, gateway, std::move(here), std::move(there));
  MarkedFile file(context, gateway, std::move(here), std::move(there));
  co_return co_await file.judge();
}

}  // namespace diskferry
