// A daemon with a configuration of its own, as tests run it.
#pragma once

#include "tests/e2e/program.hpp"
#include "tests/support/child_process.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>

namespace diskferry::test {

inline std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A daemon with a configuration of its own; ready when the constructor returns.
class Daemon {
 public:
  explicit Daemon(const std::string& more = {}, bool starts = true) {
    std::ofstream(config()) << "name = \"host-a\"\n[control]\nsocket = \"" << control()
                            << "\"\n[nbd]\nlisten = \"unix:" << nbd() << "\"\n[state]\nfolder = \""
                            << (folder_ / "state") << "\"\n[move]\nrun-folder = \"" << folder_.path()
                            << "\"\n"
                            << more;
    if (starts) start();
  }
  /// `environment`: further variables, as NAME=VALUE.
  void start(const std::vector<std::string>& environment = {}) {
    std::filesystem::remove(log());  // or the last one's READY would be taken for this one's
    std::vector<std::string> words{"env"};
    words.insert(words.end(), environment.begin(), environment.end());
    words.insert(words.end(), {DISKFERRYD_PROGRAM, "--config", config()});
    process_ = std::make_unique<ChildProcess>(words, log());
    EXPECT_TRUE(wait_until([&] { return text_of(log()).find("READY unix:") != std::string::npos; }))
        << text_of(log());
  }
  /// The exit code after SIGTERM.
  int end() {
    process_->signal(SIGTERM);
    return process_->wait(std::chrono::seconds(30));
  }
  ProgramResult ask(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--gateway", "unix:" + control()});
    return diskferry(std::move(arguments));
  }
  std::string uri(const std::string& name) const { return "nbd+unix:///" + name + "?socket=" + nbd(); }
  std::string config() const { return folder_ / "config.toml"; }
  std::string control() const { return folder_ / "control"; }
  std::string nbd() const { return folder_ / "nbd"; }
  std::string log() const { return folder_ / "log"; }
  ChildProcess& process() { return *process_; }
  const TemporaryFolder& folder() const { return folder_; }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<ChildProcess> process_;
};

inline std::string export_table(const std::string& name, const std::string& image,
                                const std::string& more = {}) {
  return "[[export]]\nname = \"" + name + "\"\nimage = \"" + image + "\"\n" + more;
}

}  // namespace diskferry::test
