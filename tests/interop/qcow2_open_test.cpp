// Opening of chains made by qemu-img: names, formats, and what is refused.
#include "diskferry/units.hpp"
#include "tests/interop/qcow2_images.hpp"
#include "tests/support/test_runtime.hpp"

#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <thread>

namespace diskferry::test {
namespace {

namespace fs = std::filesystem;

void expect_refused(const Result<Image>& opened, ErrorKind kind, std::string_view word) {
  ASSERT_FALSE(opened) << "was opened";
  EXPECT_EQ(opened.error().kind(), kind) << opened.error().message();
  EXPECT_NE(opened.error().message().find(word), std::string::npos) << opened.error().message();
}

TEST(OpenChain, RelativeNamesAreTakenFromTheImagesFolder) {
  TemporaryFolder folder;
  fs::create_directories(folder / "vm/base");
  create_with_qemu({.path = folder / "vm/base/base.qcow2", .size_bytes = 4 * mib});
  run_ok({"qemu-io", "-c", "write -P 5 0 64K", folder / "vm/base/base.qcow2"});
  create_with_qemu({.path = folder / "vm/base/middle.qcow2", .backing = "base.qcow2", .size_bytes = 4 * mib});
  create_with_qemu({.path = folder / "vm/top.qcow2", .backing = "base/middle.qcow2", .size_bytes = 4 * mib});
  auto image = open_for_test(folder / "vm/top.qcow2");
  ASSERT_EQ(image.layers().size(), 3u);
  EXPECT_EQ(image.layers()[1].format, "qcow2");
  EXPECT_NE(image.layers()[2].identity.inode, 0u);
  EXPECT_EQ(our_content(image, 1)[0], std::byte{5});
  EXPECT_EQ(our_map(image, 10)[0].depth, 2u);
  must(run(image.close()));
  auto top = open_for_test(folder / "vm/top.qcow2", {.top_only = true});
  EXPECT_EQ(our_map(top, 10)[0].depth, Extent::depth_none);
  must(run(top.close()));
}

TEST(OpenChain, ReferencesLeaveTheFolderOnlyWhenAllowed) {
  TemporaryFolder folder;
  fs::create_directories(folder / "vm");
  fs::create_directories(folder / "store");
  create_with_qemu({.path = folder / "store/base.qcow2", .size_bytes = 1 * mib});
  fs::create_symlink(folder / "store/base.qcow2", folder / "vm/link.qcow2");
  const std::vector<std::string> names{"../store/base.qcow2", folder / "store/base.qcow2",
                                       "link.qcow2",          "/etc/passwd",
                                       "/dev/zero",           "../../../../../../etc/hostname"};
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    create_with_qemu({.path = folder / "vm/top.qcow2", .backing = name, .size_bytes = 1 * mib});
    expect_refused(try_open(folder / "vm/top.qcow2"), ErrorKind::permission, "outside");
  }
  create_with_qemu(
      {.path = folder / "vm/top.qcow2", .backing = "../store/base.qcow2", .size_bytes = 1 * mib});
  auto image = open_for_test(folder / "vm/top.qcow2", {.allow_backing = {folder / "store"}});
  must(run(image.close()));
  for (const std::string name :
       {"nbd:127.0.0.1:1", "http://127.0.0.1/x", "json:{\"driver\":\"null-co\"}", "fat:/etc"}) {
    SCOPED_TRACE(name);
    create_with_qemu(
        {.path = folder / "vm/top.qcow2", .backing = name, .backing_format = "raw", .size_bytes = 1 * mib});
    expect_refused(try_open(folder / "vm/top.qcow2", {.allow_backing = {"/"}}), ErrorKind::unsupported,
                   "local files");
  }
}

TEST(OpenChain, ANameThatIsExchangedMeanwhileLeadsNowhere) {
  TemporaryFolder folder;
  fs::create_directories(folder / "vm");
  std::ofstream(folder / "secret.raw") << std::string(1 * mib, 's');
  std::ofstream(folder / "vm/good.raw") << std::string(1 * mib, 'g');
  fs::create_symlink(folder / "secret.raw", folder / "vm/bad.raw");
  create_with_qemu({.path = folder / "vm/top.qcow2",
                    .backing = folder / "vm/good.raw",
                    .backing_format = "raw",
                    .size_bytes = 1 * mib});
  const std::jthread exchanging(
      [good = folder / "vm/good.raw", bad = folder / "vm/bad.raw"](std::stop_token end) {
        while (!end.stop_requested())
          (void)::renameat2(AT_FDCWD, good.c_str(), AT_FDCWD, bad.c_str(), RENAME_EXCHANGE);
      });
  unsigned opened = 0;
  for (int i = 0; i < 300; ++i) {
    auto image = try_open(folder / "vm/top.qcow2");
    if (!image) {
      EXPECT_EQ(image.error().kind(), ErrorKind::permission) << image.error().message();
      continue;
    }
    ++opened;
    std::vector<std::byte> data(512);
    must(run(image->device().read(0, data)));
    EXPECT_EQ(data[0], std::byte{'g'});
    must(run(image->close()));
  }
  EXPECT_GT(opened, 0u);
}

TEST(OpenChain, AnExternalDataFileIsOneOfTheStorages) {
  TemporaryFolder folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data.raw"),
          folder / "disk.qcow2", "1M"});
  auto image = open_for_test(folder / "disk.qcow2", {.allow_data_file = true});
  const auto storages = image.storages();
  must(run(image.close()));
  ASSERT_EQ(storages.size(), 2u);
  EXPECT_EQ(storages[0].path(), folder / "disk.qcow2");
  EXPECT_EQ(storages[1].path(), folder / "data.raw");
}

TEST(OpenChain, LoopsAndEndlessChainsEnd) {
  TemporaryFolder folder;
  create_with_qemu({.path = folder / "self.qcow2", .backing = "self.qcow2", .size_bytes = 1 * mib});
  expect_refused(try_open(folder / "self.qcow2"), ErrorKind::corrupt, "comes back");
  create_with_qemu({.path = folder / "a.qcow2", .backing = "b.qcow2", .size_bytes = 1 * mib});
  create_with_qemu({.path = folder / "b.qcow2", .backing = "a.qcow2", .size_bytes = 1 * mib});
  expect_refused(try_open(folder / "a.qcow2"), ErrorKind::corrupt, "comes back");
  create_with_qemu({.path = folder / "t.qcow2", .backing = "0000.qcow2", .size_bytes = 1 * mib});
  std::ifstream in(folder / "t.qcow2", std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (int i = 0; i < 300; ++i) {
    const auto at = bytes.find(fmt::format("{:04}.qcow2", i));
    ASSERT_NE(at, std::string::npos);
    bytes.replace(at, 4, fmt::format("{:04}", i + 1));
    std::ofstream(folder / fmt::format("{:04}.qcow2", i), std::ios::binary) << bytes;
  }
  expect_refused(try_open(folder / "0000.qcow2"), ErrorKind::too_large, "256");
}

TEST(OpenChain, AChainOf200LayersIsRead) {
  TemporaryFolder folder;
  create_with_qemu({.path = folder / "0.qcow2", .size_bytes = 1 * mib});
  run_ok({"qemu-io", "-c", "write -P 3 64K 64K", folder / "0.qcow2"});
  create_with_qemu({.path = folder / "t.qcow2", .backing = "0000.qcow2", .size_bytes = 1 * mib});
  fs::rename(folder / "0.qcow2", folder / "0000.qcow2");
  std::ifstream in(folder / "t.qcow2", std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (int i = 1; i < 200; ++i) {
    bytes.replace(bytes.find(fmt::format("{:04}.qcow2", std::max(i - 2, 0))), 4, fmt::format("{:04}", i - 1));
    std::ofstream(folder / fmt::format("{:04}.qcow2", i), std::ios::binary) << bytes;
  }
  auto image = open_for_test(folder / "0199.qcow2");
  EXPECT_EQ(our_map(image, 10)[1].depth, 199u);
  EXPECT_EQ(our_content(image, 1)[65536], std::byte{3});
  must(run(image.close()));
}

/// A raw disk in which the guest has written a qcow2 header that refers to a file of the host.
TEST(OpenChain, ARawBackingImageIsNeverTakenForAnotherFormat) {
  TemporaryFolder folder;
  create_with_qemu({.path = folder / "secret.raw", .size_bytes = 1 * mib});
  create_with_qemu({.path = folder / "guest.raw",
                    .backing = "secret.raw",
                    .backing_format = "raw",
                    .size_bytes = 64 * mib});
  create_with_qemu(
      {.path = folder / "top.qcow2", .backing = "guest.raw", .backing_format = "raw", .size_bytes = 1 * mib});
  auto image = open_for_test(folder / "top.qcow2");
  ASSERT_EQ(image.layers().size(), 2u);
  EXPECT_EQ(image.layers()[1].format, "raw");
  EXPECT_EQ(our_content(image, 1)[0], std::byte{'Q'}) << "its bytes are data";
  must(run(image.close()));
  // The same without a declared format: the extension's type is made an unknown one.
  std::fstream file(folder / "top.qcow2", std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes(512, '\0');
  file.read(bytes.data(), 512);
  const auto at = bytes.find("\xe2\x79\x2a\xca");
  ASSERT_NE(at, std::string::npos);
  file.seekp(static_cast<std::streamoff>(at));
  file.write("\x01\x02\x03\x04", 4);
  file.close();
  expect_refused(try_open(folder / "top.qcow2"), ErrorKind::permission, "format");
}

TEST(OpenChain, FormatsAreProbedForSourcesOnly) {
  TemporaryFolder folder;
  create_with_qemu({.path = folder / "disk.img", .size_bytes = 1 * mib});
  auto image = open_for_test(folder / "disk.img");
  EXPECT_EQ(image.layers()[0].format, "qcow2");
  must(run(image.close()));
  expect_refused(try_open(folder / "disk.img", {.writable = true}), ErrorKind::invalid_argument, "qcow2");
  auto raw = open_for_test(folder / "disk.img", {.format = "raw"});
  EXPECT_NE(raw.device().size_bytes(), 1 * mib);
  must(run(raw.close()));
}

/// Refused by its name as a source and below an overlay, unless somebody says that its bytes are the disk.
void expect_foreign(const TemporaryFolder& folder, const std::string& format) {
  SCOPED_TRACE(format);
  // Its name does not say so: a guest may have written that into its raw disk.
  if (format == "luks")
    expect_refused(try_open(folder / "foreign"), ErrorKind::unsupported, "luks images");
  else
    expect_refused(try_open(folder / "foreign"), ErrorKind::invalid_argument, format + " image");
  auto raw = open_for_test(folder / "foreign", {.format = "raw"});
  EXPECT_EQ(raw.device().size_bytes(), fs::file_size(folder / "foreign"));
  must(run(raw.close()));
  must(run(create_image(runtime().context(), ImageUri::from_path(folder / "overlay.qcow2"),
                        {.format = "qcow2",
                         .size_bytes = 4 * mib,
                         .compatibility = "0.10",
                         .backing_name = "foreign",
                         .backing_format = "raw",
                         .replace = true})));
  must(run(try_open(folder / "overlay.qcow2")->close()));
  std::fstream file(folder / "overlay.qcow2", std::ios::in | std::ios::out | std::ios::binary);
  std::string start(512, '\0');
  file.read(start.data(), 512);
  const auto declared = start.find("\xe2\x79\x2a\xca");  // the extension's type becomes an unknown one
  ASSERT_NE(declared, std::string::npos);
  file.seekp(static_cast<std::streamoff>(declared));
  file.write("\x01\x02\x03\x04", 4);
  file.close();
  expect_refused(try_open(folder / "overlay.qcow2"), ErrorKind::unsupported, format + " image");
}

TEST(OpenChain, ForeignFormatsAreRefusedByName) {
  TemporaryFolder folder;
  for (const std::string options : {"qcow", "qed", "vdi", "vhdx", "vmdk", "vmdk:subformat=monolithicFlat",
                                    "vpc", "vpc:subformat=fixed", "parallels"}) {
    const std::string format = options.substr(0, options.find(':'));
    std::vector<std::string> command{"qemu-img", "create", "-q", "-f", format};
    if (format != options) command.insert(command.end(), {"-o", options.substr(format.size() + 1)});
    command.insert(command.end(), {folder / "foreign", "4M"});
    run_ok(command);
    expect_foreign(folder, format);
    fs::remove(folder / "foreign");
  }
}

/// Those that QEMU reads but does not write (or only with much work), by their marks.
TEST(OpenChain, ForeignFormatsNobodyMakesHereAreRefusedByName) {
  using namespace std::string_literals;
  TemporaryFolder folder;
  struct Foreign {
    std::string format;
    std::string start;
    std::string end{};
  };
  const std::vector<Foreign> images{
      {.format = "bochs", .start = "Bochs Virtual HD Image"s},
      {.format = "cloop", .start = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660"s},
      {.format = "dmg", .start = "", .end = "koly\0\0\0\4\0\0\2\0"s},
      {.format = "luks", .start = "LUKS\xba\xbe\0\1"s},
      {.format = "luks", .start = "LUKS\xba\xbe\0\2"s},
      {.format = "parallels", .start = "WithouFreSpacExt"s},
      {.format = "vmdk", .start = "COWD\1\0\0\0"s},
      {.format = "vmdk", .start = "\xbe\xba\xfe\xca\0\0\0\0"s},
      {.format = "vmdk", .start = "# a comment\r\n\r\nversion=1\r\nCID=fffffffe\r\n"s},
      {.format = "vpc", .start = "", .end = "conectix"s},
  };
  for (const Foreign& one : images) {
    std::string bytes = one.start;
    bytes.resize(64 * kib + 512);
    bytes.replace(64 * kib, one.end.size(), one.end);
    std::ofstream(folder / "foreign", std::ios::binary) << bytes;
    expect_foreign(folder, one.format);
  }
  // A fixed VHD of old: its footer has 511 bytes.
  std::string bytes(64 * kib + 511, '\0');
  bytes.replace(64 * kib, 8, "conectix");
  std::ofstream(folder / "foreign", std::ios::binary) << bytes;
  expect_foreign(folder, "vpc");
  // Text is no VMDK because it has comments.
  std::ofstream(folder / "text", std::ios::binary) << "# a comment\n\nsize=1\nversion=1\n";
  auto text = open_for_test(folder / "text");
  EXPECT_EQ(text.layers()[0].format, "raw");
  must(run(text.close()));
}

TEST(OpenChain, EncryptedImagesAreRefusedByName) {
  TemporaryFolder folder;
  // QEMU measures the processor to choose the iterations, and gives up on a busy machine: a few attempts.
  int attempts = 0;
  while (run_program({"qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o",
                      "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", folder / "luks.qcow2",
                      "1M"})
             .exit_code != 0)
    ASSERT_LT(++attempts, 50);
  expect_refused(try_open(folder / "luks.qcow2"), ErrorKind::unsupported, "LUKS");
}

}  // namespace
}  // namespace diskferry::test
