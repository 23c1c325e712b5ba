// Every device of the product, as the contract suite opens it.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/rate.hpp"
#include "drivers/filters/retry.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/image/image.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "drivers/registry.hpp"
#include "tests/contract/subject.hpp"
#include "tests/support/nbd_server.hpp"
#include "tests/support/storage_server.hpp"
#include "tests/support/test_runtime.hpp"

#include <atomic>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

namespace diskferry::test {

std::vector<std::byte> bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::byte> bytes(text.size());
  std::ranges::transform(text, bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}

namespace {

std::shared_ptr<BlockDevice> memory(std::uint64_t size_bytes, std::uint32_t block_bytes) {
  return checked(make_memory_device({.size_bytes = size_bytes, .block_bytes = block_bytes}));
}

Subject memory_subject(std::uint32_t block_bytes) {
  return {.name = fmt::format("memory_{}", block_bytes), .open = [=](std::uint64_t size_bytes) {
            return Opened{.device = memory(size_bytes, block_bytes)};
          }};
}

/// Everything a device may lack is lacking: what is left is emulated by the checking layer.
Subject bare_memory_subject() {
  return {.name = "memory_bare",
          .open =
              [](std::uint64_t size_bytes) {
                return Opened{.device = checked(make_memory_device({.size_bytes = size_bytes,
                                                                    .block_bytes = 512,
                                                                    .zero = ZeroSupport::none,
                                                                    .can_discard = false,
                                                                    .can_report_extents = false,
                                                                    .can_fua = false}))};
              },
          .is_sparse = false};
}

std::shared_ptr<BlockDevice> over_faults(std::shared_ptr<BlockDevice> inner,
                                         const std::shared_ptr<FaultControl>& control) {
  return checked(make_fault_device(std::move(inner), control, runtime().context().clock));
}

Subject fault_subject() {
  return {.name = "fault_over_memory",
          .open =
              [](std::uint64_t size_bytes) {
                Opened opened{.faults_below = std::make_shared<FaultControl>(FaultPlan{})};
                opened.device = over_faults(memory(size_bytes, 512), opened.faults_below);
                return opened;
              },
          .has_faults_below = true};
}

Subject align_subject(std::uint32_t block_bytes) {
  return {.name = fmt::format("align_over_{}", block_bytes),
          .open =
              [=](std::uint64_t size_bytes) {
                Opened opened{.faults_below = std::make_shared<FaultControl>(FaultPlan{})};
                opened.device =
                    with_byte_granularity(over_faults(memory(size_bytes, block_bytes), opened.faults_below));
                return opened;
              },
          .has_faults_below = true};
}

Task<Result<DevicePtr>> never_reopened() {
  co_return unexpected(fail(ErrorKind::internal, "open again"));
}

Subject retry_subject() {
  return {.name = "retry_over_memory",
          .open =
              [](std::uint64_t size_bytes) {
                Opened opened{.faults_below = std::make_shared<FaultControl>(FaultPlan{})};
                auto& clock = runtime().context().clock;
                opened.device = checked(make_retry_device(
                    checked(make_fault_device(memory(size_bytes, 512), opened.faults_below, clock)),
                    never_reopened, {.first_delay = std::chrono::microseconds(10)}, clock));
                return opened;
              },
          .has_faults_below = true};
}

/// With something on both sides of it that must stay as it is.
Subject slice_subject() {
  return {.name = "slice_over_memory",
          .open =
              [](std::uint64_t size_bytes) {
                constexpr std::uint64_t before = 64 * kib;
                const auto whole = memory(before + size_bytes + before, 512);
                return Opened{.device = must(slice_of(whole, {before, size_bytes}))};
              },
          .size_unit = 512};
}

Subject rate_subject() {
  return {.name = "rate_over_memory",
          .open =
              [](std::uint64_t size_bytes) {
                // Fast enough for the suite, slow enough that requests do wait.
                auto limit = std::make_shared<RateLimit>(runtime().context().clock, 1 * gib, 64 * kib);
                Opened opened{.faults_below = std::make_shared<FaultControl>(FaultPlan{})};
                opened.device = checked(make_rate_device(
                    over_faults(memory(size_bytes, 512), opened.faults_below), std::move(limit)));
                return opened;
              },
          .has_faults_below = true};
}

Subject file_subject() {
  return {.name = "file",
          .open =
              [](std::uint64_t size_bytes) {
                auto folder = std::make_shared<TemporaryFolder>();
                const std::string path = *folder / "disk.raw";
                const auto uri = ImageUri::from_path(path);
                auto& context = runtime().context();
                must(run(create_storage(context, uri, {.size_bytes = size_bytes})));
                Opened opened{.ground = folder};
                opened.device = must(run(open_storage(context, uri, {.writable = true})));
                opened.storage = [path] { return bytes_of_file(path); };
                return opened;
              },
          .slowness = 2};
}

Task<Result<DevicePtr>> new_qcow2_over(std::shared_ptr<BlockDevice> storage, qcow2::NewImage image) {
  DISKFERRY_CO_CHECK(co_await qcow2::create(*storage, image));
  std::vector<std::byte> start(std::min<std::uint64_t>(2 * mib, storage->size_bytes()));
  DISKFERRY_CO_CHECK(co_await storage->read(0, start));
  DISKFERRY_CO_TRY(auto header, qcow2::parse_header(start, "contract"));
  DISKFERRY_CO_TRY(auto device,
                   co_await qcow2::Qcow2Device::open(runtime().context(), {.name = "contract",
                                                                           .header = std::move(header),
                                                                           .storage = std::move(storage),
                                                                           .writable = true}));
  co_return checked(std::move(device));
}

Subject qcow2_subject(std::string name, qcow2::NewImage image) {
  return {.name = std::move(name),
          .open =
              [image](std::uint64_t size_bytes) {
                Opened opened{.faults_below = std::make_shared<FaultControl>(FaultPlan{})};
                auto storage =
                    over_faults(checked(make_memory_device({.can_grow = true})), opened.faults_below);
                auto of_size = image;
                of_size.size_bytes = size_bytes;
                opened.device = must(run(new_qcow2_over(std::move(storage), of_size)));
                return opened;
              },
          .is_sparse = image.cluster_bits >= 16,  // with smaller ones 8 TiB are beyond the format's limits
          .has_faults_below = true,
          .slowness = 2};
}

/// As an operator has it: by name, in a file, and read back by QEMU's own tool.
Subject qcow2_file_subject() {
  return {.name = "qcow2_over_file",
          .open =
              [](std::uint64_t size_bytes) {
                auto folder = std::make_shared<TemporaryFolder>();
                const std::string path = *folder / "disk.qcow2";
                const auto uri = ImageUri::from_path(path);
                auto& context = runtime().context();
                must(run(create_image(context, uri, {.format = "qcow2", .size_bytes = size_bytes})));
                auto image = std::make_shared<Image>(
                    must(run(open_image(context, uri, {.format = "qcow2", .writable = true}))));
                Opened opened{.ground = folder};
                opened.device = image->shared_device();
                opened.storage = [path] {
                  const std::string raw = path + ".raw";
                  const auto converted =
                      run_program({"qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, raw});
                  EXPECT_EQ(converted.exit_code, 0) << converted.err;
                  return bytes_of_file(raw);
                };
                return opened;
              },
          .size_unit = 512,
          .slowness = 2};
}

Subject nbd_subject(std::string name, std::string filter, std::uint64_t size_unit) {
  return {.name = std::move(name),
          .open =
              [=](std::uint64_t size_bytes) {
                std::vector<std::string> plugin;
                if (!filter.empty()) plugin = {"--filter", filter};
                plugin.insert(plugin.end(), {"memory", fmt::format("{}", size_bytes)});
                if (filter == "blocksize-policy")
                  plugin.insert(plugin.end(), {"blocksize-minimum=512", "blocksize-preferred=4096",
                                               "blocksize-maximum=65536", "blocksize-error-policy=error"});
                const std::shared_ptr<NbdServer> server(new NbdServer(nbdkit(plugin)));
                const auto uri = must(ImageUri::parse(server->uri()));
                Opened opened{.ground = server};
                opened.device = must(run(open_storage(runtime().context(), uri, {.writable = true})));
                return opened;
              },
          .size_unit = size_unit,
          .slowness = 4};
}

}  // namespace

std::vector<Subject> all_subjects() {
  std::vector<Subject> subjects;
  for (const std::uint32_t block_bytes : {1u, 512u, 4096u, 65536u})
    subjects.push_back(memory_subject(block_bytes));
  subjects.push_back(bare_memory_subject());
  subjects.push_back(fault_subject());
  for (const std::uint32_t block_bytes : {512u, 4096u, 65536u})
    subjects.push_back(align_subject(block_bytes));
  subjects.push_back(retry_subject());
  subjects.push_back(rate_subject());
  subjects.push_back(slice_subject());
  subjects.push_back(file_subject());
  subjects.push_back(qcow2_subject("qcow2", {}));
  subjects.push_back(qcow2_subject("qcow2_small_clusters", {.cluster_bits = 9, .refcount_order = 6}));
  subjects.push_back(qcow2_subject("qcow2_extended_l2", {.extended_l2 = true}));
  subjects.push_back(qcow2_file_subject());
  subjects.push_back(nbd_subject("nbd", "", 1));
  subjects.push_back(nbd_subject("nbd_without_extents", "noextents", 1));
  subjects.push_back(nbd_subject("nbd_with_block_limits", "blocksize-policy", 512));
  std::ranges::move(storage_subjects(), std::back_inserter(subjects));
  return subjects;
}

}  // namespace diskferry::test
