// The values in and out of JSON.
#include "gateway/move/storage_view.hpp"

#include "gateway/move/json_fields.hpp"

#include <array>

namespace diskferry {
namespace {

using Act = StorageQuestion::Act;
constexpr std::array acts{Act::look, Act::write, Act::remove};
std::string_view word_of(Act act) noexcept {
  switch (act) {
    case Act::look:
      return "look";
    case Act::write:
      return "write";
    case Act::remove:
      return "remove";
  }
  return {};
}

}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<StorageQuestion> auto& question) {
  fields.take("act", question.act, Words<Act>{acts, word_of});
  fields.take("uri", question.uri);
  fields.take("marker", question.marker);
  fields.take("text", question.text);
  fields.take("sample-seed", question.sample_seed);
}

std::string to_json(const StorageQuestion& question) {
  return write_json(question);
}

Result<StorageQuestion> parse_storage_question(std::string_view text) {
  return read_json<StorageQuestion>(text, "the question");
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<StorageView> auto& view) {
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
  fields.take("reached", view.is_reached);
  fields.take("problem", view.problem);
}

std::string to_json(const StorageView& view) {
  return write_json(view);
}

Result<StorageView> parse_storage_view(std::string_view text) {
  return read_json<StorageView>(text, "the answer");
}

}  // namespace diskferry
