// StorageServer: a real storage server of scripts/testbed (Ceph, iSCSI, NFS, GlusterFS) for one test.
#pragma once

#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <map>
#include <string>
#include <vector>

namespace diskferry::test {

/// In a folder of its own; up when the constructor returns, gone with its data when the object is. Throws
/// where it does not start.
class StorageServer {
 public:
  /// `kind`: a front end of scripts/testbed ("nfs"); `options` are its own ("--small", "67108864").
  explicit StorageServer(std::string kind, std::vector<std::string> options = {});
  ~StorageServer();
  StorageServer(const StorageServer&) = delete;
  StorageServer& operator=(const StorageServer&) = delete;

  /// What `env` of the front end prints ("NFS_ADDR"). Throws where there is no such name.
  const std::string& variable(const std::string& name) const;
  /// A verb of the front end ("kill9", "start", "hang", "cont", "stop").
  void tell(const std::string& verb);
  std::string folder() const { return folder_ / "server"; }

 private:
  std::string front_end() const;

  const std::string kind_;
  TemporaryFolder folder_;
  int input_ = -1;  // its end is the server's
  std::unique_ptr<ChildProcess> process_;
  std::map<std::string, std::string> variables_;
};

}  // namespace diskferry::test
