// Declares the options of a copy and turns them into a request.
#include "gateway/cli/copy_options.hpp"

#include "drivers/image/format.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Option.hpp>
#include <CLI/Validators.hpp>

namespace diskferry::cli {
namespace {

const std::map<std::string, ImageCreateOptions::Preallocate> preallocations{
    {"off", ImageCreateOptions::Preallocate::off},
    {"metadata", ImageCreateOptions::Preallocate::metadata},
    {"full", ImageCreateOptions::Preallocate::full}};
const std::map<std::string, std::optional<VerifyLevel>> verify_levels{{"none", VerifyLevel::none},
                                                                      {"sample", VerifyLevel::sample},
                                                                      {"cache", VerifyLevel::cache},
                                                                      {"storage", VerifyLevel::storage}};

}  // namespace

void add_copy_options(CLI::App& app, CopyOptions& options) {
  add_image_argument(app, options.source.name, "SOURCE", "the image to copy");
  add_image_argument(app, options.target, "TARGET", "where to copy it");
  add_source_options(app, options.source);
  app.add_option("-O,--target-format", options.target_format,
                 "raw or qcow2 (default: by the ending of TARGET's name, else raw)")
      ->type_name("FORMAT");
  auto* create = app.add_flag("--create")->description("create TARGET when it does not exist (the default)");
  app.add_flag("-n,--no-create", options.no_create, "copy into TARGET as it is; its size must fit")
      ->excludes(create);
  app.add_flag("--overwrite", options.overwrite, "an existing TARGET is replaced");
  app.add_flag("--resume", options.resume, "go on with an interrupted copy, from its ledger");
  app.add_option("--requests", options.requests, "requests in flight (default: what the storages take)")
      ->type_name("N")
      ->check(CLI::Range(1u, 256u));
  add_bytes(app, "--request-size", options.request_bytes,
            "longest request (default: 512K on one host, 256K over NBD, 512K or 1M to storage servers)");
  add_bytes(app, "--rate", options.bytes_per_s, "bytes a second at most (default: no limit)");
  add_bytes(app, "--checkpoint", options.checkpoint_bytes,
            "make finished work durable, for --resume, after this much (default: 256M, or every 2 s)");
  add_bytes(app, "--cluster-size", options.cluster_bytes, "of a new qcow2 TARGET (default: 64K)");
  // A flag with an optional value, so that `--compress SOURCE TARGET` does not take SOURCE for the method.
  app.add_flag("--compress{zlib}", options.compress,
               std::string("compress a new qcow2 TARGET: --compress=zlib (the default) or --compress=zstd"));
  add_choice(app, "--preallocate", options.preallocate, preallocations, "MODE",
             "storage of a new TARGET reserved at once: off, metadata or full (default: off)");
  app.add_flag("--top", options.top, "copy the top layer of the chain only; needs --backing");
  app.add_option("--backing", options.backing, "backing image of a new qcow2 TARGET, stored as given")
      ->type_name("IMAGE");
  app.add_option("--backing-format", options.backing_format, "its format (default: raw or qcow2 by its name)")
      ->type_name("FORMAT");
  app.add_option("--fault-source", options.source_faults,
                 "rehearse: reading the source goes wrong by these rules (see the manual)")
      ->type_name("RULES");
  app.add_option("--fault-target", options.target_faults, "the same for the target")->type_name("RULES");
  auto* verify = add_choice(
      app, "--verify", options.verify, verify_levels, "LEVEL",
      "cache: read back at once; sample: one request of sixteen; storage: read back after a flush, past "
      "the page cache; none (default: cache; sample onto nfs, iscsi, rbd and gluster)");
  app.add_flag("--no-verify", options.no_verify, "the same as --verify none: only the first and last MiB")
      ->excludes(verify);
}

Result<CopyRequest> CopyOptions::request() const {
  CopyRequest request;
  DISKFERRY_TRY(request.source, source.uri());
  DISKFERRY_TRY(request.target, ImageUri::parse(target));
  request.source_options = source.open_options();
  if (!source_faults.empty()) {
    DISKFERRY_TRY(request.source_faults, parse_fault_plan(source_faults));
  }
  if (!target_faults.empty()) {
    DISKFERRY_TRY(request.target_faults, parse_fault_plan(target_faults));
  }
  request.target_format = target_format;
  if (target_format.empty()) DISKFERRY_CHECK(check_raw_name(request.target, "copy"));
  if (no_create && overwrite)
    return unexpected(
        fail(ErrorKind::invalid_argument, "copy").why("--no-create and --overwrite exclude each other"));
  if (resume && overwrite)
    return unexpected(
        fail(ErrorKind::invalid_argument, "copy").why("--resume and --overwrite exclude each other"));
  request.existing = no_create   ? CopyRequest::Existing::use
                     : overwrite ? CopyRequest::Existing::overwrite
                                 : CopyRequest::Existing::refuse;
  request.resume = resume;
  request.cluster_bytes = cluster_bytes;
  const std::string format = target_format.empty() ? format_for_target(request.target) : target_format;
  const bool is_compressed = !compress.empty();
  if (is_compressed && compress != "zlib" && compress != "zstd")
    return unexpected(fail(ErrorKind::invalid_argument, "copy").why("--compress takes zlib or zstd"));
  if (is_compressed) request.compression = compress == "zstd" ? Compression::zstd : Compression::zlib;
  if (is_compressed && format == "raw")
    return unexpected(fail(ErrorKind::invalid_argument, "copy").why("a raw image cannot be compressed"));
  if (cluster_bytes != 0 && format == "raw")
    return unexpected(fail(ErrorKind::invalid_argument, "copy").why("a raw image has no clusters"));
  request.preallocate = preallocate;
  request.top_only = top;
  request.backing_name = backing;
  request.backing_format = backing_format;
  if (!backing.empty() && backing_format.empty()) {
    DISKFERRY_TRY(const ImageUri backing_uri, ImageUri::parse(backing));
    request.backing_format = format_for_target(backing_uri);
    if (const std::string_view ending = ending_of_format(backing_uri.path());
        request.backing_format == "raw" && !ending.empty())
      return unexpected(fail(ErrorKind::invalid_argument, "copy", backing)
                            .why(fmt::format("its name ends in {}, and its format is not given", ending))
                            .remedy("add --backing-format raw, qcow2, vmdk, ..."));
  }
  request.verify = no_verify ? std::optional(VerifyLevel::none) : verify;
  request.target_connections = source.connections;
  request.requests = requests;
  request.request_bytes = request_bytes;
  request.bytes_per_s = bytes_per_s;
  request.checkpoint_bytes = checkpoint_bytes;
  return request;
}

}  // namespace diskferry::cli
