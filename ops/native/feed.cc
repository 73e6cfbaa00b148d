// SPDX-License-Identifier: Apache-2.0
// Loader functions for whole batches: locate and copy encoded images, normalise decoded ones, and
// allocate pooled arrays.  Python calls them through ctypes without the GIL.  They do not use
// MXNet.
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
constexpr int64_t kInvalidRecord = -1, kMultiPartRecord = -2;

uint32_t word(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Returns the bytes before the image: magic number, length, 24-byte header and `flag` labels.
int64_t prefix_bytes(const uint8_t* record) { return 32 + 4 * int64_t(word(record + 8)); }

// Returns the size of a record's image in bytes and sets `image` to its first byte.  Reads each
// word once, because another process may change the file.
int64_t image_bytes(const uint8_t* data, int64_t size, int64_t offset, const uint8_t** image) {
  if (offset < 0 || offset + 32 > size) return kInvalidRecord;
  const uint8_t* record = data + offset;
  const uint32_t length = word(record + 4);
  if (word(record) != kMagic) return kInvalidRecord;
  if (length >> 29) return kMultiPartRecord;
  const int64_t before = prefix_bytes(record), bytes = 8 + int64_t(length) - before;
  if (bytes <= 0 || offset + 8 + int64_t(length) > size) return kInvalidRecord;
  *image = record + before;
  return bytes;
}

// Returns whether an image is a JPEG without an end-of-image marker.  Ignores trailing zeros.
bool lacks_end_marker(const uint8_t* image, int64_t bytes) {
  if (bytes < 2 || image[0] != 0xFF || image[1] != 0xD8) return false;
  while (bytes > 2 && image[bytes - 1] == 0) --bytes;
  return image[bytes - 2] != 0xFF || image[bytes - 1] != 0xD9;
}

// A pooled buffer.  MXNet has no memory pool for the CPU.  malloc would return so large a buffer to
// the kernel at each free, and new zeroed pages cost more time than the pixels that fill them.
struct Block {
  DLManagedTensor tensor;
  int64_t shape[4];
  void* memory;
  size_t bytes;  // size of the mapping
};

constexpr int64_t kMinThreadImages = 16;  // a thread start costs as much time as two images
constexpr size_t kHugePageBytes = size_t(1) << 21;
constexpr size_t kMaxFreeBlocks = 8;

struct Pool {
  std::mutex mutex;
  std::vector<Block*> blocks;  // most recently used last: that block may still be in the CPU caches
};
Pool& free_blocks() {
  static Pool* pool = new Pool;  // never destroyed: MXNet may release arrays after main returns
  return *pool;
}

void unmap(Block* block) {
  munmap(block->memory, block->bytes);
  delete block;
}

// Returns a free block of the pool, or maps a new one; null if no memory is available.
Block* acquire(size_t bytes) {
  bytes = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  {
    Pool& pool = free_blocks();
    const std::lock_guard<std::mutex> lock(pool.mutex);
    for (size_t i = pool.blocks.size(); i-- > 0;)
      if (pool.blocks[i]->bytes == bytes) {
        Block* block = pool.blocks[i];
        pool.blocks.erase(pool.blocks.begin() + i);
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

// Returns a block to the pool; unmaps the oldest one if the pool is full.
void release(Block* block) {
  Block* oldest = nullptr;
  {
    Pool& pool = free_blocks();
    const std::lock_guard<std::mutex> lock(pool.mutex);
    pool.blocks.push_back(block);
    if (pool.blocks.size() > kMaxFreeBlocks) {
      oldest = pool.blocks.front();
      pool.blocks.erase(pool.blocks.begin());
    }
  }
  if (oldest) unmap(oldest);
}

}  // namespace

// Writes the address and the size in bytes of each record's image.  A size of -1 marks an invalid
// or truncated record, -2 a record that RecordIO split into parts.
extern "C" void face_find_images(const uint8_t* data, int64_t size, const int64_t* offsets,
                                 int64_t count, const uint8_t** images, int64_t* bytes) {
  for (int64_t i = 0; i < count; ++i) {
    images[i] = nullptr;
    bytes[i] = image_bytes(data, size, offsets[i], &images[i]);
  }
}

// Copies each image to the start of a row of `stride` bytes and appends an end-of-image marker and
// zeros.  A row is at least two bytes longer than its image.  Returns the number of JPEGs that had
// no end-of-image marker of their own.
extern "C" int64_t face_gather(const uint8_t* const* images, const int64_t* bytes, int64_t count,
                               uint8_t* rows, int64_t stride) {
  int64_t unterminated = 0;
  for (int64_t i = 0; i < count; ++i, rows += stride) {
    std::memcpy(rows, images[i], bytes[i]);
    unterminated += lacks_end_marker(rows, bytes[i]);
    rows[bytes[i]] = 0xFF;
    rows[bytes[i] + 1] = 0xD9;
    std::memset(rows + bytes[i] + 2, 0, stride - bytes[i] - 2);
  }
  return unterminated;
}

// Writes 1 to turned (count,) for each JPEG that OpenCV may rotate or mirror because of its Exif
// orientation, else 0.
extern "C" void face_find_turned(const uint8_t* const* images, const int64_t* bytes, int64_t count,
                                 uint8_t* turned) {
  for (int64_t i = 0; i < count; ++i) turned[i] = may_turn(images[i], bytes[i]);
}

// Writes 1 to others (count,) for each image that is not a JPEG whose header states H x W pixels,
// else 0.
extern "C" void face_find_other_sizes(const uint8_t* const* images, const int64_t* bytes,
                                      int64_t count, int64_t H, int64_t W, uint8_t* others) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t height = 0, width = 0;
    others[i] = !jpeg_size(images[i], bytes[i], height, width) || height != H || width != W;
  }
}

// Computes the order in which a DALI reader with random_shuffle returns the `count` records of a
// shard (DALI 1.34, dali/operators/reader/loader/loader.h).  `window` is its initial_fill.  DALI
// draws each record from the first `window` remaining ones; the same random generator gives the
// same order. Only the first `taken` values of order (count,) are final.
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

// Asks the kernel to read whole pages of a mapped file.  Does not wait for them.
extern "C" void face_read_ahead(uint8_t* data, const int64_t* offsets, const int64_t* bytes,
                                int64_t count) {
  for (int64_t i = 0; i < count; ++i) madvise(data + offsets[i], bytes[i], MADV_WILLNEED);
}

// Returns an uninitialised float32 array (N, C, H, W) as a DLPack tensor for MXNDArrayFromDLPackEx.
// The pool reuses its memory after the last reference is dropped; MXNet's engine and the autograd
// graph hold references too.  Returns null if no memory is available.
extern "C" DLManagedTensor* face_pooled_array(int64_t N, int64_t C, int64_t H, int64_t W) {
  Block* block = acquire(N * C * H * W * sizeof(float));
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
  block->tensor.deleter = [](DLManagedTensor* managed) {
    release(static_cast<Block*>(managed->manager_ctx));
  };
  return &block->tensor;
}

// Computes y (N, 3, H, W) = x * factor + offset for images x (H, W, 3) at the given rows of
// `pixels`. Starts threads for the call and joins them: OpenMP's threads would spin after it, and
// Python's threads would wait for the GIL.
extern "C" void face_normalise(const uint8_t* pixels, const int64_t* rows, const uint8_t* mirror,
                               int64_t N, int64_t H, int64_t W, float factor, float offset,
                               float* y, int64_t threads) {
  const auto part = [=](int64_t begin, int64_t end) {
    face::kernels().normalise(
        {end - begin, H, W, pixels, rows + begin, mirror + begin, factor, offset},
        y + begin * 3 * H * W);
  };
  const int64_t parts = std::max<int64_t>(1, std::min(threads, N / kMinThreadImages));
  std::vector<std::thread> others;
  int64_t begin = 0;
  for (int64_t i = 1; i < parts; ++i) {
    const int64_t end = N * i / parts;
    try {
      others.emplace_back(part, begin, end);
    } catch (const std::system_error&) {  // the thread limit of the process
      break;
    }
    begin = end;
  }
  part(begin, N);
  for (std::thread& other : others) other.join();
}
