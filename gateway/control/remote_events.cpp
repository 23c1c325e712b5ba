// Lines of JSON, one event each; heartbeats between them are not passed on.
#include "gateway/control/remote_events.hpp"

#include "gateway/control/json.hpp"

namespace diskferry::control {
namespace {

class RemoteEvents final : public EventSource {
 public:
  RemoteEvents(Clock& clock, const Limits& limits, std::unique_ptr<ByteStream> stream,
               std::unique_ptr<HttpReader> reader)
      : clock_(clock),
        limits_(limits),
        stream_(std::move(stream)),
        reader_(std::move(reader)),
        heard_(clock.now()) {}

  Task<Result<Batch>> next(Duration wait) override {
    const TimePoint until = Clock::after(clock_.now(), wait);
    while (true) {
      const TimePoint silent = Clock::after(heard_, limits_.event_silence_time);
      auto line = co_await with_deadline(clock_, std::min(until, silent) - clock_.now(), "wait for events",
                                         reader_->read_line());
      if (!line && line.error().kind() == ErrorKind::timed_out) {
        if (clock_.now() >= silent)
          co_return unexpected(
              fail(ErrorKind::gone, "wait for events").why("the gateway has not been heard of for too long"));
        co_return Batch{};
      }
      if (!line) co_return unexpected(std::move(line).error());
      if (!*line) co_return Batch{.ended = true};
      heard_ = clock_.now();
      DISKFERRY_CO_TRY(JobEvent event,
                       from_json<JobEvent>(**line, Unknown::ignored, limits_.json_depth_max * 2));
      if (event.kind == "heartbeat") continue;
      Batch batch;
      batch.events.push_back(std::move(event));
      co_return batch;
    }
  }

 private:
  Clock& clock_;
  const Limits& limits_;
  std::unique_ptr<ByteStream> stream_;
  std::unique_ptr<HttpReader> reader_;  // reads from stream_
  TimePoint heard_;
};

}  // namespace

std::unique_ptr<EventSource> make_remote_events(Clock& clock, const Limits& limits,
                                                std::unique_ptr<ByteStream> stream,
                                                std::unique_ptr<HttpReader> reader) {
  return std::make_unique<RemoteEvents>(clock, limits, std::move(stream), std::move(reader));
}

}  // namespace diskferry::control
