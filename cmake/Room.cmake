# A room is one folder of sources: one static library whose permitted arrows are checked at configure time.
#
#   diskferry_room(NAME copy LAYER 3 SOURCES plan.cpp ... USES contract image LIBRARIES OpenSSL::SSL)
#
# gives the target `diskferry_copy`. A room may use rooms of a lower layer, and of its own layer where the
# pair is listed in DISKFERRY_SIDEWAYS below. The layers are those of docs/ARCHITECTURE.md:
#   0 include   1 drivers   2 runtime, config, pki   3 nbd, copy, jobs   4 move   5 control   6 daemon, cli
set(DISKFERRY_SIDEWAYS
      # drivers are made of drivers: a filter or a format stands on the checking layer and the support code
    "file>support" "nbd_client>support" "nfs>support" "iscsi>support" "rbd>support" "gluster>support" "memory>support"
    "registry>memory" "registry>file" "registry>nbd_client" "registry>nfs" "registry>iscsi" "registry>rbd" "registry>gluster"
      "registry>foreign" "registry>filters" "registry>support"
    "filters>support" "filters>memory"
    "qcow2>support" "image>qcow2" "image>file" "image>registry" "image>filters" "image>support" "image>memory"
    "foreign>checked" "foreign>support" "foreign>file" "foreign>nbd_client" "image>foreign" "image>checked" "registry>checked" "filters>checked" "qcow2>checked")

function(diskferry_room)
  cmake_parse_arguments(ROOM "" "NAME;LAYER" "SOURCES;USES;LIBRARIES" ${ARGN})
  set(target diskferry_${ROOM_NAME})
  add_library(${target} STATIC ${ROOM_SOURCES})
  set_target_properties(${target} PROPERTIES DISKFERRY_LAYER ${ROOM_LAYER})
  foreach(used IN LISTS ROOM_USES)
    get_target_property(used_layer diskferry_${used} DISKFERRY_LAYER)
    if(used_layer STREQUAL "used_layer-NOTFOUND")
      message(FATAL_ERROR "room ${ROOM_NAME} uses ${used}, which is not a room defined before it")
    endif()
    if(used_layer GREATER_EQUAL ROOM_LAYER AND NOT "${ROOM_NAME}>${used}" IN_LIST DISKFERRY_SIDEWAYS)
      message(FATAL_ERROR "arrow ${ROOM_NAME} -> ${used} points up or sideways: layer ${ROOM_LAYER} may not "
                          "use layer ${used_layer} (docs/ARCHITECTURE.md)")
    endif()
    target_link_libraries(${target} PUBLIC diskferry_${used})
  endforeach()
  target_link_libraries(${target} PUBLIC diskferry_build ${ROOM_LIBRARIES})
endfunction()
