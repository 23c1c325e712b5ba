// A resolver that is silent for longer than the client may wait. getaddrinfo is replaced for the whole
// program, libnbd included, by one that hangs on one name until it is let go.
#include "drivers/registry.hpp"
#include "tests/support/test_runtime.hpp"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <netdb.h>

#include <gtest/gtest.h>

namespace {
std::mutex guard;
std::condition_variable changed;
bool is_let_go = false;
unsigned hanging = 0;
}  // namespace

extern "C" int getaddrinfo(const char* host, const char* port, const addrinfo* hints, addrinfo** found) {
  if (host != nullptr && std::strcmp(host, "silent.example") == 0) {
    std::unique_lock lock(guard);
    ++hanging;
    changed.wait_for(lock, std::chrono::seconds(60), [] { return is_let_go; });
    --hanging;
    changed.notify_all();
    return EAI_AGAIN;
  }
  if (host != nullptr && std::strcmp(host, "nobody.example") == 0) return EAI_NONAME;
  using Resolver = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto real = reinterpret_cast<Resolver>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return real(host, port, hints, found);
}

namespace diskferry {
namespace {
using namespace test;

Error open_error(const std::string& uri) {
  auto device = run(open_storage(runtime().context(), must(ImageUri::parse(uri)), {}));
  EXPECT_FALSE(device);
  return device ? fail(ErrorKind::internal, "open") : device.error();
}

TEST(HostLookup, ASilentResolverDoesNotHoldTheClient) {
  const auto begun = std::chrono::steady_clock::now();
  const Error error = open_error("nbd://silent.example/?connect-timeout=1");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20));
  EXPECT_EQ(error.kind(), ErrorKind::timed_out) << error.message();
  std::unique_lock lock(guard);
  EXPECT_EQ(hanging, 1u);
  is_let_go = true;
  changed.notify_all();
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [] { return hanging == 0; }));
}

TEST(HostLookup, AnUnknownNameIsNotFound) {
  const Error error = open_error("nbd://nobody.example/");
  EXPECT_EQ(error.kind(), ErrorKind::not_found) << error.message();
  EXPECT_NE(error.message().find("nobody.example"), std::string::npos) << error.message();
}

TEST(HostLookup, ANameWithAnAddressIsConnectedTo) {
  // Port 1 is nobody's: refused, after the lookup.
  const Error error = open_error("nbd://localhost:1/");
  EXPECT_EQ(error.kind(), ErrorKind::gone) << error.message();
}

}  // namespace
}  // namespace diskferry
