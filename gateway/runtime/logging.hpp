// The process's log: text for people or one JSON object a line for machines, both on stderr. Rooms log
// through spdlog's default logger with fixed event text; start_logging() is called once, by main().
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace diskferry {

enum class LogLevel : std::uint8_t { trace, debug, info, warn, error };
enum class LogFormat : std::uint8_t { text, json };
inline const std::map<std::string, LogLevel> log_levels{{"trace", LogLevel::trace},
                                                        {"debug", LogLevel::debug},
                                                        {"info", LogLevel::info},
                                                        {"warn", LogLevel::warn},
                                                        {"error", LogLevel::error}};
inline const std::map<std::string, LogFormat> log_formats{{"text", LogFormat::text},
                                                          {"json", LogFormat::json}};

struct LogOptions {
  LogLevel level = LogLevel::warn;
  LogFormat format = LogFormat::text;
};

/// Sets spdlog's default logger. Call once, before threads that log are started.
void start_logging(const LogOptions& options);

/// Lines written so far, by the level's name.
std::map<std::string, std::uint64_t> log_line_counts();

/// One log line in JSON, without a newline: time (RFC 3339, UTC), level, event. Exposed for tests.
std::string json_log_line(std::int64_t time_ms, const std::string& level, const std::string& event);

}  // namespace diskferry
