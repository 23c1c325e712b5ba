// The devices that are on a server, as the contract suite opens them: real servers of scripts/testbed.
#include "drivers/registry.hpp"
#include "tests/contract/subject.hpp"
#include "tests/support/storage_server.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

std::string next_file() {
  static std::atomic<unsigned> files = 0;
  return fmt::format("disk{}.raw", ++files);
}

/// One server for all cases, as of each kind: starting one takes up to seconds. Each device is a file of its
/// own.
Subject nfs_subject() {
  return {.name = "nfs",
          .open =
              [](std::uint64_t size_bytes) {
                static const StorageServer server("nfs");
                const std::string file = next_file();
                const auto uri = must(ImageUri::parse(
                    fmt::format("nfs://{}{}/{}?nfsport={}&mountport={}", server.variable("NFS_ADDRESS"),
                                server.variable("NFS_EXPORT"), file, server.variable("NFS_PORT"),
                                server.variable("NFS_MOUNT_PORT"))));
                auto& context = runtime().context();
                must(run(create_storage(context, uri, {.size_bytes = size_bytes})));
                Opened opened{};
                opened.device = must(run(open_storage(context, uri, {.writable = true})));
                opened.storage = [path = server.variable("NFS_PATH") + "/" + file] {
                  return bytes_of_file(path);
                };
                return opened;
              },
          .is_sparse = false,
          .slowness = 8};
}

const StorageServer& ceph_cluster() {
  static const StorageServer server("ceph");
  return server;
}

Subject rbd_subject(std::string name, std::string keys, bool is_sparse) {
  return {.name = std::move(name),
          .open =
              [keys = std::move(keys)](std::uint64_t size_bytes) {
                static std::atomic<unsigned> images = 0;
                const StorageServer& server = ceph_cluster();
                const std::string image = fmt::format("disk{}", ++images);
                const auto uri =
                    must(ImageUri::parse(fmt::format("rbd://{}/{}?conf={}{}", server.variable("CEPH_POOL"),
                                                     image, server.variable("CEPH_CONF"), keys)));
                auto& context = runtime().context();
                must(run(create_storage(context, uri, {.size_bytes = size_bytes})));
                Opened opened{};
                opened.device = must(run(open_storage(context, uri, {.writable = true})));
                opened.storage = [&server, image] {
                  const TemporaryFolder folder;
                  const std::string copy = folder / "image";
                  const auto exported =
                      run_program({"rbd", "-c", server.variable("CEPH_CONF"), "export", "--no-progress",
                                   server.variable("CEPH_POOL") + "/" + image, copy});
                  EXPECT_EQ(exported.exit_code, 0) << exported.err;
                  return bytes_of_file(copy);
                };
                return opened;
              },
          .is_sparse = is_sparse,
          .slowness = 4};
}

Subject gluster_subject() {
  return {.name = "gluster",
          .open =
              [](std::uint64_t size_bytes) {
                static const StorageServer server("gluster");
                const std::string file = next_file();
                const auto uri =
                    must(ImageUri::parse(fmt::format("{}/{}", server.variable("GLUSTER_URI"), file)));
                auto& context = runtime().context();
                must(run(create_storage(context, uri, {.size_bytes = size_bytes})));
                Opened opened{};
                opened.device = must(run(open_storage(context, uri, {.writable = true})));
                opened.storage = [path = server.variable("GLUSTER_BRICK") + "/" + file] {
                  return bytes_of_file(path);
                };
                return opened;
              },
          .slowness = 8};
}

enum class Provisioning : bool { thick, thin };

/// A LUN of a server that all cases share; its number is gone with the object.
class IscsiLun {
 public:
  IscsiLun(std::uint64_t size_bytes, std::uint32_t block_bytes, Provisioning provisioning) {
    std::ofstream(file()).close();
    std::filesystem::resize_file(file(), size_bytes);
    tell({"--op", "new", "--bstype", "rdwr", "--blocksize", fmt::format("{}", block_bytes), "--backing-store",
          file()});
    tell({"--op", "update", "--params",
          fmt::format("thin_provisioning={}", provisioning == Provisioning::thin ? 1 : 0)});
  }
  ~IscsiLun() {
    tell({"--op", "delete"});
    std::filesystem::remove(file());
  }
  IscsiLun(const IscsiLun&) = delete;
  IscsiLun& operator=(const IscsiLun&) = delete;

  std::string uri() const {
    return fmt::format("iscsi://{}/{}/{}", server().variable("ISCSI_PORTAL"), server().variable("ISCSI_IQN"),
                       number_);
  }
  std::string file() const { return fmt::format("{}/lun{}.img", server().variable("ISCSI_IMAGES"), number_); }

 private:
  static StorageServer& server() {
    static StorageServer one("iscsi", {"--size", "0"});
    return one;
  }
  void tell(const std::vector<std::string>& words) const {
    const std::string socket = server().folder() + "/run/ctl";
    const std::string number = fmt::format("{}", number_);
    std::vector<std::string> command{"env", "TGT_IPC_SOCKET=" + socket, "tgtadm"};
    for (const char* word : {"-C", "1", "--lld", "iscsi", "--mode", "logicalunit", "--tid", "1", "--lun"})
      command.emplace_back(word);
    command.push_back(number);
    command.insert(command.end(), words.begin(), words.end());
    const auto done = run_program(command);
    EXPECT_EQ(done.exit_code, 0) << done.err;
  }

  inline static int next_number_ = 1;  // 0 is the target's controller
  const int number_ = next_number_++;
};

Subject iscsi_subject(std::string name, std::uint32_t block_bytes, Provisioning provisioning) {
  return {.name = std::move(name),
          .open =
              [=](std::uint64_t size_bytes) {
                const auto lun = std::make_shared<IscsiLun>(size_bytes, block_bytes, provisioning);
                const auto uri = must(ImageUri::parse(lun->uri()));
                Opened opened{.ground = lun};
                opened.device = must(run(open_storage(runtime().context(), uri, {.writable = true})));
                EXPECT_EQ(opened.device->info().block_bytes, block_bytes);
                opened.storage = [lun] { return bytes_of_file(lun->file()); };
                return opened;
              },
          .size_unit = block_bytes,
          .is_sparse = provisioning == Provisioning::thin,
          .slowness = 8};
}

}  // namespace

std::vector<Subject> storage_subjects() {
  return {nfs_subject(),
          rbd_subject("rbd", "", true),
          rbd_subject("rbd_small_objects", "&object-size=64K", false),
          gluster_subject(),
          iscsi_subject("iscsi", 512, Provisioning::thin),
          iscsi_subject("iscsi_thick", 512, Provisioning::thick),
          iscsi_subject("iscsi_blocks_of_4096", 4096, Provisioning::thin)};
}

}  // namespace diskferry::test
