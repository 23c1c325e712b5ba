#include "drivers/iscsi/inspect.hpp"

#include <algorithm>

namespace diskferry::iscsi {
namespace {

constexpr std::uint16_t page_bytes = 255;  // also where only the lower byte of the length is looked at
constexpr std::uint8_t capacity_bytes = 32;
constexpr std::uint8_t mode_bytes = 192;
enum : std::uint8_t {
  page_supported = 0x00,
  page_serial = 0x80,
  page_identification = 0x83,
  page_block_limits = 0xb0,
  page_characteristics = 0xb1,
  page_provisioning = 0xb2,
};
enum : std::uint8_t { mode_page_cache = 0x08, mode_page_all = 0x3f };
constexpr std::uint8_t op_write_same16 = 0x93;

using Taken = std::optional<std::vector<std::byte>>;

Error about(Error error, const Endpoint& endpoint) {
  return std::move(error).object(endpoint.name);
}

struct Page {
  std::uint8_t number;
  void (*take)(Bytes, LunFacts&);
};
constexpr std::array<Page, 5> pages{{{page_serial, take_serial},
                                     {page_identification, take_identification},
                                     {page_block_limits, take_block_limits},
                                     {page_characteristics, take_characteristics},
                                     {page_provisioning, take_provisioning}}};
constexpr std::size_t identity_pages = 2;  // the first ones tell which LUN it is

/// `wanted`: of `pages`.
Task<Result<void>> look_at_pages(IscsiSession& session, std::span<const Page> wanted, LunFacts& facts) {
  DISKFERRY_CO_TRY(const Taken list,
                   co_await ask_for(session, inquiry_page(page_supported, page_bytes), page_bytes));
  if (!list) co_return Result<void>{};  // a target older than these pages
  const std::vector<std::uint8_t> there = pages_in(*list);
  for (const Page& page : wanted) {
    if (std::ranges::find(there, page.number) == there.end()) continue;
    DISKFERRY_CO_TRY(const Taken answer,
                     co_await ask_for(session, inquiry_page(page.number, page_bytes), page_bytes));
    if (answer) page.take(*answer, facts);
  }
  co_return Result<void>{};
}

/// Some have the sizes of their pages only; whoever can unmap by it can write by it.
Task<Result<void>> look_at_write_same(IscsiSession& session, LunFacts& facts) {
  constexpr std::uint8_t answer_bytes = 64;
  facts.can_write_same = facts.can_write_same_unmap;
  if (facts.can_write_same) co_return Result<void>{};
  DISKFERRY_CO_TRY(const Taken answer,
                   co_await ask_for(session, report_operation(op_write_same16, answer_bytes), answer_bytes));
  facts.can_write_same = answer && is_operation_supported(*answer);
  co_return Result<void>{};
}

/// Whether it is there, its size, and these pages.
Task<Result<LunFacts>> look(IscsiSession& session, const Endpoint& endpoint, std::span<const Page> wanted) {
  // First whether it is there, as a target answers for LUNs that are not.
  DISKFERRY_CO_TRY(const Taken standard, co_await ask_for(session, inquiry(page_bytes), page_bytes));
  if (!standard) co_return unexpected(no_such_lun(endpoint.name));
  if (auto disk = take_inquiry(*standard); !disk)
    co_return unexpected(about(std::move(disk).error(), endpoint));
  DISKFERRY_CO_TRY(const Answer ready, co_await session.ask(test_unit_ready(), {}));
  if (judge(ready.status, ready.sense) != Verdict::done && !is_reserved(ready.status))
    co_return unexpected(refusal(ready, "look at", endpoint.name));
  LunFacts facts;
  std::vector<std::byte> capacity(capacity_bytes);
  DISKFERRY_CO_TRY(const Answer sized,
                   co_await session.ask(read_capacity16(capacity_bytes), {.into = capacity}));
  if (judge(sized.status, sized.sense) != Verdict::done)
    co_return unexpected(refusal(sized, "look at", endpoint.name));
  if (auto taken = take_capacity(Bytes(capacity).first(sized.bytes), facts); !taken)
    co_return unexpected(about(std::move(taken).error(), endpoint));
  DISKFERRY_CO_CHECK(co_await look_at_pages(session, wanted, facts));
  co_return facts;
}

}  // namespace

Task<Result<void>> look_at_mode(IscsiSession& session, LunFacts& facts) {
  for (const std::uint8_t page : {mode_page_cache, mode_page_all}) {
    DISKFERRY_CO_TRY(const Taken answer,
                     co_await ask_for(session, mode_sense6(page, mode_bytes), mode_bytes));
    if (!answer) continue;
    take_mode(*answer, facts);
    break;
  }
  co_return Result<void>{};
}

Task<Result<Taken>> ask_for(IscsiSession& session, Command question, std::size_t answer_bytes) {
  std::vector<std::byte> into(answer_bytes);
  DISKFERRY_CO_TRY(const Answer answer, co_await session.ask(question, {.into = into}));
  if (judge(answer.status, answer.sense) != Verdict::done) co_return Taken{};
  into.resize(answer.bytes);
  co_return Taken{std::move(into)};
}

Task<Result<LunFacts>> look_at_identity(IscsiSession& session, const Endpoint& endpoint) {
  return look(session, endpoint, std::span(pages).first(identity_pages));
}

Task<Result<LunFacts>> look_at_lun(IscsiSession& session, const Endpoint& endpoint) {
  DISKFERRY_CO_TRY(LunFacts facts, co_await look(session, endpoint, pages));
  DISKFERRY_CO_CHECK(co_await look_at_mode(session, facts));
  DISKFERRY_CO_CHECK(co_await look_at_write_same(session, facts));
  co_return facts;
}

}  // namespace diskferry::iscsi
