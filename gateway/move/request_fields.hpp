// What the requests of this room have in common, in and out of JSON. Internal to it.
#pragma once

#include "gateway/move/json_fields.hpp"
#include "gateway/move/request.hpp"

#include <map>
#include <string>
#include <vector>

namespace diskferry {

/// The field "disks".
void take_disks(JsonFields& fields, std::vector<MoveDisk>& into);
boost::json::array encode(const std::vector<MoveDisk>& disks);
boost::json::object encode(const std::map<std::string, std::string>& names);

}  // namespace diskferry
