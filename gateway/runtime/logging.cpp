// Logging set-up. Hostile names may be in log texts: both forms escape control characters.
#include "gateway/runtime/logging.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <fmt/format.h>
#include <memory>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <spdlog/details/null_mutex.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::trace:
      return spdlog::level::trace;
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warn:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::warn;
}

std::string utc(std::int64_t time_ms) {
  const std::time_t seconds = time_ms / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, time_ms % 1000);
}

std::string level_name(spdlog::level::level_enum level) {
  return level == spdlog::level::warn  ? "warn"
         : level == spdlog::level::err ? "error"
                                       : std::string(spdlog::level::to_string_view(level).data());
}

class LineFormatter final : public spdlog::formatter {
 public:
  explicit LineFormatter(LogFormat format) : format_(format) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& into) override {
    const auto time_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(message.time.time_since_epoch()).count();
    const std::string text(message.payload.data(), message.payload.size());
    const std::string line =
        format_ == LogFormat::json
            ? json_log_line(time_ms, level_name(message.level), text)
            : fmt::format("{} {:<5} {}", utc(time_ms), level_name(message.level), printable(text));
    into.append(line.data(), line.data() + line.size());
    into.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<LineFormatter>(format_);
  }

 private:
  LogFormat format_;
};

std::array<std::atomic<std::uint64_t>, spdlog::level::n_levels> line_counts{};

/// Writes nothing; counts.
class CountingSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    ++line_counts[static_cast<std::size_t>(message.level)];
  }
  void flush_() override {}
};

}  // namespace

std::map<std::string, std::uint64_t> log_line_counts() {
  std::map<std::string, std::uint64_t> counts;
  for (const auto level :
       {spdlog::level::debug, spdlog::level::info, spdlog::level::warn, spdlog::level::err})
    counts[level_name(level)] = line_counts[static_cast<std::size_t>(level)].load();
  return counts;
}

std::string json_log_line(std::int64_t time_ms, const std::string& level, const std::string& event) {
  boost::json::object line;
  line["time"] = utc(time_ms);
  line["level"] = level;
  line["event"] = event;
  return boost::json::serialize(line);
}

void start_logging(const LogOptions& options) {
  const spdlog::sinks_init_list sinks{std::make_shared<spdlog::sinks::stderr_sink_mt>(),
                                      std::make_shared<CountingSink>()};
  auto logger = std::make_shared<spdlog::logger>("diskferry", sinks);
  logger->set_formatter(std::make_unique<LineFormatter>(options.format));
  logger->set_level(to_spdlog(options.level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace diskferry
