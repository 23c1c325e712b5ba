// Progress for people and for programs: one line on a terminal that is rewritten in place, or one JSON object
// a line. Commands make one ProgressReporter and hand it to the engine as its ProgressSink.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/progress.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace diskferry::cli {

enum class ProgressMode : std::uint8_t { automatic, bar, json, none };
inline const std::map<std::string, ProgressMode> progress_modes{{"auto", ProgressMode::automatic},
                                                                {"bar", ProgressMode::bar},
                                                                {"json", ProgressMode::json},
                                                                {"none", ProgressMode::none}};

/// Where progress is written. `write` gets whole pieces of text, one call at a time.
struct ProgressOutput {
  std::function<void(std::string_view)> write;
  std::size_t width = 80;  ///< columns of the terminal; the bar never wraps

  /// stderr, with the width of its terminal.
  static ProgressOutput standard_error();
};
/// What `auto` means here: a bar when stderr is a terminal (and TERM is not "dumb"), else nothing.
ProgressMode resolve(ProgressMode mode);

/// Thread: update() from any thread; the rest from the command's. Lifetime: finish() (or the destructor) ends
/// the line.
class ProgressReporter final : public ProgressSink {
 public:
  /// How often the line is rewritten, and the longest silence of the JSON form.
  static constexpr Duration bar_interval = std::chrono::milliseconds(100);
  static constexpr Duration json_interval = std::chrono::seconds(1);
  /// The rate is that of the last seconds: long enough to be steady, short enough to show a stall.
  static constexpr Duration rate_window = std::chrono::seconds(3);

  ProgressReporter(ProgressMode mode, Clock& clock, ProgressOutput output);
  ~ProgressReporter() override { finish(); }
  ProgressReporter(const ProgressReporter&) = delete;
  ProgressReporter& operator=(const ProgressReporter&) = delete;

  /// Remembers the state; writes at most once an interval and at each change of subject or phase.
  void update(const ProgressUpdate& now) override;
  /// Lines under the bar, from the next update on; cut where the terminal ends. Nothing in other modes.
  void set_details(std::vector<std::string> lines);
  /// Takes away what is shown, for others to write there; the next update shows it again.
  void clear();
  /// Writes if the interval has passed, although nothing moved: a stall must be seen.
  void tick();
  /// Writes the last state and ends the line. Nothing is written afterwards.
  void finish();
  /// Runs tick() on a thread of its own until finish(). Not used in tests.
  void start_ticking();

 private:
  struct Sample {
    TimePoint time;
    std::uint64_t bytes;
  };
  void write_now(TimePoint now);
  std::string bar_line() const;
  void write_details();
  std::string json_line(TimePoint now) const;
  std::optional<double> rate_bytes_per_s() const;
  std::optional<Duration> time_left() const;
  Duration interval() const;

  const ProgressMode mode_;
  Clock& clock_;
  const ProgressOutput output_;

  std::mutex guard_;
  std::condition_variable stop_ticking_;
  std::string subject_;
  std::string phase_;
  std::uint64_t bytes_done_ = 0;
  std::uint64_t bytes_total_ = 0;
  TimePoint phase_started_{};
  TimePoint quiet_until_{};
  std::deque<Sample> samples_;
  std::size_t shown_columns_ = 0;
  std::vector<std::string> details_;
  std::size_t shown_details_ = 0;
  bool has_state_ = false;
  bool is_finished_ = false;
  std::thread ticker_;
};

/// "3s", "4m05s", "2h07m": at most two units.
std::string format_time(Duration time);

}  // namespace diskferry::cli
