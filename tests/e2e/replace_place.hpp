// An export of a real daemon with clients that write to it, for tests that replace its storage.
#pragma once

#include "diskferry/image_uri.hpp"
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/e2e/daemon_program.hpp"
#include "tests/support/sector_model.hpp"

#include <atomic>
#include <fmt/format.h>
#include <random>
#include <utility>

namespace diskferry::test {

inline constexpr std::uint64_t disk_bytes = 48 * mib;

/// What a disk of `disk_bytes` holds where nobody has written: no zeros, and for a model `unwritten`.
inline std::vector<std::byte> full_disk() {
  return {disk_bytes, std::byte{0xEE}};
}
inline void make_full_disk(const std::string& path) {
  const auto content = full_disk();
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(content.data()), disk_bytes);
}

/// Clients of an export that write, zero, discard, flush and read at random until they are told to end.
class Clients {
 public:
  /// Without `flushes` they live through a server that is killed: this client takes the loss of a connection
  /// for that of what was not flushed, which a killed process does not lose.
  struct Options {
    bool flushes = true;
    Range area{0, disk_bytes};  ///< where they write and read
    std::uint64_t initial = 0;  ///< what the disk holds
  };
  Clients(const std::string& uri, unsigned count, Options options)
      : flushes_(options.flushes),
        area_(options.area),
        model_(disk_bytes, options.initial, SectorModel::InFlight::may_be_torn),
        group_(runtime().reactor(0)) {
    // A daemon that is started anew is a wait and no error.
    const auto named = must(ImageUri::parse(uri + "&reconnect-timeout=60"));
    device_ = must(run(open_storage(runtime().context(), named, {.writable = true})));
    for (unsigned i = 0; i < count; ++i) group_.spawn_on(runtime().reactor(i), work(i + 1));
  }
  ~Clients() { end(); }
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  void end() {
    if (std::exchange(has_ended_, true)) return;
    ends_ = true;
    must(run(group_.join()));
    if (flushes_) must(run(device_->flush()));
    must(run(device_->close()));
    for (const std::string& problem : problems_) ADD_FAILURE() << problem;
  }
  std::uint64_t writes() const { return writes_; }
  Duration longest_write() const { return longest_write_.load(); }
  /// A write of one's own, which the others do not meet where it is outside of their area.
  void write_once(Range range) {
    must(run([](Clients& of, Range where) -> Task<Result<void>> {
      co_await of.write(where, false);
      co_return Result<void>{};
    }(*this, range)));
  }
  /// Reads a disk, from wherever, and says what is wrong with it.
  std::string check(const std::string& uri) { return check(bytes_of(uri), {0, disk_bytes}); }
  std::string check(std::span<const std::byte> disk, Range range) {
    return model_.check(disk.subspan(range.offset, range.length), range.offset, model_.now());
  }
  static std::vector<std::byte> bytes_of(const std::string& uri) {
    const auto device = must(run(open_storage(runtime().context(), must(ImageUri::parse(uri)), {})));
    std::vector<std::byte> bytes(disk_bytes);
    must(run(device->read(0, bytes)));
    must(run(device->close()));
    return bytes;
  }

 private:
  Task<Result<void>> work(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!ends_) {
      const std::uint64_t sectors = area_.length / sector_bytes;
      const std::uint64_t first = random() % (random() % 2 == 0 ? sectors : sectors / 64);
      const std::uint64_t count = std::min(sectors - first, 1 + random() % (random() % 4 == 0 ? 512 : 16));
      const Range range{area_.offset + first * sector_bytes, count * sector_bytes};
      const auto what = random() % 16;
      if (what < 10) {
        co_await write(range, flushes_ && random() % 8 == 0);
      } else if (what < 12) {
        co_await zero(range);
      } else if (what < 15) {
        co_await read(range);
      } else if (flushes_) {
        note(co_await device_->flush(), "flush");
      }
    }
    co_return Result<void>{};
  }
  Task<void> write(Range range, bool fua) {
    const std::uint64_t content = 100 + ++contents_;
    std::vector<std::byte> bytes(range.length);
    fill_sectors(bytes, content, range.offset / sector_bytes);
    const auto token = model_.begin(range, content);
    const TimePoint begin = runtime().context().clock.now();
    const auto done = co_await device_->write(range.offset, bytes, {.fua = fua});
    const Duration took = runtime().context().clock.now() - begin;
    for (Duration longest = longest_write_; took > longest;)
      if (longest_write_.compare_exchange_weak(longest, took)) break;
    if (done) model_.end(token);
    note(done, "write");
    ++writes_;
  }
  Task<void> zero(Range range) {
    const auto token = model_.begin(range, 0);
    const auto done = co_await device_->write_zeroes(range, {});
    if (done) model_.end(token);
    note(done, "zero");
  }
  Task<void> read(Range range) {
    std::vector<std::byte> bytes(range.length);
    const auto since = model_.now();
    const auto done = co_await device_->read(range.offset, bytes);
    note(done, "read");
    if (done) report(model_.check(bytes, range.offset, since));
  }
  void note(const Result<void>& result, const std::string& verb) {
    if (!result) report(verb + ": " + result.error().message());
  }
  void report(const std::string& problem) {
    if (problem.empty()) return;
    std::lock_guard lock(guard_);
    if (problems_.size() < 5) problems_.push_back(problem);
  }

  const bool flushes_;
  const Range area_;
  SectorModel model_;
  DevicePtr device_;
  std::mutex guard_;
  std::vector<std::string> problems_;
  std::atomic<std::uint64_t> contents_ = 0;
  std::atomic<std::uint64_t> writes_ = 0;
  std::atomic<Duration> longest_write_ = Duration::zero();
  std::atomic<bool> ends_ = false;
  bool has_ended_ = false;
  TaskGroup group_;
};

/// A daemon with one export that clients write to.
struct Place {
  enum class Gateway : std::uint8_t { stays, is_killed };
  explicit Place(Gateway gateway = Gateway::stays, const std::string& format = "raw")
      : first(images / ("first." + format)),
        daemon((tool({"qemu-img", "create", "-q", "-f", format, first, std::to_string(disk_bytes)}),
                export_table("vm", first, "format = \"" + format + "\"\nwritable = true\n"))),
        clients(daemon.uri("vm"), 4, {.flushes = gateway == Gateway::stays}) {}

  /// The same over any storage.
  Place(const std::string& image, Clients::Options options)
      : first(image),
        daemon(export_table("vm", image, "format = \"raw\"\nwritable = true\n")),
        clients(daemon.uri("vm"), 4, options) {}

  bool write_on(std::uint64_t more = 50) const {
    return wait_until([&, before = clients.writes()] { return clients.writes() >= before + more; },
                      std::chrono::seconds(60));
  }
  std::string replace(const std::string& target, std::vector<std::string> more = {}) const {
    // A busy machine may take its time over what is held.
    more.insert(more.begin(), {"replace", "vm", target, "--progress", "none", "--max-pause", "5000"});
    const auto ran = daemon.ask(more);
    EXPECT_EQ(ran.exit_code, 0) << ran.err << text_of(daemon.log());
    return ran.out;
  }
  /// Its name.
  std::string begin(const std::string& target, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"replace", "vm", target, "--detach", "--max-pause", "5000"});
    const auto ran = daemon.ask(more);
    EXPECT_EQ(ran.exit_code, 0) << ran.err << text_of(daemon.log());
    return ran.out.substr(0, ran.out.find('\n'));
  }
  boost::json::value job(const std::string& name) const {
    return parse_json(daemon.ask({"status", name, "--json"}).out);
  }
  std::string field(const std::string& name, std::string_view which) const {
    return std::string(job(name).at(which).as_string());
  }
  std::string status(const std::string& name) const { return field(name, "phase"); }
  bool comes_to(const std::string& name, std::string_view which, std::string_view value) const {
    const bool has_come = wait_until([&] { return field(name, which) == value; }, std::chrono::seconds(60));
    if (!has_come) ADD_FAILURE() << daemon.ask({"status", name, "--json"}).out << text_of(daemon.log());
    return has_come;
  }
  void tell(std::vector<std::string> words) const {
    const auto ran = daemon.ask(std::move(words));
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
  }

  TemporaryFolder images;
  std::string first;
  Daemon daemon;
  Clients clients;
};

}  // namespace diskferry::test
