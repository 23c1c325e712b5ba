#include "drivers/iscsi/storage.hpp"

#include "diskferry/units.hpp"
#include "diskferry/zeros.hpp"
#include "drivers/iscsi/inspect.hpp"
#include "drivers/support/run_on.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry::iscsi {
namespace {

/// What a LUN without a limit of its own gets at once: more does not make it faster.
constexpr std::uint32_t transfer_bytes_limit = 4 * mib;
/// Without sending data, where the storage only notes it, and where it writes zeros: bounded by how long a
/// target may be silent.
constexpr std::uint64_t unmap_bytes_limit = 1 * gib;
constexpr std::uint64_t write_same_bytes_limit = 8 * mib;
/// Descriptors of one GET LBA STATUS, and such commands for one call.
constexpr std::size_t descriptors_max = 256;
constexpr int map_commands_max = 8;
/// A target that is busy (BUSY, TASK SET FULL, becoming ready) is asked again.
constexpr Duration busy_pause_min = std::chrono::milliseconds(20);
constexpr Duration busy_pause_max = std::chrono::seconds(1);
/// Things that a target has to tell before it does what it is told (UNIT ATTENTION).
constexpr unsigned attentions_max = 16;
/// How long one waits for a session before looking whether the storage was declared gone.
constexpr Duration look_around = std::chrono::seconds(1);

}  // namespace

Storage::Storage(DriverContext& context, Endpoint endpoint, Secrets secrets, Processes processes,
                 Purpose purpose)
    : context_(context),
      endpoint_(std::move(endpoint)),
      secrets_(std::move(secrets)),
      purpose_(purpose),
      session_id_(new_session_id()),
      claim_(endpoint_, std::move(processes)),
      sessions_(
          context.reactors, context.clock,
          {.name = endpoint_.name,
           .reconnect_limit = endpoint_.reconnect_limit,
           .stall_limit = endpoint_.stall_limit,
           .connect = [this](std::shared_ptr<Session> session) { return connect(std::move(session)); }}) {}

std::uint32_t Storage::transfer_bytes_max() const noexcept {
  const std::uint64_t limit = std::uint64_t{facts_.transfer_blocks_max} * facts_.block_bytes;
  if (limit == 0 || limit > transfer_bytes_limit) return transfer_bytes_limit;
  return static_cast<std::uint32_t>(limit);
}

// --- sessions ---------------------------------------------------------------------------------------------

std::shared_ptr<IscsiSession> Storage::make_session(std::size_t number) const {
  return std::make_shared<IscsiSession>(
      context_.reactors[number % context_.reactors.size()], endpoint_, secrets_, context_.clock,
      SessionId{.random = session_id_.random, .number = static_cast<std::uint16_t>(number)});
}

void Storage::add(std::shared_ptr<IscsiSession> session, bool is_connected) {
  all_sessions_.push_back(session.get());
  sessions_.add(std::move(session), is_connected);
}

Task<Result<LunFacts>> Storage::establish(std::shared_ptr<IscsiSession> session) {
  const auto all = [](Storage& self, IscsiSession& one) -> Task<Result<LunFacts>> {
    DISKFERRY_CO_CHECK(co_await one.log_in());
    const bool is_first = !self.is_open_;
    DISKFERRY_CO_TRY(LunFacts facts, co_await (is_first ? look_at_lun(one, self.endpoint_)
                                                        : look_at_identity(one, self.endpoint_)));
    if (const std::string changed = is_first ? "" : difference(self.facts_, facts); !changed.empty())
      co_return unexpected(fail(ErrorKind::mismatch, "reconnect", self.endpoint_.name)
                               .why(changed)
                               .remedy("check which LUN is there, then start again"));
    if (self.purpose_ != Purpose::write) co_return facts;
    if (facts.is_write_protected) co_return unexpected(write_protected("open", self.endpoint_.name));
    DISKFERRY_CO_TRY(const std::uint64_t verifier, co_await self.claim_.take(one));
    one.set_verifier(verifier);
    one.set_farewell([&claim = self.claim_](IscsiSession& ending) { return claim.release(ending); });
    if (is_first && !facts.knows_mode) DISKFERRY_CO_CHECK(co_await look_at_mode(one, facts));
    if (facts.is_write_protected) co_return unexpected(write_protected("open", self.endpoint_.name));
    co_return facts;
  };
  auto facts = co_await with_deadline<LunFacts>(context_.clock, endpoint_.connect_limit, "log in",
                                                all(*this, *session));
  if (facts) co_return facts;
  session->drop();
  if (facts.error().kind() != ErrorKind::timed_out) co_return facts;
  co_return unexpected(no_answer(endpoint_, std::move(facts).error()));
}

Task<Result<void>> Storage::open(unsigned wanted) {
  const std::size_t reactors = context_.reactors.size();
  std::size_t reactor = sessions_.reactor_of(co_await boost::asio::this_coro::executor);
  if (reactor == reactors) reactor = 0;
  const std::shared_ptr<IscsiSession> first = make_session(reactor);
  const auto connect_first = [](Storage& self,
                                std::shared_ptr<IscsiSession> session) -> Task<Result<LunFacts>> {
    auto facts = co_await self.establish(session);
    if (facts) (void)session->go_up();
    co_return facts;
  };
  DISKFERRY_CO_TRY(facts_, co_await run_on(first->executor(), connect_first(*this, first)));
  is_open_ = true;
  unmaps_same_ = facts_.can_write_same_unmap && facts_.unmapped_reads_zero;
  writes_same_ = facts_.can_write_same;
  add(first, true);
  std::size_t count = wanted_connections({.in_uri = endpoint_.connections,
                                          .bound = wanted,
                                          .otherwise = usual_connections(reactors, connections_max)});
  // Only the loss of its one connection tells that a target may have lost its power, and what it had cached.
  if (purpose_ == Purpose::write && may_lose_writes() && !claim_.is_proof()) count = 1;
  for (std::size_t i = 1; i < count; ++i) add(make_session(reactor + i), false);
  sessions_.start();
  co_return Result<void>{};
}

Task<Result<void>> Storage::connect(std::shared_ptr<Session> session) {
  const auto facts = co_await establish(std::static_pointer_cast<IscsiSession>(session));
  if (!facts) co_return unexpected(facts.error());
  co_return Result<void>{};
}

// --- commands ---------------------------------------------------------------------------------------------

IscsiSession* Storage::session_with_abandoned() const noexcept {
  const auto found = std::ranges::find_if(
      all_sessions_, [](IscsiSession* session) { return session->logins().may_still_change(); });
  return found == all_sessions_.end() ? nullptr : *found;
}

/// A write that was lost may still be on its way in a target that was only cut off. It is sent again by the
/// session that it was lost with: its login ends there what the old one had to do. For one that was given up
/// instead, all later ones wait until then.
Task<Result<IscsiSession*>> Storage::choose(std::size_t reactor, const Command& command, Attempts& attempts) {
  while (true) {
    DISKFERRY_CO_CHECK(sessions_.check_gone());
    IscsiSession* const late = command.changes_content ? session_with_abandoned() : nullptr;
    IscsiSession* const awaited = late != nullptr ? late : attempts.only;
    const auto fits = [&](const Session& one) {
      return late == nullptr && (awaited == nullptr || awaited == &one);
    };
    auto* const session = static_cast<IscsiSession*>(sessions_.choose(reactor, fits));
    if (session != nullptr) co_return session;
    if (!attempts.lost_until) attempts.lost_until = sessions_.give_up_time();
    if (awaited == nullptr || sessions_.count_up() == 0) {
      DISKFERRY_CO_CHECK(co_await sessions_.wait_for_session(*attempts.lost_until));
      if (awaited == nullptr || sessions_.count_up() == 0) continue;
    }
    if (is_ending_.load(std::memory_order_relaxed))
      attempts.lost_until = std::min(*attempts.lost_until, context_.clock.now() + look_around);
    const Duration left = *attempts.lost_until - context_.clock.now();
    if (left <= Duration::zero())
      co_return unexpected(fail(ErrorKind::gone, "reconnect", endpoint_.name)
                               .why("a session is lost" + sessions_.loss_reason() +
                                    " and cannot be made again, though others stand")
                               .remedy("check the target and the network"));
    const auto waited = co_await with_deadline(context_.clock, std::min(left, look_around), "reconnect",
                                               awaited->wait_until_up());
    if (!waited && waited.error().kind() != ErrorKind::timed_out) co_return unexpected(waited.error());
  }
}

Task<Result<void>> Storage::wait_to_try_again(Verdict verdict, const Answer& answer, const Command& command,
                                              Attempts& attempts) {
  const TimePoint now = context_.clock.now();
  if (verdict == Verdict::again || verdict == Verdict::new_look) {
    if (++attempts.at_once > attentions_max)
      co_return unexpected(refusal(answer, std::string(command.verb), endpoint_.name));
    co_return Result<void>{};
  }
  if (attempts.pause == Duration::zero()) {
    attempts.pause = busy_pause_min;
    attempts.busy_until = sessions_.give_up_time();
  }
  if (now >= attempts.busy_until || is_ending_.load(std::memory_order_relaxed))
    co_return unexpected(refusal(answer, std::string(command.verb), endpoint_.name));
  DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(attempts.pause));
  attempts.pause = std::min(2 * attempts.pause, busy_pause_max);
  co_return Result<void>{};
}

Task<Result<Answer>> Storage::perform(Command command, Memory memory) {
  const std::size_t reactor = sessions_.reactor_of(co_await boost::asio::this_coro::executor);
  Attempts attempts;
  for (bool was_sent = false;; was_sent = true) {
    if (is_preempted_.load(std::memory_order_relaxed))
      co_return unexpected(preempted(std::string(command.verb), endpoint_.name));
    DISKFERRY_CO_TRY(IscsiSession* const session, co_await choose(reactor, command, attempts));
    if (was_sent) repeated_.fetch_add(1, std::memory_order_relaxed);
    Request request(command, memory);
    const Answer answer = co_await session->perform(request);
    if (answer.how != Answer::How::given && command.changes_content) {
      attempts.only = session;
      attempts.login = std::max(attempts.login, request.login);
    }
    if (answer.how == Answer::How::cancelled)
      co_return unexpected(cancelled_error(std::string(command.verb), endpoint_.name));
    if (answer.how == Answer::How::lost) {
      if (!attempts.lost_until) attempts.lost_until = sessions_.give_up_time();
      if (context_.clock.now() >= *attempts.lost_until && was_sent)
        co_return unexpected(fail(ErrorKind::gone, std::string(command.verb), endpoint_.name)
                                 .why("the connection is lost again and again" + sessions_.loss_reason())
                                 .remedy("check the target and the network"));
      continue;
    }
    attempts.only = nullptr;
    attempts.login = 0;
    if (session->was_preempted()) is_preempted_.store(true, std::memory_order_relaxed);
    // What was cached for an earlier write could not be written.
    if (answer.sense.is_deferred) unflushed_.lose();
    const Verdict verdict = judge(answer.status, answer.sense);
    if (verdict == Verdict::done) co_return answer;
    if (verdict == Verdict::refused)
      co_return unexpected(refusal(answer, std::string(command.verb), endpoint_.name));
    DISKFERRY_CO_CHECK(co_await wait_to_try_again(verdict, answer, command, attempts));
  }
}

namespace {
Blocks blocks_of(std::uint64_t offset, std::uint64_t length, const LunFacts& facts) {
  return {.first = offset / facts.block_bytes,
          .count = static_cast<std::uint32_t>(length / facts.block_bytes)};
}
Result<void> about(Result<void> done, Range range) {
  if (done) return done;
  return unexpected(std::move(done).error().at(range.offset, range.length));
}
}  // namespace

Task<Result<void>> Storage::read(std::uint64_t offset, std::span<std::byte> into) {
  auto answer = co_await perform(read16(blocks_of(offset, into.size(), facts_)), {.into = into});
  if (answer && answer->bytes != into.size())
    answer = unexpected(fail(ErrorKind::protocol, "read", endpoint_.name)
                            .why(fmt::format("the target sent {} of {} bytes", answer->bytes, into.size())));
  // A target that lost what it had acknowledged gives what was there before.
  if (answer && may_lose_writes() && !unflushed_.are_of(answer->verifier))
    answer = unexpected(lost_writes("read"));
  if (!answer) co_return about(unexpected(std::move(answer).error()), {offset, into.size()});
  co_return Result<void>{};
}

/// What it changes is durable when it is flushed.
Task<Result<void>> Storage::change(Command command, Memory memory) {
  DISKFERRY_CO_TRY(const Answer answer, co_await perform(command, memory));
  if (may_lose_writes()) unflushed_.written(answer.verifier);
  co_return Result<void>{};
}

Task<Result<void>> Storage::write(std::uint64_t offset, std::span<const std::byte> from, bool fua) {
  const Command command = write16(blocks_of(offset, from.size(), facts_), fua);
  if (!fua) co_return about(co_await change(command, {.from = from}), {offset, from.size()});
  auto answer = co_await perform(command, {.from = from});
  if (!answer) co_return about(unexpected(std::move(answer).error()), {offset, from.size()});
  co_return Result<void>{};
}

Task<Result<void>> Storage::write_same(Range& range, bool unmaps) {
  std::atomic<bool>& can = unmaps ? unmaps_same_ : writes_same_;
  const std::uint64_t limit_blocks =
      facts_.write_same_blocks_max == 0 ? UINT32_MAX : facts_.write_same_blocks_max;
  const std::uint64_t most = std::min(unmaps ? unmap_bytes_limit : write_same_bytes_limit,
                                      std::min<std::uint64_t>(limit_blocks, UINT32_MAX) * facts_.block_bytes);
  Range one_block{0, facts_.block_bytes};
  const std::span<const std::byte> zeros = take_zeros(one_block).bytes;
  while (!range.empty() && can.load(std::memory_order_relaxed)) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("zero", endpoint_.name));
    const std::uint64_t length = std::min(range.length, most);
    auto done =
        co_await change(write_same16(blocks_of(range.offset, length, facts_), unmaps), {.from = zeros});
    if (done) {
      range = {range.offset + length, range.length - length};
    } else if (done.error().kind() == ErrorKind::unsupported) {
      can = false;
    } else {
      co_return about(std::move(done), {range.offset, length});
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Storage::write_zeros(Range range) {
  while (!range.empty()) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("zero", endpoint_.name));
    const ZeroPiece piece = take_zeros(range, transfer_bytes_max());
    DISKFERRY_CO_CHECK(co_await write(piece.offset, piece.bytes, false));
  }
  co_return Result<void>{};
}

Task<Result<void>> Storage::zero(Range range, ZeroFlags flags) {
  const std::uint64_t wanted = range.length;
  if (flags.may_unmap) DISKFERRY_CO_CHECK(co_await write_same(range, true));
  // A target that refuses in the middle gets the rest in a slow way: some was changed by then.
  if (flags.fast_only && range.length == wanted)
    co_return unexpected(fail(ErrorKind::unsupported, "zero quickly", endpoint_.name)
                             .why("the LUN cannot, or the storage has to stay allocated")
                             .at(range.offset, range.length));
  DISKFERRY_CO_CHECK(co_await write_same(range, false));
  co_return co_await write_zeros(range);
}

Task<Result<void>> Storage::discard(Range range) {
  const std::uint64_t limit_blocks = facts_.unmap_blocks_max == 0 ? UINT32_MAX : facts_.unmap_blocks_max;
  const std::uint64_t most = std::min(unmap_bytes_limit, limit_blocks * facts_.block_bytes);
  while (!range.empty()) {
    const std::uint64_t length = std::min(range.length, most);
    const auto parameters = unmap_parameters(blocks_of(range.offset, length, facts_));
    DISKFERRY_CO_CHECK(about(co_await change(unmap(), {.from = parameters}), {range.offset, length}));
    range = {range.offset + length, range.length - length};
  }
  co_return Result<void>{};
}

Task<Result<std::vector<Extent>>> Storage::extents(Range range, std::size_t extents_max) {
  std::vector<Extent> found;
  Range rest = range;
  std::vector<std::byte> into(8 + 16 * std::min(extents_max + 1, descriptors_max));
  for (int i = 0; i < map_commands_max && !rest.empty() && found.size() < extents_max; ++i) {
    const Command command =
        get_lba_status(rest.offset / facts_.block_bytes, static_cast<std::uint32_t>(into.size()));
    const auto answer = co_await perform(command, {.into = into});
    if (!answer && answer.error().kind() != ErrorKind::unsupported && answer.error().kind() != ErrorKind::io)
      co_return unexpected(answer.error());
    std::vector<Extent> now;
    if (answer) now = extents_in(Bytes(into).first(answer->bytes), rest, facts_, extents_max - found.size());
    // One that does not tell has data everywhere.
    if (now.empty()) now.push_back({.offset = rest.offset, .length = rest.length});
    for (const Extent& extent : now) append_merged(found, extent);
    rest = {found.back().end(), range.end() - found.back().end()};
  }
  co_return found;
}

// --- durability -------------------------------------------------------------------------------------------

Error Storage::lost_writes(std::string verb) const {
  return fail(ErrorKind::gone, std::move(verb), endpoint_.name)
      .why(fmt::format("the target may have lost what it had acknowledged and not flushed{}",
                       sessions_.loss_reason()))
      .remedy("open the LUN again and repeat the writes since the last flush");
}

Task<Result<void>> Storage::flush() {
  // Who comes while another one flushes may have writes that its flush does not cover.
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await flushing_.lock());
  if (unflushed_.is_lost()) co_return unexpected(lost_writes("flush"));
  if (may_lose_writes() && unflushed_.is_empty()) co_return Result<void>{};
  unflushed_.begin_commit();
  auto answer = co_await perform(synchronize_cache16(), {});
  if (!answer && answer.error().kind() == ErrorKind::unsupported && !may_lose_writes())
    co_return Result<void>{};
  if (!answer) {
    unflushed_.failed();
    // What could not be written once may be dropped, and the next flush would know nothing of it.
    const bool is_refused =
        answer.error().kind() != ErrorKind::gone && answer.error().kind() != ErrorKind::cancelled;
    if (is_refused) unflushed_.lose();
    co_return unexpected(std::move(answer).error());
  }
  if (may_lose_writes() && !unflushed_.committed(answer->verifier))
    co_return unexpected(lost_writes("flush"));
  co_return Result<void>{};
}

}  // namespace diskferry::iscsi
