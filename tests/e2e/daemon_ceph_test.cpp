// A gateway with an image in a real Ceph cluster, which is killed: the next one has the image at once, and
// not only when the cluster has counted the dead one's half minute.
#include "tests/e2e/daemon_program.hpp"
#include "tests/support/storage_server.hpp"

namespace diskferry::test {
namespace {

const StorageServer& cluster() {
  static const StorageServer server("ceph");
  return server;
}
std::string ceph(std::vector<std::string> words) {
  words.insert(words.begin() + 1, {"-c", cluster().variable("CEPH_CONF")});
  return tool(words);
}
/// By the name of a user that may do no more than it needs. Who comes after another waits for it for so many
/// seconds, where the cluster counts the dead for 30.
std::string make_image(const std::string& name, unsigned seconds) {
  ceph({"ceph", "auth", "get-or-create", "client.vms", "mon", "profile rbd", "osd", "profile rbd pool=rbd",
        "-o", cluster().folder() + "/ceph.client.vms.keyring"});
  ceph({"rbd", "create", "--size", "64M", "rbd/" + name});
  return "rbd://rbd/" + name + "?in-use-timeout=" + std::to_string(seconds) +
         "&id=vms&conf=" + cluster().variable("CEPH_CONF");
}
bool is_offered(const Daemon& daemon) {
  return !parse_json(daemon.ask({"exports", "--json"}).out)
              .at("exports")
              .at(0)
              .as_object()
              .contains("waiting");
}
std::size_t notes(const Daemon& daemon) {
  std::size_t count = 0;
  for (const auto& file : std::filesystem::directory_iterator(daemon.folder() / "state"))
    count += file.path().filename().string().starts_with("rbd-client-") ? 1 : 0;
  return count;
}

TEST(DaemonOnCeph, HasTheImageOfAKilledOneAtOnce) {
  Daemon daemon(export_table("vm", make_image("killed", 9), "writable = true\n"));
  ASSERT_TRUE(is_offered(daemon)) << text_of(daemon.log());
  for (int i = 0; i < 3; ++i) {
    tool({"qemu-io", "-f", "raw", "-c", "write -q -P 7 1M 64k", daemon.uri("vm")});
    EXPECT_EQ(notes(daemon), 1u);
    daemon.process().kill();
    daemon.start();
    ASSERT_TRUE(is_offered(daemon)) << text_of(daemon.log());
    tool({"qemu-io", "-f", "raw", "-c", "read -q -P 7 1M 64k", daemon.uri("vm")});
  }
  EXPECT_TRUE(ceph({"ceph", "osd", "blocklist", "ls"}).contains("127.0.0.1"))
      << "what it sent may be on its way";
  EXPECT_EQ(daemon.end(), 0);
  EXPECT_EQ(notes(daemon), 0u);
}

TEST(DaemonOnCeph, DoesNotTakeAnImageFromOneThatLives) {
  const std::string table = export_table("vm", make_image("used", 1), "writable = true\n");
  const Daemon first(table);
  ASSERT_TRUE(is_offered(first)) << text_of(first.log());
  const Daemon second(table);
  EXPECT_FALSE(is_offered(second));
  EXPECT_TRUE(text_of(second.log()).contains("it is open for writing by")) << text_of(second.log());
  tool({"qemu-io", "-f", "raw", "-c", "write -q -P 7 1M 64k", first.uri("vm")});
}

}  // namespace
}  // namespace diskferry::test
