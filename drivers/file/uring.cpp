// See uring.hpp. The ring's own descriptor is readable when a transfer has completed; the reactor waits for
// that only while transfers are under way, so that an idle ring costs nothing and can be destroyed at once.
#include "drivers/file/uring.hpp"

#include "diskferry/assert.hpp"

#include <atomic>
#include <cerrno>
#include <optional>
#include <unistd.h>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <liburing.h>

namespace diskferry {
namespace asio = boost::asio;

namespace {
/// Transfers under way at once on one ring. A flash disk is busy with 32 to 64; each costs 64 bytes here.
constexpr unsigned transfers_max = 128;
/// Kernel threads for what cannot be done without blocking; more would not help and cost memory.
constexpr unsigned kernel_workers_max = 8;

using Handler = asio::any_completion_handler<void(int)>;
struct Request {
  std::optional<Handler> handler;  // not assigned to: its move assignment never returns (Boost 1.81)
};
}  // namespace

struct Uring::State : std::enable_shared_from_this<State> {
  explicit State(const Executor& on) : reactor(on), completed(on) {}
  ~State() {
    if (!has_ring) return;
    completed.release();  // the descriptor is the ring's
    ::io_uring_queue_exit(&ring);
  }

  /// 0 or an errno.
  int set_up() {
    const int failed = ::io_uring_queue_init(transfers_max, &ring, 0);
    if (failed != 0) return -failed;
    has_ring = true;
    unsigned workers[2] = {kernel_workers_max, kernel_workers_max};
    (void)::io_uring_register_iowq_max_workers(&ring, workers);
    boost::system::error_code refused;
    completed.assign(ring.ring_fd, refused);
    return refused.value();
  }

  void start(const Transfer& what, Request& request) {
    ::io_uring_sqe* entry = ::io_uring_get_sqe(&ring);
    DISKFERRY_ASSERT(entry != nullptr, "there is a free entry while has_room()");
    const auto length = static_cast<unsigned>(what.memory.size());
    if (what.is_write) {
      ::io_uring_prep_write(entry, what.fd, what.memory.data(), length, what.offset);
    } else {
      ::io_uring_prep_read(entry, what.fd, what.memory.data(), length, what.offset);
    }
    entry->rw_flags = what.rwf_flags;
    ::io_uring_sqe_set_data(entry, &request);
    ++under_way;
    // What else this turn of the reactor prepares goes along.
    if (!is_draining) submit_soon();
  }

  void submit_soon() {
    if (submit_is_posted) return;
    submit_is_posted = true;
    asio::post(reactor, [self = shared_from_this()] {
      self->submit_is_posted = false;
      self->submit();
    });
  }

  void submit() {
    // A failure (no memory for the moment) leaves the entries in the queue: they are tried again.
    if (::io_uring_sq_ready(&ring) != 0 && ::io_uring_submit(&ring) < 0) submit_soon();
    if (under_way == 0 || is_waiting) return;
    is_waiting = true;
    completed.async_wait(asio::posix::stream_descriptor::wait_read,
                         [self = shared_from_this()](const boost::system::error_code&) {
                           self->is_waiting = false;
                           self->drain();
                         });
  }

  void drain() {
    is_draining = true;
    ::io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring, &entry) == 0) {
      auto* request = static_cast<Request*>(::io_uring_cqe_get_data(entry));
      const int result = entry->res;
      ::io_uring_cqe_seen(&ring, entry);
      --under_way;
      DISKFERRY_ASSERT(request->handler.has_value(), "a started request has a handler");
      Handler handler(*std::move(request->handler));  // the request ends with the task that is resumed here
      std::move(handler)(result);
    }
    is_draining = false;
    submit();
  }

  const Executor reactor;
  asio::posix::basic_stream_descriptor<Executor> completed;
  ::io_uring ring{};
  bool has_ring = false;
  unsigned under_way = 0;
  bool is_waiting = false;
  bool is_draining = false;
  bool submit_is_posted = false;
};

Uring::Uring(std::shared_ptr<State> state) : state_(std::move(state)) {}
Uring::~Uring() {
  DISKFERRY_ASSERT(state_->under_way == 0, "a ring is destroyed while transfers are under way");
}

std::unique_ptr<Uring> Uring::make(const Executor& reactor) {
  // Where it is not allowed it stays so; asking again would only cost time. Too many open files may pass.
  static std::atomic<bool> is_refused = false;
  if (is_refused.load(std::memory_order_relaxed)) return nullptr;
  auto state = std::make_shared<State>(reactor);
  if (const int failed = state->set_up(); failed != 0) {
    if (failed == ENOSYS || failed == EPERM) is_refused.store(true, std::memory_order_relaxed);
    return nullptr;
  }
  return std::unique_ptr<Uring>(new Uring(std::move(state)));
}

bool Uring::has_room() const noexcept {
  return state_->under_way < transfers_max;
}

Task<int> Uring::transfer(Transfer what) {
  Request request;
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<Executor>, void(int)>(
      [this, &what, &request](auto&& handler) {
        // any_completion_handler would put a handler of its own into our slot: it gets an empty one.
        request.handler.emplace(asio::bind_cancellation_slot(asio::cancellation_slot(),
                                                             std::forward<decltype(handler)>(handler)));
        state_->start(what, request);
      },
      asio::use_awaitable_t<Executor>{});
}

}  // namespace diskferry
