// The values in and out of JSON.
#include "gateway/move/storage_view.hpp"

#include "gateway/move/json_fields.hpp"

#include <algorithm>
#include <array>

#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {
constexpr std::array<std::string_view, 3> acts{"look", "write", "remove"};
}  // namespace

std::string to_json(const StorageQuestion& question) {
  return json::serialize(json::object{{"act", acts[static_cast<std::size_t>(question.act)]},
                                      {"uri", question.uri},
                                      {"marker", question.marker},
                                      {"text", question.text},
                                      {"sample-seed", question.sample_seed}});
}

Result<StorageQuestion> parse_storage_question(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the question"));
  StorageQuestion question;
  std::string act = "look";
  JsonFields fields(object, "the question");
  fields.take("act", act);
  fields.take("uri", question.uri);
  fields.take("marker", question.marker);
  fields.take("text", question.text);
  fields.take("sample-seed", question.sample_seed);
  DISKFERRY_CHECK(fields.finish());
  const auto* known = std::ranges::find(acts, act);
  if (known == acts.end())
    return unexpected(
        fail(ErrorKind::invalid_argument, "read the question").why("an act is look, write or remove"));
  question.act = static_cast<StorageQuestion::Act>(known - acts.begin());
  return question;
}

std::string to_json(const StorageView& view) {
  return json::serialize(
      json::object{{"exists", view.exists},
                   {"size-bytes", view.size_bytes},
                   {"inode", view.inode},
                   {"block-device", view.is_block_device},
                   {"marker-text", view.marker_text},
                   {"marker-beside", view.is_marker_beside},
                   {"kernel", view.kernel},
                   {"file-system", view.file_system},
                   {"device-name", view.device_name},
                   {"addresses", json::array(view.addresses.begin(), view.addresses.end())},
                   {"samples", view.samples},
                   {"problem", view.problem}});
}

Result<StorageView> parse_storage_view(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the answer"));
  StorageView view;
  JsonFields fields(object, "the answer");
  fields.take("exists", view.exists);
  fields.take("size-bytes", view.size_bytes);
  fields.take("inode", view.inode);
  fields.take("block-device", view.is_block_device);
  fields.take("marker-text", view.marker_text);
  fields.take("marker-beside", view.is_marker_beside);
  fields.take("kernel", view.kernel);
  fields.take("file-system", view.file_system);
  fields.take("device-name", view.device_name);
  fields.take("addresses", view.addresses);
  fields.take("samples", view.samples);
  fields.take("problem", view.problem);
  DISKFERRY_CHECK(fields.finish());
  return view;
}

}  // namespace diskferry
