// A file system that is soon full.
#pragma once

#include "tests/support/test_runtime.hpp"

#include <string>
#include <string_view>

namespace diskferry::test {

/// A small tmpfs, for as long as it lives. That takes root: without it nothing is mounted.
class SmallFileSystem {
 public:
  /// As mount(8) takes it: "64M".
  explicit SmallFileSystem(const std::string& size);
  ~SmallFileSystem();
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;
  bool is_mounted() const { return is_mounted_; }
  std::string operator/(std::string_view name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
  bool is_mounted_ = false;
};

}  // namespace diskferry::test
