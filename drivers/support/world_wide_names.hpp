// Which names of disks tell one from every other one in the world. Pure.
#pragma once

#include <string_view>

namespace diskferry {

/// Of a name as the kernel and SCSI give it ("naa.6001405...", "eui.0025...", "uuid...."): whether a
/// registration authority stands for it. Not where it is assigned locally, nor where the number of the
/// company is 0, with which tgt gives the same names on every host; names made of a vendor's and a serial
/// number (t10., nvme.) are the same for all disks that an emulator makes.
bool is_unique_in_the_world(std::string_view name) noexcept;

}  // namespace diskferry
