// The progress line. Decides when to write and what; the text goes through ProgressOutput so that a test sees
// exactly what a terminal would.
#include "gateway/cli/progress.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/output.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <boost/json/object.hpp>

namespace diskferry::cli {

ProgressOutput ProgressOutput::standard_error() {
  ProgressOutput output;
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) output.width = size.ws_col;
  output.write = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  };
  return output;
}

ProgressMode resolve(ProgressMode mode) {
  if (mode != ProgressMode::automatic) return mode;
  const char* terminal = std::getenv("TERM");
  const bool can_rewrite = terminal != nullptr && std::string_view(terminal) != "dumb";
  return ::isatty(STDERR_FILENO) == 1 && can_rewrite ? ProgressMode::bar : ProgressMode::none;
}

std::string format_time(Duration time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time).count();
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 48 * 3600) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86400, seconds / 3600 % 24);
}

ProgressReporter::ProgressReporter(ProgressMode mode, Clock& clock, ProgressOutput output)
    : mode_(resolve(mode)), clock_(clock), output_(std::move(output)) {}

Duration ProgressReporter::interval() const {
  return mode_ == ProgressMode::json ? json_interval : bar_interval;
}

void ProgressReporter::update(const ProgressUpdate& now) {
  if (mode_ != ProgressMode::bar && mode_ != ProgressMode::json) return;
  const TimePoint time = clock_.now();
  const std::lock_guard lock(guard_);
  if (is_finished_) return;
  const bool is_new = !has_state_ || subject_ != now.subject || phase_ != now.phase;
  if (is_new) {
    subject_ = now.subject;
    phase_ = now.phase;
    phase_started_ = time;
    samples_.assign(1, {time, now.bytes_done});
  }
  has_state_ = true;
  bytes_done_ = now.bytes_done;
  bytes_total_ = now.bytes_total;
  if (is_new || time >= quiet_until_) write_now(time);
}

void ProgressReporter::set_details(std::vector<std::string> lines) {
  const std::lock_guard lock(guard_);
  details_ = std::move(lines);
}

void ProgressReporter::clear() {
  const std::lock_guard lock(guard_);
  if (mode_ != ProgressMode::bar || is_finished_ || shown_columns_ == 0) return;
  output_.write("\r\x1b[J");
  shown_columns_ = 0;
  shown_details_ = 0;
  quiet_until_ = {};
}

void ProgressReporter::tick() {
  const TimePoint time = clock_.now();
  const std::lock_guard lock(guard_);
  if (has_state_ && !is_finished_ && time >= quiet_until_) write_now(time);
}

void ProgressReporter::finish() {
  {
    const std::lock_guard lock(guard_);
    if (!is_finished_ && has_state_) {
      write_now(clock_.now());
      if (mode_ == ProgressMode::bar) output_.write(std::string(shown_details_ + 1, '\n'));
    }
    is_finished_ = true;
  }
  stop_ticking_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

void ProgressReporter::start_ticking() {
  if (mode_ != ProgressMode::bar && mode_ != ProgressMode::json) return;
  ticker_ = std::thread([this] {
    std::unique_lock lock(guard_);
    while (!is_finished_) {
      stop_ticking_.wait_for(lock, interval());
      if (is_finished_) return;
      lock.unlock();
      tick();
      lock.lock();
    }
  });
}

void ProgressReporter::write_now(TimePoint now) {
  samples_.push_back({now, bytes_done_});
  while (samples_.size() > 2 && now - samples_[1].time >= rate_window) samples_.pop_front();
  quiet_until_ = now + interval();
  if (mode_ == ProgressMode::json) {
    output_.write(json_line(now) + "\n");
    return;
  }
  std::string line = bar_line();
  const std::size_t columns = line.size();
  if (columns < shown_columns_) line.append(shown_columns_ - columns, ' ');  // rub out the longer one before
  shown_columns_ = columns;
  output_.write("\r" + line);
  write_details();
}

namespace {
/// At most so many bytes of a text, and no part of a character.
std::string cut(const std::string& text, std::size_t bytes_max) {
  std::size_t end = std::min(text.size(), bytes_max);
  while (end != text.size() && end != 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}
}  // namespace

/// Below the bar, where the cursor then returns to.
void ProgressReporter::write_details() {
  const std::size_t lines = std::max(details_.size(), shown_details_);
  if (lines == 0) return;
  std::string text;
  for (std::size_t i = 0; i < lines; ++i)
    text += "\n\r" + (i < details_.size() ? cut(details_[i], output_.width - 1) : std::string()) + "\x1b[K";
  output_.write(text + fmt::format("\x1b[{}A\r", lines));
  shown_details_ = lines;
}

std::optional<double> ProgressReporter::rate_bytes_per_s() const {
  const Duration span = samples_.back().time - samples_.front().time;
  if (samples_.size() < 2 || span < std::chrono::milliseconds(50)) return std::nullopt;
  if (samples_.back().bytes < samples_.front().bytes) return std::nullopt;
  return static_cast<double>(samples_.back().bytes - samples_.front().bytes) /
         std::chrono::duration<double>(span).count();
}

std::optional<Duration> ProgressReporter::time_left() const {
  const auto rate = rate_bytes_per_s();
  if (!rate || *rate <= 0 || bytes_total_ == 0 || bytes_done_ > bytes_total_) return std::nullopt;
  const double seconds = static_cast<double>(bytes_total_ - bytes_done_) / *rate;
  constexpr double seconds_max = 1e9;  // thirty years; keeps the conversion in range
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, seconds_max)));
}

std::string ProgressReporter::bar_line() const {
  std::string facts = fmt::format("{:<6} ", phase_);
  if (bytes_total_ != 0) {
    const double share = static_cast<double>(bytes_done_) / static_cast<double>(bytes_total_);
    // Rounded down, so that 100% means all of it.
    facts += fmt::format("{:3}%  {} of {}", static_cast<unsigned>(std::min(share, 1.0) * 100),
                         format_bytes(bytes_done_), format_bytes(bytes_total_));
  } else {
    facts += format_bytes(bytes_done_);
  }
  if (const auto rate = rate_bytes_per_s())
    facts += fmt::format("  {}/s", format_bytes(static_cast<std::uint64_t>(*rate)));
  if (const auto left = time_left(); left && bytes_done_ < bytes_total_)
    facts += fmt::format("  {} left", format_time(*left));

  // The last column stays free: some terminals wrap when it is written.
  const std::size_t columns = output_.width - 1;
  if (facts.size() >= columns) return facts.substr(0, columns);
  std::string subject = printable(subject_);
  if (subject.empty() || facts.size() + 6 > columns) return facts;
  const std::size_t room = columns - facts.size() - 2;
  if (subject.size() > room) {
    std::size_t from = subject.size() - room + 3;
    while (from < subject.size() && (static_cast<unsigned char>(subject[from]) & 0xc0) == 0x80)
      ++from;  // UTF-8
    subject = "..." + subject.substr(from);
  }
  return subject + "  " + facts;
}

std::string ProgressReporter::json_line(TimePoint now) const {
  boost::json::object line;
  line["subject"] = subject_;
  line["phase"] = phase_;
  line["done"] = bytes_done_;
  line["total"] = bytes_total_;
  if (const auto rate = rate_bytes_per_s()) line["rate"] = static_cast<std::uint64_t>(*rate);
  if (const auto left = time_left())
    line["seconds-left"] = std::chrono::duration_cast<std::chrono::seconds>(*left).count();
  line["phase-ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(now - phase_started_).count();
  return to_json_line(line);
}

}  // namespace diskferry::cli
