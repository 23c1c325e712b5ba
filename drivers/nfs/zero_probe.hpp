// Whether a file of which the server says that nothing is stored reads as zeros. Some servers count late, and
// some file systems do not count at all: so it is looked at, before zeros are left out on the word of a
// number.
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/task.hpp"

namespace diskferry::nfs {

class Storage;

/// Where a disk that was written to has something: its start (partition tables, the labels of volume managers
/// and file systems), its end (copies of both), and places all over. At most 1 MiB together. Pure.
std::vector<Range> zero_probes(std::uint64_t size_bytes);
/// False where one of them holds data. Errors: those of reading.
Task<Result<bool>> reads_as_zeros(Storage& storage);

}  // namespace diskferry::nfs
