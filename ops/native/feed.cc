// SPDX-License-Identifier: Apache-2.0
// What a loader calls for whole batches: records out of a mapped file, and pictures into an array.
// Called through ctypes, without Python's lock; knows no MXNet.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace {

constexpr uint32_t kMagic = 0xCED7230A;
constexpr int64_t kNotWhole = -1, kInParts = -2;

uint32_t word(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Bytes in front of the picture: magic number, length, header of 24 bytes, `flag` labels.
int64_t front(const uint8_t* record) { return 32 + 4 * int64_t(word(record + 8)); }

int64_t picture_bytes(const uint8_t* data, int64_t size, int64_t offset) {
  if (offset < 0 || offset + 32 > size) return kNotWhole;
  const uint8_t* record = data + offset;
  const uint32_t length = word(record + 4);
  if (word(record) != kMagic) return kNotWhole;
  if (length >> 29) return kInParts;
  const int64_t bytes = 8 + int64_t(length) - front(record);
  return bytes > 0 && offset + 8 + int64_t(length) <= size ? bytes : kNotWhole;
}

// Calls advise for the whole pages of a piece of memory.
void advise(const void* begin, int64_t bytes, int64_t page, int advice) {
  const auto first = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t start = first / page * page;
  madvise(reinterpret_cast<void*>(start), first + bytes - start, advice);
}

}  // namespace

// Bytes of the pictures of some records: -1 where no whole record stands, -2 for one in parts.
// Returns how many pages had to be fetched from the disk for it.
extern "C" int64_t face_picture_bytes(const uint8_t* data, int64_t size, const int64_t* offsets,
                                      int64_t count, int64_t* bytes) {
  rusage before, after;
  getrusage(RUSAGE_THREAD, &before);
  for (int64_t i = 0; i < count; ++i) bytes[i] = picture_bytes(data, size, offsets[i]);
  getrusage(RUSAGE_THREAD, &after);
  return after.ru_majflt - before.ru_majflt;
}

// The pictures of whole records, each at the start of the row of `stride` bytes that `places` names;
// a row is longer than its picture by two at least: an end-of-image marker and zeros follow.
extern "C" void face_gather(const uint8_t* data, const int64_t* offsets, const int64_t* bytes,
                            const int64_t* places, int64_t count, uint8_t* rows, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* record = data + offsets[i];
    uint8_t* row = rows + places[i] * stride;
    std::memcpy(row, record + front(record), bytes[i]);
    row[bytes[i]] = 0xFF;
    row[bytes[i] + 1] = 0xD9;
    std::memset(row + bytes[i] + 2, 0, stride - bytes[i] - 2);
  }
}

// Asks the system to fetch `bytes` from each of some places, and does not wait for it.
extern "C" void face_read_ahead(const uint8_t* data, int64_t size, const int64_t* offsets,
                                int64_t count, int64_t bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  for (int64_t i = 0; i < count; ++i) {
    if (offsets[i] < 0 || offsets[i] >= size) continue;
    const int64_t left = size - offsets[i];
    advise(data + offsets[i], bytes < left ? bytes : left, page, MADV_WILLNEED);
  }
}

// Tells the system that a mapped file is read here and there: a page that is missing is fetched
// alone.
extern "C" void face_read_randomly(const uint8_t* data, int64_t size) {
  advise(data, size, sysconf(_SC_PAGESIZE), MADV_RANDOM);
}

// Asks for large pages in an array that nobody has written to yet: a tenth of the time is spent on
// small ones otherwise.
extern "C" void face_large_pages(void* memory, int64_t bytes) {
  constexpr uintptr_t kLarge = 1 << 21;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + kLarge - 1) / kLarge * kLarge;
  const uintptr_t last = (begin + bytes) / kLarge * kLarge;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

// y (N, 3, H, W) = x * factor + offset for the pictures x (H, W, 3) at some rows of `pixels`.
extern "C" void face_normalise(const uint8_t* pixels, const int64_t* rows, const uint8_t* mirror,
                               int64_t N, int64_t H, int64_t W, float factor, float offset,
                               float* y) {
  face::kernels().normalise({N, H, W, pixels, rows, mirror, factor, offset}, y);
}
