// SPDX-License-Identifier: Apache-2.0
// What a loader calls for whole batches: records out of a mapped file, and pictures into an array.
// Called through ctypes, without Python's lock; knows no MXNet.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

#include "dlpack/dlpack.h"
#include "kernels.h"

namespace {

#include "jpeg/jpeg_segments.h"

constexpr uint32_t kMagic = 0xCED7230A;
constexpr int64_t kNotWhole = -1, kInParts = -2;

uint32_t word(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Bytes in front of the picture: magic number, length, header of 24 bytes, `flag` labels.
int64_t front(const uint8_t* record) { return 32 + 4 * int64_t(word(record + 8)); }

// Bytes of the picture of a record, and where it begins.  Each word is read once: the file may change.
int64_t picture_bytes(const uint8_t* data, int64_t size, int64_t offset, const uint8_t** picture) {
  if (offset < 0 || offset + 32 > size) return kNotWhole;
  const uint8_t* record = data + offset;
  const uint32_t length = word(record + 4);
  if (word(record) != kMagic) return kNotWhole;
  if (length >> 29) return kInParts;
  const int64_t before = front(record), bytes = 8 + int64_t(length) - before;
  if (bytes <= 0 || offset + 8 + int64_t(length) > size) return kNotWhole;
  *picture = record + before;
  return bytes;
}

// Whether a picture is a JPEG and has no end-of-image marker at its end, zeros aside.
bool without_end(const uint8_t* picture, int64_t bytes) {
  if (bytes < 2 || picture[0] != 0xFF || picture[1] != 0xD8) return false;
  while (bytes > 2 && picture[bytes - 1] == 0) --bytes;
  return picture[bytes - 2] != 0xFF || picture[bytes - 1] != 0xD9;
}

// Memory that is lent.  MXNet has no pool for the CPU: malloc would give it back to the system each
// time, and fetching and clearing its pages again costs more than filling it.
struct Block {
  DLManagedTensor tensor;
  int64_t shape[4];
  void* memory;
  size_t bytes;  // mapped
};

constexpr int64_t kLeastOfThread = 16;  // pictures: starting a thread costs as much as two
constexpr size_t kLargePage = size_t(1) << 21;
constexpr size_t kMostFree = 8;

struct Free {
  std::mutex mutex;
  std::vector<Block*> blocks;  // the last one was used last, and is in the caches still
};
Free& unused() {
  static Free* all = new Free;  // never destroyed: arrays may be given back after main has returned
  return *all;
}

void unmap(Block* block) {
  munmap(block->memory, block->bytes);
  delete block;
}

Block* take(size_t bytes) {
  bytes = (bytes + kLargePage - 1) / kLargePage * kLargePage;
  {
    Free& all = unused();
    const std::lock_guard<std::mutex> lock(all.mutex);
    for (size_t i = all.blocks.size(); i-- > 0;)
      if (all.blocks[i]->bytes == bytes) {
        Block* block = all.blocks[i];
        all.blocks.erase(all.blocks.begin() + i);
        return block;
      }
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, bytes, MADV_HUGEPAGE);
  Block* block = new Block{};
  block->memory = memory;
  block->bytes = bytes;
  return block;
}

void give_back(Block* block) {
  Block* oldest = nullptr;
  {
    Free& all = unused();
    const std::lock_guard<std::mutex> lock(all.mutex);
    all.blocks.push_back(block);
    if (all.blocks.size() > kMostFree) {
      oldest = all.blocks.front();
      all.blocks.erase(all.blocks.begin());
    }
  }
  if (oldest) unmap(oldest);
}

}  // namespace

// Where the pictures of some records begin in memory and their bytes: -1 where no whole record stands,
// -2 for one in parts.
extern "C" void face_find_images(const uint8_t* data, int64_t size, const int64_t* offsets,
                                   int64_t count, const uint8_t** pictures, int64_t* bytes) {
  for (int64_t i = 0; i < count; ++i) {
    pictures[i] = nullptr;
    bytes[i] = picture_bytes(data, size, offsets[i], &pictures[i]);
  }
}

// Pictures to the start of rows of `stride` bytes, which are longer by two at least: an end-of-image
// marker and zeros follow.  Returns how many of them had no such marker at their own end.
extern "C" int64_t face_gather(const uint8_t* const* pictures, const int64_t* bytes, int64_t count,
                               uint8_t* rows, int64_t stride) {
  int64_t unended = 0;
  for (int64_t i = 0; i < count; ++i, rows += stride) {
    std::memcpy(rows, pictures[i], bytes[i]);
    unended += without_end(rows, bytes[i]);
    rows[bytes[i]] = 0xFF;
    rows[bytes[i] + 1] = 0xD9;
    std::memset(rows + bytes[i] + 2, 0, stride - bytes[i] - 2);
  }
  return unended;
}

// turned (count,): 1 for the JPEGs that Exif turns, 2 to 8 of its orientations, or may turn.
extern "C" void face_find_turned(const uint8_t* const* pictures, const int64_t* bytes,
                                 int64_t count, uint8_t* turned) {
  for (int64_t i = 0; i < count; ++i) turned[i] = may_turn(pictures[i], bytes[i]);
}

// The order in which DALI's readers (1.34, dali/operators/reader/loader/loader.h) give the `count`
// records of a shard with random_shuffle, initial_fill and seed: the next of the first `window` that
// are left, drawn by the same generator, so that it is the same order.
// order (count,): the first `taken` are those that come first.
extern "C" void face_window_order(int64_t count, int64_t taken, int64_t window, int64_t seed,
                                  int32_t* order) {
  std::seed_seq sequence({seed});
  std::default_random_engine engine(sequence);
  std::iota(order, order + count, 0);
  for (int64_t i = 0; i < taken; ++i) {
    const int64_t end = std::min(i + window, count);
    std::swap(order[i], order[i + std::uniform_int_distribution<>(0, int(end - i) - 1)(engine)]);
  }
}

// Asks the system to fetch whole pages of a mapped file, and does not wait for them.
extern "C" void face_read_ahead(uint8_t* data, const int64_t* offsets, const int64_t* bytes,
                                int64_t count) {
  for (int64_t i = 0; i < count; ++i) madvise(data + offsets[i], bytes[i], MADV_WILLNEED);
}

// An array of float32 (N, C, H, W), not initialised, as DLPack hands it over: for
// MXNDArrayFromDLPackEx.  Its memory is used again once nobody refers to the array any more, MXNet's
// engine and the graph of autograd included.  Null where there is no memory.
extern "C" DLManagedTensor* face_pooled_array(int64_t N, int64_t C, int64_t H, int64_t W) {
  Block* block = take(N * C * H * W * sizeof(float));
  if (!block) return nullptr;
  const int64_t shape[] = {N, C, H, W};
  std::memcpy(block->shape, shape, sizeof shape);
  DLTensor& tensor = block->tensor.dl_tensor;
  tensor.data = block->memory;
  tensor.ctx = {kDLCPU, 0};
  tensor.ndim = 4;
  tensor.dtype = {kDLFloat, 32, 1};
  tensor.shape = block->shape;
  tensor.strides = nullptr;
  tensor.byte_offset = 0;
  block->tensor.manager_ctx = block;
  block->tensor.deleter = [](DLManagedTensor* lent) {
    give_back(static_cast<Block*>(lent->manager_ctx));
  };
  return &block->tensor;
}

// y (N, 3, H, W) = x * factor + offset for the pictures x (H, W, 3) at some rows of `pixels`, shared
// among threads that end with it: those of OpenMP would go on spinning, and those of Python wait for
// its lock.
extern "C" void face_normalise(const uint8_t* pixels, const int64_t* rows, const uint8_t* mirror,
                               int64_t N, int64_t H, int64_t W, float factor, float offset,
                               float* y, int64_t threads) {
  const auto part = [=](int64_t begin, int64_t end) {
    face::kernels().normalise(
        {end - begin, H, W, pixels, rows + begin, mirror + begin, factor, offset},
        y + begin * 3 * H * W);
  };
  const int64_t parts = std::max<int64_t>(1, std::min(threads, N / kLeastOfThread));
  std::vector<std::thread> others;
  int64_t begin = 0;
  for (int64_t i = 1; i < parts; ++i) {
    const int64_t end = N * i / parts;
    try {
      others.emplace_back(part, begin, end);
    } catch (const std::system_error&) {  // no thread to be had
      break;
    }
    begin = end;
  }
  part(begin, N);
  for (std::thread& other : others) other.join();
}
