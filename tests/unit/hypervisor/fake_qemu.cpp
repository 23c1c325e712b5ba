#include "tests/unit/hypervisor/fake_qemu.hpp"

#include <cstring>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <boost/json/parse.hpp>

namespace diskferry::test {

void FakeQemuClient::send(std::string_view text) const {
  while (!text.empty()) {
    const auto sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void FakeQemuClient::greet() const {
  send(
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}})"
      "\r\n");
}

std::uint64_t FakeQemuClient::next(std::string& name) {
  while (!unread_.contains('\n')) {
    char buffer[4096];
    const auto got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got <= 0) return 0;
    unread_.append(buffer, static_cast<std::size_t>(got));
  }
  const auto end = unread_.find('\n');
  const auto command = boost::json::parse(unread_.substr(0, end)).as_object();
  unread_.erase(0, end + 1);
  name = command.at("execute").as_string().c_str();
  return command.at("id").to_number<std::uint64_t>();
}

void FakeQemuClient::reply(std::uint64_t id, std::string_view json) const {
  send("{\"return\": " + std::string(json) + ", \"id\": " + std::to_string(id) + "}\r\n");
}

void FakeQemuClient::answer_next() {
  std::string name;
  reply(next(name));
}

void FakeQemuClient::begin() {
  greet();
  answer_next();
}

void FakeQemuClient::wait_for_end() {
  std::string name;
  while (next(name) != 0) {
  }
}

FakeQemu::FakeQemu(std::function<void(FakeQemuClient&)> behave)
    : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket().c_str(), sizeof address.sun_path - 1);
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 1) != 0)
    throw std::runtime_error("no socket for the fake monitor");
  thread_ = std::jthread([this, behave = std::move(behave)] {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    FakeQemuClient client(fd);
    behave(client);
    ::close(fd);
  });
}

FakeQemu::~FakeQemu() {
  ::shutdown(listener_, SHUT_RDWR);  // ends an accept that nobody came to
  thread_.join();
  ::close(listener_);
}

}  // namespace diskferry::test
