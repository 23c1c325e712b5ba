// How a session comes up and ends: an address, a connection, the login, and where the target sends us
// elsewhere that once more.
#include "drivers/iscsi/callbacks.hpp"
#include "drivers/support/host_lookup.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <random>

namespace diskferry::iscsi {
namespace {

/// A target that moved may send us on; more than this often it sends us in circles.
constexpr int redirects_max = 4;
/// What a new session is told before anything else (UNIT ATTENTION), one thing at a time.
constexpr int attentions_max = 16;
constexpr Duration busy_pause = std::chrono::milliseconds(100);

iscsi_header_digest digest_of(HeaderDigest wanted) noexcept {
  switch (wanted) {
    case HeaderDigest::none:
      return ISCSI_HEADER_DIGEST_NONE;
    case HeaderDigest::crc32c:
      return ISCSI_HEADER_DIGEST_CRC32C;
    case HeaderDigest::as_target_wants:
      break;
  }
  return ISCSI_HEADER_DIGEST_NONE_CRC32C;
}

}  // namespace

SessionId new_session_id() {
  return {.random = std::random_device()() & 0xffffff};
}

Error no_answer(const Endpoint& endpoint, Error error) {
  return std::move(error)
      .object(endpoint.name)
      .why(
          fmt::format("no answer within {} s", std::chrono::duration<double>(endpoint.connect_limit).count()))
      .remedy("check that the target is up, and its address");
}

Result<void> IscsiSession::make_context() {
  drop();
  context_ = iscsi_create_context(endpoint_.initiator.c_str());
  if (context_ == nullptr)
    return unexpected(fail(ErrorKind::too_large, "log in", endpoint_.name).why("out of memory"));
  iscsi_set_noautoreconnect(context_, 1);
  const bool is_set =
      iscsi_set_isid_random(context_, id_.random, id_.number) == 0 &&
      iscsi_set_targetname(context_, endpoint_.target.c_str()) == 0 &&
      iscsi_set_session_type(context_, ISCSI_SESSION_NORMAL) == 0 &&
      iscsi_set_header_digest(context_, digest_of(endpoint_.header_digest)) == 0 &&
      (endpoint_.user.empty() ||
       iscsi_set_initiator_username_pwd(context_, endpoint_.user.c_str(), secrets_.password.c_str()) == 0) &&
      (endpoint_.target_user.empty() || iscsi_set_target_username_pwd(context_, endpoint_.target_user.c_str(),
                                                                      secrets_.target_password.c_str()) == 0);
  if (!is_set)
    return unexpected(
        fail(ErrorKind::internal, "log in", endpoint_.name).why("libiscsi does not take the settings"));
  return {};
}

void IscsiSession::end_step(StepEnd end, std::string said) {
  std::lock_guard lock(guard_);
  if (!step_end_) {
    step_end_ = end;
    step_said_ = std::move(said);
  }
  step_waiting_.wake_all();
}

Task<Result<IscsiSession::StepEnd>> IscsiSession::step(std::string operation, Start start) {
  {
    std::lock_guard lock(guard_);
    step_end_.reset();
  }
  if (context_ == nullptr || start(context_) < 0)
    co_return unexpected(fail(ErrorKind::gone, std::move(operation), endpoint_.name)
                             .why(context_ == nullptr ? loss_reason() : library_text()));
  // Children of this process must not keep the connection.
  const int fd = iscsi_get_fd(context_);
  (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (auto watched = watcher_.watch(fd); !watched) co_return unexpected(std::move(watched).error());
  update_interest();
  std::unique_lock lock(guard_);
  while (!step_end_) {
    if (!co_await step_waiting_.wait(lock))
      co_return unexpected(cancelled_error(std::move(operation), endpoint_.name));
    lock.lock();
  }
  co_return *step_end_;
}

Task<Result<IscsiSession::StepEnd>> IscsiSession::log_in_once(std::string address) {
  DISKFERRY_CO_CHECK(make_context());
  DISKFERRY_CO_TRY(const StepEnd connected, co_await step("connect", [&](iscsi_context* context) {
                     return iscsi_connect_async(context, address.c_str(), Callbacks::stepped, this);
                   }));
  if (connected != StepEnd::well)
    co_return unexpected(fail(ErrorKind::gone, "connect", endpoint_.name)
                             .why(printable(step_said_))
                             .remedy("check that the target is up, and its address"));
  DISKFERRY_CO_TRY(const StepEnd in, co_await step("log in", [this](iscsi_context* context) {
                     return iscsi_login_async(context, Callbacks::stepped, this);
                   }));
  if (in == StepEnd::badly) co_return unexpected(login_error(step_said_, endpoint_.name));
  co_return in;
}

Task<Result<void>> IscsiSession::log_in_at(Portal portal) {
  for (int i = 0; i < redirects_max; ++i) {
    DISKFERRY_CO_TRY(const auto addresses, co_await look_up_host(portal.host));
    std::optional<Error> failure;
    for (const std::string& address : addresses) {
      const Duration limit = endpoint_.connect_limit / static_cast<int>(addresses.size());
      const auto in = co_await with_deadline<StepEnd>(clock_, limit, "log in",
                                                      log_in_once(to_string(Portal{address, portal.port})));
      if (in && *in == StepEnd::well) {
        logins_.add();
        co_return Result<void>{};
      }
      failure = in ? std::nullopt : std::optional(in.error());
      // The host may have other addresses, at which it answers.
      if (!failure || (failure->kind() != ErrorKind::gone && failure->kind() != ErrorKind::timed_out)) break;
    }
    if (failure) co_return unexpected(*std::move(failure));
    auto elsewhere = parse_portal(step_said_);
    if (!elsewhere) co_return unexpected(std::move(elsewhere).error().object(endpoint_.name));
    portal = *std::move(elsewhere);
  }
  co_return unexpected(fail(ErrorKind::protocol, "log in", endpoint_.name)
                           .why("the target sends us from one address to the next"));
}

Task<Result<void>> IscsiSession::log_in() {
  DISKFERRY_ASSERT(!is_up(), "logging in twice");
  return log_in_at(endpoint_.portal);
}

Task<Result<Answer>> IscsiSession::ask(Command command, Memory memory) {
  int attentions = 0;
  while (true) {
    Request request(command, memory);
    request.is_question = true;
    const Answer answer = co_await perform(request);
    const std::string verb(command.verb);
    if (answer.how == Answer::How::cancelled) co_return unexpected(cancelled_error(verb, endpoint_.name));
    if (answer.how == Answer::How::lost)
      co_return unexpected(fail(ErrorKind::gone, verb, endpoint_.name).why(loss_reason()));
    switch (judge(answer.status, answer.sense)) {
      case Verdict::done:
      case Verdict::refused:
        co_return answer;
      case Verdict::new_look:
      case Verdict::again:
        // Such a LUN is not there, which is no news that ends.
        if (++attentions > attentions_max || is_no_such_lun(answer.sense)) co_return answer;
        break;
      case Verdict::later:
        DISKFERRY_CO_CHECK(co_await clock_.sleep_for(busy_pause));
        break;
    }
  }
}

Task<void> IscsiSession::say_goodbye() {
  if (farewell_) co_await farewell_(*this);
  if (context_ == nullptr) co_return;
  (void)co_await step("log out", [this](iscsi_context* context) {
    return iscsi_logout_async(context, Callbacks::stepped, this);
  });
}

Task<void> IscsiSession::disconnect(Duration limit) {
  {
    std::lock_guard lock(guard_);
    is_up_.store(false);
    down_.wake_all();
  }
  const auto goodbye = [](IscsiSession& self) -> Task<Result<void>> {
    co_await self.say_goodbye();
    co_return Result<void>{};
  };
  if (context_ != nullptr) (void)co_await with_deadline(clock_, limit, "log out", goodbye(*this));
  drop();
}

}  // namespace diskferry::iscsi
