#include "drivers/nfs/storage.hpp"

#include "diskferry/task_group.hpp"
#include "drivers/nfs/status.hpp"
#include "drivers/support/run_on.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry::nfs {
namespace {

/// A server in its grace period, or whose disks sleep, asks to come again (NFS3ERR_JUKEBOX).
constexpr Duration later_pause_min = std::chrono::milliseconds(100);
constexpr Duration later_pause_max = std::chrono::seconds(2);

}  // namespace

Storage::Storage(DriverContext& context, Endpoint endpoint, Purpose purpose)
    : context_(context),
      endpoint_(std::move(endpoint)),
      purpose_(purpose),
      sessions_(
          context.reactors, context.clock,
          {.name = endpoint_.name,
           .reconnect_limit = endpoint_.reconnect_limit,
           .stall_limit = endpoint_.stall_limit,
           // Of an export that is not there yet, as in a failover, servers say that it is not for us
           // (MNT3ERR_ACCES: Linux' mountd and Ganesha).
           .refusal_limit = Duration::max(),
           .connect = [this](std::shared_ptr<Session> session) { return connect(std::move(session)); }}) {}

Task<Result<void>> Storage::open(unsigned wanted) {
  const auto reactors = context_.reactors;
  std::size_t reactor = sessions_.reactor_of(co_await boost::asio::this_coro::executor);
  if (reactor == reactors.size()) reactor = 0;
  const auto make = [&](std::size_t number) {
    return std::make_shared<NfsSession>(reactors[(reactor + number) % reactors.size()], endpoint_,
                                        context_.clock, purpose_);
  };
  const std::shared_ptr<NfsSession> first = make(0);
  const auto connect_first = [](std::shared_ptr<NfsSession> session) -> Task<Result<FileFacts>> {
    auto facts = co_await session->connect();
    if (facts) (void)session->go_up();
    co_return facts;
  };
  DISKFERRY_CO_TRY(facts_, co_await run_on(first->executor(), connect_first(first)));
  size_bytes_.store(facts_.size_bytes);
  sessions_.add(first, true);
  const std::size_t count =
      wanted_connections({.in_uri = endpoint_.connections,
                          .bound = wanted,
                          .otherwise = usual_connections(reactors.size(), connections_max)});
  for (std::size_t i = 1; i < count; ++i) sessions_.add(make(i), false);
  sessions_.start();
  co_return Result<void>{};
}

Task<Result<void>> Storage::connect(std::shared_ptr<Session> session) {
  auto& nfs = static_cast<NfsSession&>(*session);
  DISKFERRY_CO_TRY(const FileFacts now, co_await nfs.connect());
  if (now.handle == facts_.handle && now.number == facts_.number && now.size_bytes >= facts_.size_bytes)
    co_return Result<void>{};
  co_await nfs.disconnect({});
  co_return unexpected(fail(ErrorKind::mismatch, "reconnect", endpoint_.name)
                           .why(now.size_bytes < facts_.size_bytes ? "the file is smaller than it was"
                                                                   : "another file has this name now")
                           .remedy("check which file is there, then start again"));
}

Task<Result<Answer>> Storage::perform(std::shared_ptr<Request> request) {
  const std::size_t reactor = sessions_.reactor_of(co_await boost::asio::this_coro::executor);
  const TimePoint give_up = sessions_.give_up_time();
  std::optional<TimePoint> lost_until;
  Duration pause = later_pause_min;
  for (bool was_sent = false;; was_sent = true) {
    DISKFERRY_CO_CHECK(sessions_.check_gone());
    auto* const session =
        static_cast<NfsSession*>(sessions_.choose(reactor, [](const Session&) { return true; }));
    if (session == nullptr) {
      if (!lost_until) lost_until = sessions_.give_up_time();
      DISKFERRY_CO_CHECK(co_await sessions_.wait_for_session(*lost_until));
      continue;
    }
    if (was_sent) repeated_.fetch_add(1, std::memory_order_relaxed);
    const Answer answer = co_await session->perform(std::exchange(
        request, std::make_shared<Request>(request->verb, request->offset, request->into, request->from)));
    switch (answer.how) {
      case Answer::How::done:
        co_return answer;
      case Answer::How::cancelled:
        co_return unexpected(cancelled_error(std::string(to_string(request->verb)), endpoint_.name));
      case Answer::How::refused:
        co_return unexpected(refusal(*request, answer));
      case Answer::How::later:
        if (context_.clock.now() >= give_up) co_return unexpected(refusal(*request, answer));
        DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(pause));
        pause = std::min(2 * pause, later_pause_max);
        continue;
      case Answer::How::lost:
        if (!lost_until) {
          lost_until = sessions_.give_up_time();
        } else if (context_.clock.now() >= *lost_until) {
          co_return unexpected(fail(ErrorKind::gone, std::string(to_string(request->verb)), endpoint_.name)
                                   .why("the connection is lost again and again" + sessions_.loss_reason())
                                   .remedy("check the server and the network"));
        }
        continue;
    }
  }
}

Error Storage::refusal(const Request& request, const Answer& answer) const {
  const std::string verb(to_string(request.verb));
  const bool is_error_number = endpoint_.version == 4 && answer.how == Answer::How::refused;
  Error error = is_error_number ? library_error(answer.status, verb, endpoint_.name, {})
                                : status_error(answer.status, verb, endpoint_.name);
  return std::move(error).at(request.offset, request.into.size() + request.from.size());
}

Task<Result<void>> Storage::read(std::uint64_t offset, std::span<std::byte> into) {
  if (into.size() <= facts_.read_bytes_max) co_return co_await read_part(offset, into);
  const Executor executor = co_await boost::asio::this_coro::executor;
  TaskGroup parts(executor);
  while (!into.empty()) {
    const auto part = into.first(std::min<std::size_t>(into.size(), facts_.read_bytes_max));
    parts.spawn(read_part(offset, part));
    offset += part.size();
    into = into.subspan(part.size());
  }
  co_return co_await parts.join();
}

Task<Result<void>> Storage::read_part(std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    DISKFERRY_CO_TRY(const Answer answer,
                     co_await perform(std::make_shared<Request>(Verb::read, offset, into)));
    if (answer.bytes == 0 || answer.bytes > into.size())
      co_return unexpected(fail(ErrorKind::io, "read", endpoint_.name)
                               .why("the file ends before its size when it was opened")
                               .remedy("nobody may change the size of the disk while it is in use")
                               .at(offset, into.size()));
    offset += answer.bytes;
    into = into.subspan(answer.bytes);
  }
  co_return Result<void>{};
}

Task<Result<void>> Storage::write(std::uint64_t offset, std::span<const std::byte> from, bool fua) {
  if (from.size() <= facts_.write_bytes_max)
    co_return co_await write_part(fua ? Verb::write_durably : Verb::write, offset, from);
  const Executor executor = co_await boost::asio::this_coro::executor;
  TaskGroup parts(executor);
  while (!from.empty()) {
    const auto part = from.first(std::min<std::size_t>(from.size(), facts_.write_bytes_max));
    parts.spawn(write_part(Verb::write, offset, part));
    offset += part.size();
    from = from.subspan(part.size());
  }
  DISKFERRY_CO_CHECK(co_await parts.join());
  // One commit for all of them is less work for the server than each for itself.
  if (fua) co_return co_await flush();
  co_return Result<void>{};
}

Task<Result<void>> Storage::write_part(Verb verb, std::uint64_t offset, std::span<const std::byte> from) {
  bool is_durable = true;
  while (!from.empty()) {
    DISKFERRY_CO_TRY(const Answer answer,
                     co_await perform(std::make_shared<Request>(verb, offset, std::span<std::byte>{}, from)));
    if (answer.bytes == 0 || answer.bytes > from.size())
      co_return unexpected(
          fail(ErrorKind::protocol, "write", endpoint_.name)
              .why(fmt::format("the server says that it wrote {} of {} bytes", answer.bytes, from.size())));
    if (!answer.is_durable) unflushed_.written(answer.verifier);
    is_durable = is_durable && answer.is_durable;
    offset += answer.bytes;
    from = from.subspan(answer.bytes);
    for (std::uint64_t size = size_bytes_.load(); size < offset;)
      if (size_bytes_.compare_exchange_weak(size, offset)) break;
  }
  // Who is asked to commit it must do so (RFC 1813, 3.3.7); not all do.
  if (verb == Verb::write_durably && !is_durable) co_return co_await flush();
  co_return Result<void>{};
}

Error Storage::lost_writes() const {
  return fail(ErrorKind::gone, "flush", endpoint_.name)
      .why(
          "the server was restarted between writes and this flush, and may have lost what it had "
          "acknowledged")
      .remedy("open the file again and repeat the writes since the last flush");
}

Task<Result<void>> Storage::flush() {
  // Who comes while another one commits may have writes that its commit does not cover.
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await flushing_.lock());
  if (unflushed_.is_lost()) co_return unexpected(lost_writes());
  if (unflushed_.is_empty()) co_return Result<void>{};
  unflushed_.begin_commit();
  auto answer = co_await perform(std::make_shared<Request>(Verb::commit));
  if (!answer) {
    unflushed_.failed();
    co_return unexpected(std::move(answer).error());
  }
  if (!unflushed_.committed(answer->verifier)) co_return unexpected(lost_writes());
  co_return Result<void>{};
}

}  // namespace diskferry::nfs
