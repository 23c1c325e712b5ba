// What commands that talk to a gateway share: `--gateway URI`, the connection, and how a job is printed.
#pragma once

#include "gateway/cli/command.hpp"
#include "gateway/control/client.hpp"

#include <functional>
#include <memory>
#include <ostream>
#include <string>

namespace diskferry::cli {

/// --gateway URI; without it the environment's DISKFERRY_GATEWAY, else the daemon of this host.
void add_gateway_option(CLI::App& app, std::string& uri);

/// Connects. Errors: as ControlClient::connect.
Task<Result<std::unique_ptr<control::ControlClient>>> reach_gateway(DriverContext& context, std::string uri);

/// The API's own JSON text, with indentation.
void print_api_json(std::ostream& out, const std::string& text);

/// "2026-11-26 23:59:01" in local time; empty for 0.
std::string local_time(std::int64_t time_ms);
/// A job with everything that is known of it.
void print_job(std::ostream& out, const control::JobDescription& job);
/// The report of a job that has ended, for people; empty: it has none.
std::vector<std::string> report_of(const control::JobDescription& job);

}  // namespace diskferry::cli
