// What a test process is that somebody kills: it has a folder, and a server that a thread of its started. Run
// by leftovers_test.cpp, which looks for both afterwards; writes where they are to NOTE.pid and NOTE.folder.
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <csignal>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

int main(int, char** arguments) {
  using namespace diskferry::test;
  const std::string note = arguments[1];
  const TemporaryFolder folder;
  std::unique_ptr<ChildProcess> server;
  std::thread([&] {
    server = std::make_unique<ChildProcess>(std::vector<std::string>{"sleep", "1000"});
  }).join();
  std::ofstream(note + ".pid") << server->pid();
  std::ofstream(note + ".folder") << folder.path();
  std::raise(SIGKILL);
}
