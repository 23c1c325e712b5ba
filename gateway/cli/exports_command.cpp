// `diskferry exports`: what a gateway serves over NBD; adds and removes exports while it runs.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/control/json.hpp"

#include <filesystem>
#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  std::string gateway;
  bool as_json = false;
  control::ExportRequest added;
  std::string removed;
};

void print_export(std::ostream& out, const control::ExportDescription& one) {
  std::string facts = one.format.empty() ? "" : one.format + ", ";
  facts += one.writable ? "writable" : "read-only";
  if (one.requires_tls) facts += ", TLS only";
  if (!one.allow.empty()) facts += fmt::format(", for {}", fmt::join(one.allow, " "));
  FieldList fields;
  fields.add("export", one.name);
  fields.add("image", one.image);
  if (one.waiting.empty())
    fields.add("size", bytes_for_people(one.size_bytes));
  else
    fields.add("waiting", one.waiting);
  fields.add("access", facts);
  fields.add("clients", std::to_string(one.clients));
  for (const std::string& address : one.addresses) fields.add("address", address);
  fields.print(out);
}

Task<Result<void>> list(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(const auto exports, co_await gateway->exports());
  if (options.as_json) {
    print_api_json(invocation.out, control::to_json(exports));
    co_return Result<void>{};
  }
  if (exports.empty()) invocation.err << "nothing is exported" << std::endl;
  for (std::size_t i = 0; i < exports.size(); ++i) {
    if (i != 0) invocation.out << "\n";
    print_export(invocation.out, exports[i]);
  }
  co_return Result<void>{};
}

Task<Result<void>> add(Invocation& invocation, const Options& options) {
  control::ExportRequest request = options.added;
  DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(request.image));
  // A relative path is meant from here, and not from where the gateway runs.
  if (uri.is_file() && !uri.path().starts_with('/')) {
    std::error_code ignored;
    uri.set_path(std::filesystem::absolute(uri.path(), ignored).string());
    request.image = uri.path();
  }
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  DISKFERRY_CO_TRY(const auto added, co_await gateway->add_export(std::move(request)));
  if (options.as_json) {
    print_api_json(invocation.out, control::to_json(added));
  } else {
    print_export(invocation.out, added);
  }
  co_return Result<void>{};
}

Task<Result<void>> remove(Invocation& invocation, const Options& options) {
  DISKFERRY_CO_TRY(auto gateway, co_await reach_gateway(invocation.runtime.context(), options.gateway));
  co_return co_await gateway->remove_export(options.removed);
}

void declare_add(CLI::App& add, Options& options) {
  add.set_help_flag("-h,--help", "print this help");
  add.add_option("NAME", options.added.name, "what clients call it")->required()->type_name("");
  add.add_option("IMAGE", options.added.image, "a path or a URI, as the gateway reaches it")
      ->required()
      ->type_name("");
  add.add_option("-f,--source-format", options.added.format,
                 "raw or qcow2 (default: found out, unless writable)")
      ->type_name("FORMAT");
  add.add_flag("-w,--writable", options.added.writable, "let clients write");
  add.add_option("--description", options.added.description, "a text for clients that list exports")
      ->type_name("TEXT");
  add.add_flag("--require-tls", options.added.requires_tls, "only for clients that use TLS");
  add.add_option("--allow", options.added.allow,
                 "let in only clients of this name, over TLS; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_gateway_option(app, options->gateway);
  app.add_flag("--json", options->as_json, "print JSON");
  app.require_subcommand(0, 1);
  app.fallthrough();
  app.add_subcommand("list", "what is exported (the default)")->set_help_flag("-h,--help", "print this help");
  CLI::App* added = app.add_subcommand("add", "export a further image, until the gateway ends");
  declare_add(*added, *options);
  CLI::App* removed = app.add_subcommand("remove", "disconnect its clients and close the image");
  removed->set_help_flag("-h,--help", "print this help");
  removed->add_option("NAME", options->removed, "of the export")->required()->type_name("");
  return [options, added, removed](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(added->parsed()     ? add(invocation, *options)
                                                        : removed->parsed() ? remove(invocation, *options)
                                                                            : list(invocation, *options)));
    return ExitCode::done;
  };
}

}  // namespace

extern const Command exports_command;
const Command exports_command{.name = "exports",
                              .summary = "list, add and remove the exports of a gateway",
                              .examples =
                                  "  diskferry exports\n"
                                  "  diskferry exports add --writable -f qcow2 vm1 /srv/vm1.qcow2\n"
                                  "  diskferry exports --gateway https://host-b remove vm1",
                              .declare = &declare};

}  // namespace diskferry::cli
