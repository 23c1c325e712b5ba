#include "gateway/move/request_fields.hpp"

namespace diskferry {
namespace json = boost::json;
namespace {

Result<MoveDisk> read_disk(const json::object& object) {
  MoveDisk disk;
  JsonFields fields(object, "a disk of the request");
  fields.take("target", disk.target);
  fields.take("uri", disk.uri);
  fields.take("format", disk.format);
  DISKFERRY_CHECK(fields.finish());
  return disk;
}

}  // namespace

void take_disks(JsonFields& fields, std::vector<MoveDisk>& into) {
  fields.each("disks", [&](const json::object& each) -> Result<void> {
    DISKFERRY_TRY(MoveDisk disk, read_disk(each));
    into.push_back(std::move(disk));
    return {};
  });
}

json::array encode(const std::vector<MoveDisk>& disks) {
  json::array list;
  for (const MoveDisk& disk : disks)
    list.push_back({{"target", disk.target}, {"uri", disk.uri}, {"format", disk.format}});
  return list;
}

json::object encode(const std::map<std::string, std::string>& names) {
  json::object object;
  for (const auto& [from, to] : names) object[from] = to;
  return object;
}

}  // namespace diskferry
