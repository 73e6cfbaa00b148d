// SPDX-License-Identifier: Apache-2.0
// Threads that decode JPEGs: jobs of many pictures, one after the other, so that nobody waits while
// whoever has asked takes the result or asks for more.  Called through ctypes, without Python's lock.
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels.h"

namespace {

#include "jpeg/jpeg_segments.h"

constexpr int64_t kPart = 8;  // pictures that a thread takes at a time
// Bytes of a picture, beside 16 for each pixel, which is more than codes can take: longer ones are
// left, so that no thread needs memory for a giant.
constexpr int64_t kMostFront = 1 << 18;

struct Job {
  face::Jpegs pictures;
  uint8_t* left;
  int64_t begun = 0, done = 0;  // of its pictures
};

// The pictures from `begin` to `end` of some.
face::Jpegs part_of(const face::Jpegs& all, int64_t begin, int64_t end) {
  face::Jpegs part = all;
  const int64_t size = 3 * all.H * all.W;
  part.N = end - begin;
  part.data += begin;
  part.bytes += begin;
  if (part.mirror) part.mirror += begin;
  if (part.planes) part.planes += begin * size;
  if (part.pixels) part.pixels += begin * size;
  return part;
}

// Working memory of a thread, which holds the tables of the last picture.
class Memory {
 public:
  ~Memory() { std::free(memory_); }
  char* of(const face::JpegKernels& jpeg, int64_t W, int64_t most) {
    const int64_t bytes = (jpeg.bytes(W, most) + 63) / 64 * 64;
    if (bytes > bytes_) {
      std::free(memory_);
      bytes_ = bytes + bytes / 4 / 64 * 64;
      memory_ = std::aligned_alloc(64, bytes_);
      if (!memory_)
        bytes_ = 0;
      else
        jpeg.begin(static_cast<char*>(memory_));
    }
    return static_cast<char*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

class Decoder {
 public:
  explicit Decoder(int64_t threads) : process_(getpid()) {
    for (int64_t i = 0; i < threads; ++i) try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {  // no more to be had
        break;
      }
  }

  bool works() const { return !threads_.empty(); }

  // False in a fork, which has none of the threads, and whose mutex may be locked for ever.
  bool here() const { return getpid() == process_; }

  void start(Job* job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.insert(job);
    if (job->pictures.N) jobs_.push_back(job);
    wanted_.notify_all();
  }

  // Forgets the job; false if it was dropped.
  bool wait(Job* job) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    finished_.wait(lock, [&] { return ending_ || job->done == job->pictures.N; });
    const bool done = job->done == job->pictures.N;
    if (done) {
      all_.erase(job);
      delete job;
    }
    if (--waiting_ == 0) finished_.notify_all();
    return done;
  }

  // Ends; what is not begun is dropped.
  void end() {
    std::unique_lock<std::mutex> lock(mutex_);
    ending_ = true;
    wanted_.notify_all();
    finished_.notify_all();
    finished_.wait(lock, [&] { return waiting_ == 0; });
    lock.unlock();
    for (std::thread& thread : threads_) thread.join();
    for (Job* job : all_) delete job;
    delete this;
  }

 private:
  void work() {
    Memory memory;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wanted_.wait(lock, [&] { return ending_ || !jobs_.empty(); });
      if (ending_) return;
      Job& job = *jobs_.front();
      const int64_t begin = job.begun, end = std::min(begin + kPart, job.pictures.N);
      job.begun = end;
      if (end == job.pictures.N) jobs_.pop_front();
      lock.unlock();
      decode(job, begin, end, memory);
      lock.lock();
      job.done += end - begin;
      if (job.done == job.pictures.N) finished_.notify_all();
    }
  }

  static void decode(Job& job, int64_t begin, int64_t end, Memory& memory) {
    const face::JpegKernels& jpeg = face::kernels().jpeg;
    char* const space = jpeg.decode ? memory.of(jpeg, job.pictures.W, job.pictures.most) : nullptr;
    if (space)
      jpeg.decode(part_of(job.pictures, begin, end), space, job.left + begin);
    else
      std::memset(job.left + begin, face::kLeft, end - begin);
  }

  const pid_t process_;
  std::mutex mutex_;
  std::condition_variable wanted_, finished_;
  std::deque<Job*> jobs_;  // that have pictures which nobody has begun
  std::set<Job*> all_;     // that were not waited for
  int64_t waiting_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

// Null where there are no threads to be had.
extern "C" Decoder* face_decoder(int64_t threads) {
  Decoder* decoder = new Decoder(std::max<int64_t>(threads, 1));
  if (decoder->works()) return decoder;
  decoder->end();
  return nullptr;
}

extern "C" void face_decoder_end(Decoder* decoder) {
  if (decoder->here()) decoder->end();
}

// Has JPEG pictures of H x W pixels decoded: to planes (N, 3, H, W) of x * factor + offset, or where
// `planes` is null to pixels (N, H, W, 3).  left (N,): 0 for those that are decoded, 1 for those that
// are left to a decoder for all JPEGs, 2 for those whose codes end before their last pixels; of the
// last two the part of the result is undefined.  All arrays stay until the job was waited for.  Null
// in a fork.
extern "C" Job* face_decoder_start(Decoder* decoder, const uint8_t* const* data,
                                   const int64_t* bytes, const uint8_t* mirror, int64_t N,
                                   int64_t H, int64_t W, float factor, float offset, float* planes,
                                   uint8_t* pixels, uint8_t* left) {
  if (!decoder->here()) return nullptr;
  const int64_t longest = N ? std::max<int64_t>(*std::max_element(bytes, bytes + N), 0) : 0;
  const int64_t most = std::min(longest, 16 * H * W + kMostFront);
  Job* job = new Job{{N, H, W, most, data, bytes, mirror, factor, offset, planes, pixels}, left};
  decoder->start(job);
  return job;
}

// Waits for a job and forgets it; 0 where the decoder ends first, and in a fork.
extern "C" int64_t face_decoder_wait(Decoder* decoder, Job* job) {
  return decoder->here() && decoder->wait(job);
}

// Whether the codes of a JPEG end, at an end-of-image marker, before its last pixels.  False as well
// for all that this decoder does not take, but for what Exif turns.
extern "C" int64_t face_jpeg_cut_off(const uint8_t* data, int64_t bytes) {
  const face::JpegKernels& jpeg = face::kernels().jpeg;
  int64_t H = 0, W = 0;
  if (!jpeg.decode || !jpeg_size(data, bytes, H, W)) return 0;
  Memory memory;
  char* const space = memory.of(jpeg, W, bytes);
  if (!space) return 0;
  uint8_t left = face::kLeft;
  jpeg.decode({1, H, W, bytes, &data, &bytes, nullptr, 0, 0, nullptr, nullptr}, space, &left);
  return left == face::kCutOff;
}
