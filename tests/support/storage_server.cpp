// See the header.
#include "tests/support/storage_server.hpp"

#include <array>
#include <fcntl.h>
#include <fstream>
#include <stdexcept>
#include <unistd.h>

namespace diskferry::test {
namespace {
constexpr Duration start_limit = std::chrono::seconds(60);
constexpr Duration end_limit = std::chrono::seconds(30);

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}
}  // namespace

StorageServer::StorageServer(std::string kind, std::vector<std::string> options) : kind_(std::move(kind)) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  input_ = pipe[1];
  const std::string said = folder_ / "said";
  const std::string log = folder_ / "log";
  const int out = ::open(said.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const int err = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  std::vector<std::string> arguments{front_end(), "hold", folder()};
  arguments.insert(arguments.end(), options.begin(), options.end());
  process_ = std::make_unique<ChildProcess>(arguments, Streams{.in = pipe[0], .out = out, .err = err});
  for (const int one : {pipe[0], out, err}) ::close(one);
  const bool is_up =
      wait_until([&] { return text_of(said).contains("READY\n") || !process_->is_running(); }, start_limit);
  if (!is_up || !text_of(said).contains("READY\n"))
    throw std::runtime_error(kind_ + " did not start: " + text_of(log));
  std::ifstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find('=');
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + 1);
    if (value.starts_with('\'') && value.ends_with('\'')) value = value.substr(1, value.size() - 2);
    variables_.emplace(line.substr(0, at), std::move(value));
  }
}

StorageServer::~StorageServer() {
  ::close(input_);
  process_->wait(end_limit);
}

std::string StorageServer::front_end() const {
  return std::string(TESTBED) + "/" + kind_;
}

const std::string& StorageServer::variable(const std::string& name) const {
  const auto found = variables_.find(name);
  if (found == variables_.end()) throw std::runtime_error(kind_ + " has no " + name);
  return found->second;
}

void StorageServer::tell(const std::string& verb) {
  const ProgramResult done = run_program({front_end(), verb, folder()});
  if (done.exit_code != 0) throw std::runtime_error(kind_ + " " + verb + ": " + done.err);
}

}  // namespace diskferry::test
