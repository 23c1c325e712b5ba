// Session: one libnfs context on one reactor, with the file opened through it. It says when it is lost; what
// happens then is the business of storage.hpp. libnfs reconnects by itself only in a way that pollers do not
// survive, so that is switched off: a session that is lost gets a new context.
#pragma once

#include "drivers/nfs/endpoint.hpp"
#include "drivers/nfs/request.hpp"
#include "drivers/support/fd_watcher.hpp"
#include "drivers/support/session_pool.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct nfs_context;
struct nfsfh;

namespace diskferry::nfs {

struct InFlight;  // callbacks.hpp

/// The file as the server tells of it.
struct FileFacts {
  std::string handle{};  ///< NFSv3's name of this very file, also across restarts; empty with NFSv4
  std::uint64_t number = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint32_t read_bytes_max = 0;
  std::uint32_t write_bytes_max = 0;
};

/// What the file is opened for.
enum class Purpose : std::uint8_t { read, write };

/// Thread: perform() from any; all else on executor()'s.
class NfsSession final : public Session, public std::enable_shared_from_this<NfsSession> {
 public:
  NfsSession(Executor executor, const Endpoint& endpoint, Clock& clock, Purpose purpose);
  ~NfsSession() override;

  /// Mounts the folder and opens the file. Errors: as Driver::open. Cancel: gives up.
  Task<Result<FileFacts>> connect();
  /// Mounts the folder only, for what follows.
  Task<Result<void>> mount();
  /// In a mounted folder; see Driver::look.
  Task<Result<VolumeFacts>> look(bool for_writing);
  /// Errors: already_exists, permission, no_space, read_only.
  Task<Result<void>> create(std::uint64_t size_bytes, bool may_exist);
  Task<Result<void>> unlink();

  bool go_up() override;
  Task<Result<void>> wait_until_down() override;
  Task<void> disconnect(Duration limit) override;
  void check_progress() override;
  std::string loss_reason() const override;

  /// Sends the request and waits for its answer. Lifetime: its memory until then. Cancel: at once; a write
  /// after two seconds at most.
  Task<Answer> perform(std::shared_ptr<Request> request);

  struct Call;  // a function of libnfs that is waited for

 private:
  friend struct Callbacks;
  /// Gives libnfs a function to do; `owned` is for its callback. Negative: it was not taken.
  using Start = std::function<int(nfs_context* context, void* owned)>;

  Result<void> make_context();
  /// What a deadline that passed while connecting tells the operator.
  Error explained(Error error) const;
  Task<Result<std::shared_ptr<Call>>> call(std::string operation, Start start);
  Task<Result<void>> mount_folder();
  Task<Result<FileFacts>> open_file(Purpose purpose);
  Task<Result<void>> look_at_file(VolumeFacts& facts, bool for_writing);
  Task<Result<void>> check_access(std::string path, std::string_view what, VolumeFacts& facts);
  void begin(const std::shared_ptr<Request>& request);
  /// False: the library did not take it.
  bool send(const Request& request, InFlight* owned);
  void settle(Request& request, const Answer& answer);
  bool send_null();
  void on_ready(FdWatcher::Ready ready);
  void update_interest();
  void lose(std::string reason);
  /// The error where the context is gone.
  Error lost(std::string operation) const;
  /// What the library says; `otherwise`, where it says nothing.
  std::string library_text(std::string_view otherwise) const;
  void drop_context();

  const Endpoint& endpoint_;
  Clock& clock_;
  const Purpose purpose_;
  nfs_context* context_ = nullptr;
  nfsfh* file_ = nullptr;
  FdWatcher watcher_;
  std::vector<Request*> in_flight_;  // owned by the library, through InFlight
  bool is_in_service_ = false;
  bool is_null_in_flight_ = false;
  std::string doom_;  // why it has to end as soon as the library is left
  std::atomic<unsigned> abandoned_writes_ = 0;
  bool has_waited_ = false;  ///< for them, since the last look
  TimePoint last_heard_{};
  mutable std::mutex guard_;
  WaitQueue down_;
  std::string loss_reason_;
};

}  // namespace diskferry::nfs
