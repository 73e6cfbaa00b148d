// SPDX-License-Identifier: Apache-2.0
// SIGBUS handler for mapped files that were truncated or that the disk cannot read.  It maps zeros
// in place of the unreadable pages and counts the fault, whichever thread (one of DALI's, say)
// reads them. Does not use MXNet.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace {

// One line of /proc/self/maps.
struct Mapping {
  uintptr_t begin, end;
  char access[4];  // "rwx" and 'p' or 's'; '-' for a missing permission
  uint64_t device, inode;
};

// A watched file.  The inode identifies it, not an address, because DALI maps the same file again.
struct File {
  uint64_t device, inode;
  std::atomic<int64_t> faults;
};

constexpr int64_t kMaxFiles = 1 << 14;
constexpr int64_t kMaxZeroedRanges = 256;

File files[kMaxFiles];
std::atomic<int64_t> file_count;
struct {
  uintptr_t begin, end;
} zeroed[kMaxZeroedRanges];  // ring buffer of the latest ranges
int64_t zeroed_count;
std::atomic_flag busy = ATOMIC_FLAG_INIT;  // a mutex is not safe in a signal handler
struct sigaction previous;

class Lock {
 public:
  Lock() {
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Lock() { busy.clear(std::memory_order_release); }
};

// Finds the mapping that contains an address.  Calls only async-signal-safe functions, because
// the signal handler calls it.
bool find(uintptr_t address, Mapping* found) {
  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return false;
  char text[1024];
  Mapping line{};
  uint64_t number = 0, major = 0;
  int field = 0, place = 0;  // fields: begin-end access offset major:minor inode path
  bool done = false;
  ssize_t count;
  while (!done && ((count = read(maps, text, sizeof text)) > 0 || (count < 0 && errno == EINTR)))
    for (ssize_t i = 0; !done && i < count; ++i) {
      const char c = text[i];
      if (c == '\n') {
        if (field == 6) line.inode = number;  // no path follows
        done = field >= 6 && line.begin <= address && address < line.end;
        if (!done) {
          line = {};
          number = 0;
          field = place = 0;
        }
      } else if (field == 7) {
        continue;  // the path
      } else if (field == 2 && c != ' ') {
        if (place < 4) line.access[place++] = c;
      } else if (c == ' ' || (field == 0 && c == '-') || (field == 4 && c == ':')) {
        if (field == 0) line.begin = number;
        if (field == 1) line.end = number;
        if (field == 4) major = number;
        if (field == 5) line.device = major << 32 | number;
        if (field == 6) line.inode = number;
        ++field;
        number = 0;
      } else {
        const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
        number = (field == 6 ? 10 : 16) * number + digit;
      }
    }
  close(maps);
  if (done) *found = line;
  return done;
}

File* watched(const Mapping& mapping) {
  const int64_t count = file_count.load(std::memory_order_acquire);
  for (int64_t i = 0; i < count; ++i)
    if (files[i].inode == mapping.inode && files[i].device == mapping.device) return &files[i];
  return nullptr;
}

// Maps zeros from the address to the end of its mapping; returns false if no watched file is there.
bool put_zeros(uintptr_t address) {
  const Lock lock;
  Mapping mapping;
  if (!find(address, &mapping) || mapping.access[2] == 'x') return false;
  if (!mapping.inode) {  // no file: another thread may have mapped zeros here already
    for (const auto& range : zeroed)
      if (range.begin <= address && address < range.end) return true;
    return false;
  }
  File* const file = watched(mapping);
  if (!file) return false;
  file->faults.fetch_add(1);  // before any thread can read a zero
  const uintptr_t page = address & ~uintptr_t(sysconf(_SC_PAGESIZE) - 1);
  const int access = PROT_READ | (mapping.access[1] == 'w' ? PROT_WRITE : 0);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  if (mmap(reinterpret_cast<void*>(page), mapping.end - page, access, flags, -1, 0) == MAP_FAILED)
    return false;
  auto& range = zeroed[zeroed_count++ % kMaxZeroedRanges];
  range.begin = page;
  range.end = mapping.end;
  return true;
}

void on_fault(int number, siginfo_t* info, void*) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (info->si_code != BUS_ADRERR || !put_zeros(address)) {
    // Restore the previous handler.  The faulting access repeats on return and reaches it; a signal
    // sent by kill() does not repeat, so raise it again.
    sigaction(number, &previous, nullptr);
    if (info->si_code <= 0) raise(number);
  }
  errno = saved_errno;
}

}  // namespace

// Installs the SIGBUS handler at the first call; returns 0 if sigaction fails.
extern "C" int64_t face_bus_begin() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &previous) == 0;
  }();
  return installed;
}

// Watches the file mapped at an address.  Returns its number, which is the same for every mapping
// of that file, or -1 if there is no file or the table is full.
extern "C" int64_t face_bus_watch(const void* address) {
  Mapping mapping;
  if (!find(reinterpret_cast<uintptr_t>(address), &mapping) || !mapping.inode) return -1;
  const Lock lock;
  if (const File* file = watched(mapping)) return file - files;
  const int64_t number = file_count.load();
  if (number == kMaxFiles) return -1;
  files[number].device = mapping.device;
  files[number].inode = mapping.inode;
  file_count.store(number + 1, std::memory_order_release);
  return number;
}

// Returns the number of read faults in a watched file.
extern "C" int64_t face_bus_faults(int64_t number) { return files[number].faults.load(); }
