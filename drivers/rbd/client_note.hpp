// What a client of a cluster leaves on this machine for as long as it has an image open for writing, so that
// whoever opens that image next here knows that it has died. The cluster itself learns that only when the
// client has been silent for half a minute, and a guest would have to wait for it.
//
// A note is a file that its process holds locked (flock): the kernel lets go of it with the process, however
// that ends. It is of this boot of this machine and of its own inode, so that a copy of the folder says
// nothing of clients that live. Everything here blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace diskferry::rbd {

/// Thread: one.
class ClientNote {
 public:
  /// `image`: Image::identity(); `client_id`: as the cluster numbers it, never twice. Null: none could be
  /// left, and the next client waits as long as the cluster does.
  static std::unique_ptr<ClientNote> leave(const std::string& folder, const std::string& image,
                                           std::uint64_t client_id);
  /// The client has let go of the image.
  ~ClientNote();
  ClientNote(const ClientNote&) = delete;
  ClientNote& operator=(const ClientNote&) = delete;

 private:
  ClientNote(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
};

/// The numbers of clients that had this image open and whose processes are not there any more.
std::vector<std::uint64_t> dead_clients(const std::string& folder, const std::string& image);
/// Removes their notes, for when the cluster counts them no longer; and those of earlier boots, which have
/// been silent for as long.
void forget_dead_clients(const std::string& folder, const std::string& image);

}  // namespace diskferry::rbd
