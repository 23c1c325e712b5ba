// The storages of a simulated world, opened by a driver of their own: sim://world/NAME. They are there or
// not, are made and removed, go away and come back, and lose what was not flushed when nobody looks.
#pragma once

#include "tests/simulation/disk.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace diskferry::sim {

struct Volume {
  Volume(std::uint64_t size_bytes, std::uint64_t content, ZeroSupport zero)
      : platter(size_bytes, content), zero(zero) {}
  Platter platter;
  ZeroSupport zero;
  bool exists = true;
  bool is_new = false;                      ///< made, and not opened yet
  unsigned made = 1;                        ///< what is made anew is another one
  unsigned open = 0;                        ///< devices that are
  std::optional<ErrorKind> making_fails{};  ///< and leaves nothing behind
  std::optional<ErrorKind> made_fails{};    ///< once it is there: the answer is lost
  bool may_lose = false;                    ///< its cache, while nobody has it open
  unsigned last_opening = 0;
  /// Who opened it last has nothing any more.
  bool is_lost() const { return last_opening != platter.openings; }
};

/// One a world. Lifetime: the world's, and longer than every device.
class Storages {
 public:
  explicit Storages(World& world);
  ~Storages();
  Storages(const Storages&) = delete;
  Storages& operator=(const Storages&) = delete;

  Volume& add(const std::string& name, std::unique_ptr<Volume> volume);
  /// Null: there is none of that name.
  Volume* find(const std::string& name);
  static std::string uri_of(const std::string& name) { return "sim://world/" + name; }

  /// The process that has devices open dies: they do nothing any more, and nothing can be opened.
  void die();
  void live() { is_dead_ = false; }
  bool is_dead() const { return is_dead_; }
  /// What was done to a storage that must not be; empty: nothing.
  const std::string& problem() const { return problem_; }

 private:
  static Task<Result<DevicePtr>> open(DriverContext& context, ImageUri uri, OpenOptions options);
  static Task<Result<void>> create(DriverContext& context, ImageUri uri, CreateOptions options);
  static Task<Result<VolumeFacts>> look(DriverContext& context, ImageUri uri, LookOptions options);
  static Task<Result<void>> remove(DriverContext& context, ImageUri uri);
  /// `effect`, where there is one: what it does, which is not sent again.
  Task<Result<Volume*>> reach(ImageUri uri, const char* verb, std::function<void(Volume&)> effect = {});
  void make(const ImageUri& uri, Volume& volume);
  void unmake(const ImageUri& uri, Volume& volume);

  static Storages* current;
  World& world_;
  std::map<std::string, std::unique_ptr<Volume>> volumes_;
  bool is_dead_ = false;
  std::string problem_;
};

}  // namespace diskferry::sim
