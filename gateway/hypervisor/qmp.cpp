// One task reads; whoever waits for a reply or an event is woken by each message and looks for its own.
#include "gateway/hypervisor/qmp.hpp"

#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"

#include <deque>
#include <map>
#include <set>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace diskferry {
namespace asio = boost::asio;
namespace json = boost::json;

namespace {
constexpr std::size_t read_bytes = std::size_t{64} << 10;
constexpr Duration greeting_limit = std::chrono::seconds(10);
using Socket = asio::basic_stream_socket<asio::local::stream_protocol, Executor>;
struct KeptEvent {
  QmpEvent event;
  std::size_t bytes;
};
}  // namespace

struct QmpState {
  QmpState(const Executor& executor, Clock& by, std::string path)
      : clock(by), socket_path(std::move(path)), socket(executor), reader(executor) {}

  Clock& clock;
  const std::string socket_path;
  Socket socket;
  TaskGroup reader;
  AsyncMutex writing;

  std::mutex guard;  // of all below
  WaitQueue changed;
  std::map<std::uint64_t, std::optional<Result<json::value>>> pending;
  std::set<std::uint64_t> given_up;
  std::deque<KeptEvent> events;
  std::size_t event_bytes = 0;
  std::uint64_t event_count = 0;
  std::optional<QmpVersion> version;
  std::optional<Error> lost;
  std::uint64_t next_id = 1;

  Error error(ErrorKind kind, std::string why) const {
    return fail(kind, "talk to QEMU's monitor", socket_path).why(std::move(why));
  }
  void lose(Error why) {
    std::lock_guard lock(guard);
    if (!lost) lost = std::move(why);
    changed.wake_all();
  }
  Result<void> take(QmpMessage message, std::size_t bytes);
  Result<void> take_reply(QmpReply reply);
  void take_event(QmpEvent event, std::size_t bytes);
  Result<void> take_lines(std::string& text, std::size_t searched);
  Result<std::uint64_t> begin_command();
  void end_command(std::uint64_t id);
  Result<std::optional<QmpEvent>> find_event(std::uint64_t& from,
                                             const std::function<bool(const QmpEvent&)>& predicate);
};

// guard is held by the callers of take_reply, take_event and find_event.

Result<void> QmpState::take_reply(QmpReply reply) {
  // An error for what QEMU could not even read has no number; with one command on its way it is that one's.
  const auto found = !reply.id && pending.size() == 1 ? pending.begin() : pending.find(reply.id.value_or(0));
  if (found == pending.end()) {
    if (reply.id && given_up.erase(*reply.id) > 0) return {};
    return unexpected(error(ErrorKind::protocol, "a reply to no command"));
  }
  if (found->second) return unexpected(error(ErrorKind::protocol, "two replies to one command"));
  found->second = std::move(reply.result);
  return {};
}

void QmpState::take_event(QmpEvent event, std::size_t bytes) {
  event.at_ns = static_cast<std::uint64_t>(clock.now().time_since_epoch().count());
  events.push_back({std::move(event), bytes});
  event_bytes += bytes;
  ++event_count;
  while (events.size() > Qmp::events_max || event_bytes > qmp_line_bytes_max) {
    event_bytes -= events.front().bytes;
    events.pop_front();
  }
}

Result<void> QmpState::take(QmpMessage message, std::size_t bytes) {
  std::lock_guard lock(guard);
  if (auto* reply = std::get_if<QmpReply>(&message)) {
    DISKFERRY_CHECK(take_reply(std::move(*reply)));
  } else if (auto* event = std::get_if<QmpEvent>(&message)) {
    take_event(std::move(*event), bytes);
  } else if (version) {
    return unexpected(error(ErrorKind::protocol, "a second greeting"));
  } else {
    version = std::get<QmpGreeting>(message).version;
  }
  changed.wake_all();
  return {};
}

/// Takes whole lines off the front of `text`, whose first `searched` bytes are known to have no newline.
Result<void> QmpState::take_lines(std::string& text, std::size_t searched) {
  std::size_t begin = 0;
  for (std::size_t end = text.find('\n', searched); end != text.npos; end = text.find('\n', begin)) {
    const auto line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    DISKFERRY_TRY(QmpMessage message, parse_qmp(line));
    DISKFERRY_CHECK(take(std::move(message), line.size()));
  }
  text.erase(0, begin);
  if (text.size() > qmp_line_bytes_max) return unexpected(error(ErrorKind::too_large, "a line has no end"));
  return {};
}

Result<std::uint64_t> QmpState::begin_command() {
  std::lock_guard lock(guard);
  if (lost) return unexpected(*lost);
  if (pending.size() + given_up.size() >= Qmp::commands_max)
    return unexpected(error(ErrorKind::gone, "it does not answer; too many commands wait for it"));
  const std::uint64_t id = next_id++;
  pending.emplace(id, std::nullopt);
  return id;
}

void QmpState::end_command(std::uint64_t id) {
  std::lock_guard lock(guard);
  const auto found = pending.find(id);
  if (!found->second) given_up.insert(id);
  pending.erase(found);
}

Result<std::optional<QmpEvent>> QmpState::find_event(std::uint64_t& from,
                                                     const std::function<bool(const QmpEvent&)>& predicate) {
  const std::uint64_t first = event_count - events.size();
  if (from < first) return unexpected(error(ErrorKind::too_large, "more events came than are kept"));
  for (; from < event_count; ++from) {
    const auto& event = events[static_cast<std::size_t>(from - first)].event;
    if (predicate(event)) return event;
  }
  return std::nullopt;
}

namespace {
Task<Result<void>> read_lines(QmpState& state) {
  std::string text;
  while (true) {
    const std::size_t had = text.size();
    text.resize(had + read_bytes);
    const auto [failed, got] = co_await state.socket.async_read_some(
        asio::buffer(text.data() + had, read_bytes), asio::as_tuple(asio::use_awaitable));
    text.resize(had + got);
    DISKFERRY_CO_CHECK(state.take_lines(text, had));
    if (failed) co_return unexpected(state.error(ErrorKind::gone, "it ended the connection"));
  }
}
Task<Result<void>> read_until_lost(QmpState& state) {
  auto ended = co_await read_lines(state);
  state.lose(std::move(ended).error().object(state.socket_path));
  co_return Result<void>{};
}

Task<Result<void>> wait_for_greeting(QmpState& state) {
  while (true) {
    std::unique_lock lock(state.guard);
    if (state.version) co_return Result<void>{};
    if (state.lost) co_return unexpected(*state.lost);
    if (!co_await state.changed.wait(lock)) co_return unexpected(cancelled_error("wait for a greeting"));
  }
}

Task<Result<void>> write_line(QmpState& state, std::string line) {
  DISKFERRY_CO_TRY(const auto lock, co_await state.writing.lock());
  const auto [failed, sent] =
      co_await asio::async_write(state.socket, asio::buffer(line), asio::as_tuple(asio::use_awaitable));
  if (!failed) co_return Result<void>{};
  // Half a line is on its way, perhaps: nothing can follow it.
  state.lose(state.error(ErrorKind::gone, "a command could not be written"));
  co_return unexpected(state.error(ErrorKind::gone, "a command could not be written"));
}

Task<Result<json::value>> send_and_wait(QmpState& state, std::uint64_t id, std::string line) {
  DISKFERRY_CO_CHECK(co_await write_line(state, std::move(line)));
  while (true) {
    std::unique_lock lock(state.guard);
    if (auto& reply = state.pending.at(id)) co_return std::move(*reply);
    if (state.lost) co_return unexpected(*state.lost);
    if (!co_await state.changed.wait(lock)) co_return unexpected(cancelled_error("wait for a reply"));
  }
}

Task<Result<QmpEvent>> look_for_event(QmpState& state, std::uint64_t from,
                                      std::function<bool(const QmpEvent&)> predicate) {
  while (true) {
    std::unique_lock lock(state.guard);
    DISKFERRY_CO_TRY(auto found, state.find_event(from, predicate));
    if (found) co_return *std::move(found);
    if (state.lost) co_return unexpected(*state.lost);
    if (!co_await state.changed.wait(lock)) co_return unexpected(cancelled_error("wait for an event"));
  }
}

Task<Result<void>> connect_socket(QmpState& state) {
  const auto [failed] = co_await state.socket.async_connect(
      asio::local::stream_protocol::endpoint(state.socket_path), asio::as_tuple(asio::use_awaitable));
  if (failed == asio::error::operation_aborted)
    co_return unexpected(cancelled_error("connect", state.socket_path));
  if (failed == asio::error::connection_refused)
    co_return unexpected(fail(ErrorKind::gone, "connect", state.socket_path).cause(failed));
  if (failed) co_return unexpected(errno_error(failed.value(), "connect", state.socket_path));
  co_return Result<void>{};
}

Task<Result<void>> negotiate(Qmp& monitor, QmpState& state) {
  DISKFERRY_CO_CHECK(co_await with_deadline(state.clock, greeting_limit, "wait for QEMU's greeting",
                                            wait_for_greeting(state)));
  DISKFERRY_CO_CHECK(co_await monitor.execute("qmp_capabilities", {}, greeting_limit));
  co_return Result<void>{};
}
}  // namespace

Qmp::Qmp(std::unique_ptr<QmpState> state) : state_(std::move(state)) {}
Qmp::~Qmp() = default;

Task<Result<std::unique_ptr<Qmp>>> Qmp::connect(Clock& clock, std::string socket_path) {
  if (socket_path.empty() || socket_path.size() >= sizeof(sockaddr_un::sun_path))
    co_return unexpected(fail(ErrorKind::invalid_argument, "connect", std::move(socket_path))
                             .why("a UNIX socket's path has 1 to 107 bytes"));
  auto state = std::make_unique<QmpState>(co_await asio::this_coro::executor, clock, std::move(socket_path));
  DISKFERRY_CO_CHECK(
      co_await with_deadline(clock, greeting_limit, "connect to QEMU's monitor", connect_socket(*state)));
  std::unique_ptr<Qmp> monitor(new Qmp(std::move(state)));
  monitor->state_->reader.spawn(read_until_lost(*monitor->state_));
  const auto agreed = co_await negotiate(*monitor, *monitor->state_);
  if (agreed) co_return monitor;
  co_await monitor->close();
  co_return unexpected(agreed.error().with_step("greet QEMU's monitor " + monitor->state_->socket_path));
}

Task<Result<json::value>> Qmp::execute(std::string command, json::object arguments, Duration limit) {
  if (co_await is_cancelled()) co_return unexpected(cancelled_error(std::move(command), state_->socket_path));
  DISKFERRY_CO_TRY(const std::uint64_t id, state_->begin_command());
  auto line = qmp_line(id, command, arguments);
  auto result =
      co_await with_deadline(state_->clock, limit, command, send_and_wait(*state_, id, std::move(line)));
  state_->end_command(id);
  if (!result) co_return unexpected(std::move(result).error().in("QEMU's " + command));
  co_return result;
}

std::uint64_t Qmp::event_count() const {
  std::lock_guard lock(state_->guard);
  return state_->event_count;
}

QmpVersion Qmp::version() const {
  std::lock_guard lock(state_->guard);
  return state_->version.value_or(QmpVersion{});
}

Task<Result<QmpEvent>> Qmp::wait_event(std::uint64_t from, std::function<bool(const QmpEvent&)> predicate,
                                       std::string what, Duration limit) {
  return with_deadline(state_->clock, limit, "wait for " + what,
                       look_for_event(*state_, from, std::move(predicate)));
}

Task<void> Qmp::close() {
  state_->lose(state_->error(ErrorKind::gone, "the connection is closed"));
  state_->reader.cancel();
  (void)co_await state_->reader.join();
  boost::system::error_code ignored;
  state_->socket.close(ignored);
}

}  // namespace diskferry
