// What the requests of this room have in common, in and out of JSON. Internal to it.
#pragma once

#include "gateway/move/json_fields.hpp"
#include "gateway/move/request.hpp"

namespace diskferry {

template <class Fields>
void list_fields(Fields& fields, ValueOf<MoveDisk> auto& disk) {
  fields.take("target", disk.target);
  fields.take("uri", disk.uri);
  fields.take("format", disk.format);
  fields.take("secret-uuid", disk.secret);
}

}  // namespace diskferry
