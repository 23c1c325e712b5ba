// Both ends of the control API: the first byte says whether the rest is what a client sends to a server, or
// what a gateway answers to a client; the second in what pieces it arrives. Whatever comes must be read to
// its end or refused, and every request must be answered.
#include "diskferry/assert.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/routes.hpp"
#include "gateway/control/web.hpp"
#include "tests/unit/control/fake_gateway.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

using namespace diskferry;
using namespace diskferry::control;

namespace {

/// Gives the input in pieces and takes anything.
class InputStream final : public ByteStream {
 public:
  InputStream(std::span<const std::byte> input, std::size_t piece_bytes)
      : input_(input), piece_bytes_(piece_bytes) {}
  Task<Result<std::size_t>> read_some(std::span<std::byte> into) override {
    DISKFERRY_ASSERT(!into.empty(), "a read asks for something");
    const std::size_t now = std::min({input_.size(), into.size(), piece_bytes_});
    if (now != 0) std::memcpy(into.data(), input_.data(), now);
    input_ = input_.subspan(now);
    co_return now;
  }
  Task<Result<void>> write(std::span<const std::byte>) override { co_return Result<void>{}; }
  bool is_disturbed() override { return false; }
  void say_goodbye() override {}

 private:
  std::span<const std::byte> input_;
  std::size_t piece_bytes_;
};

Task<Result<void>> serve(InputStream& stream, const Limits& limits) {
  SystemClock clock;
  test::FakeGateway gateway(clock);
  WebResponder web(gateway, {});
  HttpReader reader(stream, limits);
  while (true) {
    DISKFERRY_CO_TRY(auto request, co_await reader.read_request());
    if (!request) co_return Result<void>{};
    DISKFERRY_ASSERT(request->body.size() <= limits.body_bytes_max, "a body is bounded");
    const bool may_look =
        is_our_host(request->host, {}) && (request->method == "GET" || request->method == "HEAD");
    const Answer looked = co_await web.answer(*request, {.rights = Rights::look});
    DISKFERRY_ASSERT(may_look || looked.response.status >= 400, "a stranger is refused, and so is a change");
    const Answer given = co_await answer(gateway, limits, std::move(*request), {.rights = Rights::operate});
    DISKFERRY_ASSERT(given.response.status >= 200 && given.response.status < 600,
                     "every request is answered");
  }
}

Task<Result<void>> read_answers(InputStream& stream, const Limits& limits) {
  HttpReader reader(stream, limits);
  while (true) {
    DISKFERRY_CO_TRY(const HttpResponse response, co_await reader.read_response());
    (void)error_from_json(response.body, response.status).message();
    (void)from_json<JobDescription>(response.body, Unknown::ignored, limits.json_depth_max);
    (void)from_json<std::vector<ExportDescription>>(response.body, Unknown::ignored, limits.json_depth_max);
  }
}

Task<Result<void>> read_events(InputStream& stream, const Limits& limits) {
  HttpReader reader(stream, limits);
  DISKFERRY_CO_TRY(const HttpResponse head, co_await reader.read_head());
  if (head.status != 200) co_return Result<void>{};
  while (true) {
    DISKFERRY_CO_TRY(const auto line, co_await reader.read_line());
    if (!line) co_return Result<void>{};
    (void)from_json<JobEvent>(*line, Unknown::ignored, limits.json_depth_max);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  Limits limits;
  limits.header_bytes_max = 512;
  limits.body_bytes_max = 2048;
  limits.answer_bytes_max = 4096;
  limits.event_bytes_max = 1024;
  InputStream stream(std::as_bytes(std::span(data, size)).subspan(2), data[1] == 0 ? size : data[1]);
  boost::asio::io_context reactor{1};
  auto task = data[0] % 3 == 0   ? serve(stream, limits)
              : data[0] % 3 == 1 ? read_answers(stream, limits)
                                 : read_events(stream, limits);
  boost::asio::co_spawn(Executor(reactor.get_executor()), top_frame(std::move(task)),
                        [](std::exception_ptr thrown, const Result<void>& result) {
                          if (thrown || (!result && result.error().kind() == ErrorKind::internal))
                            std::abort();
                        });
  reactor.run();
  return 0;
}
