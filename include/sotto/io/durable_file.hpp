// A file that appears whole or not at all.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// Writes a file beside its final name and renames it into place when all of it is on the disk: a
/// crash, a full disk or an exception leaves the old file (or none) as it was, and no temporary of
/// this process.
class DurableFile {
 public:
  /// Opens a temporary in the directory of path. Error(file) if that cannot be done.
  SOTTO_COLD explicit DurableFile(std::filesystem::path path) : path_(std::move(path)) {
    // A temporary of a crashed process with our number must not stop us, nor be shared with another
    // thread's.
    for (int attempt = 0;; ++attempt) {
      temporary_ = path_;
      temporary_ += joined({".tmp", ::getpid(), ".", attempt});
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ >= 0) return;
      if (errno != EEXIST || attempt == 1000) fail("cannot be created");
    }
  }
  DurableFile(DurableFile const&) = delete;
  DurableFile& operator=(DurableFile const&) = delete;
  ~DurableFile() { abandon(); }

  /// Appends. Error(file) if the disk is full or fails; the temporary is gone then.
  SOTTO_COLD void write(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      // Linux writes at most 2^31 - 4096 bytes a call
      const ssize_t written = ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), 1u << 30));
      if (written < 0) {
        if (errno == EINTR) continue;
        fail("cannot be written");
      }
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }
  void write(std::string const& text) { write(std::as_bytes(std::span(text))); }

  /// Puts the file in its place, on the disk for good. Error(file) if that fails; the old file is
  /// untouched then.
  SOTTO_COLD void commit() {
    if (::fsync(descriptor_) != 0) fail("cannot be written");
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (::close(descriptor) != 0) fail("cannot be written");
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be put in its place");
    temporary_.clear();
    // The name is durable only once its directory is. Some file systems refuse to sync a directory:
    // no harm done.
    const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
    const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
      ::fsync(directory);
      ::close(directory);
    }
  }

 private:
  SOTTO_COLD void abandon() noexcept {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }
  [[noreturn]] void fail(char const* what) {
    const int number = errno;
    abandon();
    if (number == ENOSPC || number == EDQUOT)
      throw_error(ErrorCode::file, {what, ": the disk is full; free some space and write again."}, path_);
    if (number == ENOENT || number == ENOTDIR)
      throw_error(ErrorCode::file, {what, ": its directory does not exist; create it first."}, path_);
    throw_error(ErrorCode::file, {what, ": ", std::generic_category().message(number), "."}, path_);
  }

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// The bytes of a whole file. Error(file) if it cannot be read.
inline SOTTO_COLD std::vector<std::byte> read_file(std::filesystem::path const& path) {
  struct Descriptor {
    int number;
    ~Descriptor() {
      if (number >= 0) ::close(number);
    }
  };
  const auto fail = [&](int number) -> void {
    if (number == ENOENT) throw_error(ErrorCode::file, {"there is no such file."}, path);
    throw_error(ErrorCode::file, {"cannot be read: ", std::generic_category().message(number), "."}, path);
  };
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.number < 0) fail(errno);
  std::error_code unknown;
  const auto size = std::filesystem::file_size(path, unknown);  // a hint: pipes have none
  std::vector<std::byte> bytes(unknown ? 65536 : static_cast<std::size_t>(size) + 1);
  std::size_t filled = 0;
  for (;;) {
    if (filled == bytes.size()) bytes.resize(2 * filled);
    const ssize_t got =
        ::read(file.number, bytes.data() + filled, std::min<std::size_t>(bytes.size() - filled, 1u << 30));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(errno);
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  bytes.resize(filled);
  return bytes;
}

}  // namespace sotto::inline SOTTO_ABI
