// SPDX-License-Identifier: Apache-2.0
// Thread pool that decodes batches of JPEGs.  Several batches may be queued, so the threads stay
// busy while the caller handles the previous batch.  Python calls it through ctypes without the
// GIL.
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

constexpr int64_t kTaskImages = 8;  // images that a thread decodes before it locks the queue again
// An image may have this many bytes plus kMaxPixelBytes for each pixel, more than any coded pixel
// needs. Longer images go to the fallback decoder, so that an oversized image allocates no large
// buffers here.
constexpr int64_t kMaxHeaderBytes = 1 << 18, kMaxPixelBytes = 16;

struct Job {
  face::Jpegs images;
  uint8_t* status;
  int64_t started = 0, finished = 0;  // images
};

// Returns the images from `begin` to `end`.
face::Jpegs slice(const face::Jpegs& all, int64_t begin, int64_t end) {
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

// Workspace of one thread; it also caches the Huffman tables of the last image.
class Workspace {
 public:
  ~Workspace() { std::free(memory_); }
  // Returns the workspace, grown if necessary; null if no memory is available.
  char* reserve(const face::JpegKernels& jpeg, int64_t W, int64_t max_bytes) {
    const int64_t bytes = (jpeg.bytes(W, max_bytes) + 63) / 64 * 64;
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
      } catch (const std::system_error&) {  // the thread limit of the process
        break;
      }
  }

  bool has_threads() const { return !threads_.empty(); }

  // Returns false in a forked process: it has none of the threads, and the mutex may stay locked.
  bool in_own_process() const { return getpid() == process_; }

  void start(Job* job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    pending_.insert(job);
    if (job->images.N) queue_.push_back(job);
    work_available_.notify_all();
  }

  // Waits for the job and deletes it; returns false if end() dropped it.
  bool wait(Job* job) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    job_finished_.wait(lock, [&] { return ending_ || job->finished == job->images.N; });
    const bool finished = job->finished == job->images.N;
    if (finished) {
      pending_.erase(job);
      delete job;
    }
    if (--waiting_ == 0) job_finished_.notify_all();
    return finished;
  }

  // Joins the threads, drops the images that no thread has started, and deletes the decoder.
  void end() {
    std::unique_lock<std::mutex> lock(mutex_);
    ending_ = true;
    work_available_.notify_all();
    job_finished_.notify_all();
    job_finished_.wait(lock, [&] { return waiting_ == 0; });
    lock.unlock();
    for (std::thread& thread : threads_) thread.join();
    for (Job* job : pending_) delete job;
    delete this;
  }

 private:
  void work() {
    Workspace workspace;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_available_.wait(lock, [&] { return ending_ || !queue_.empty(); });
      if (ending_) return;
      Job& job = *queue_.front();
      const int64_t begin = job.started, end = std::min(begin + kTaskImages, job.images.N);
      job.started = end;
      if (end == job.images.N) queue_.pop_front();
      lock.unlock();
      decode(job, begin, end, workspace);
      lock.lock();
      job.finished += end - begin;
      if (job.finished == job.images.N) job_finished_.notify_all();
    }
  }

  static void decode(Job& job, int64_t begin, int64_t end, Workspace& workspace) {
    const face::JpegKernels& jpeg = face::kernels().jpeg;
    char* const memory =
        jpeg.decode ? workspace.reserve(jpeg, job.images.W, job.images.max_bytes) : nullptr;
    if (memory)
      jpeg.decode(slice(job.images, begin, end), memory, job.status + begin);
    else
      std::memset(job.status + begin, face::kFallback, end - begin);
  }

  const pid_t process_;
  std::mutex mutex_;
  std::condition_variable work_available_, job_finished_;
  std::deque<Job*> queue_;  // jobs with images that no thread has started
  std::set<Job*> pending_;  // jobs that no call of wait() has returned
  int64_t waiting_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

// Creates a decoder; returns null if the process cannot start a thread.
extern "C" Decoder* face_decoder(int64_t threads) {
  Decoder* decoder = new Decoder(std::max<int64_t>(threads, 1));
  if (decoder->has_threads()) return decoder;
  decoder->end();
  return nullptr;
}

// Ends a decoder; does nothing in a forked process.
extern "C" void face_decoder_end(Decoder* decoder) {
  if (decoder->in_own_process()) decoder->end();
}

// Starts to decode JPEGs of H x W pixels: to planes (N, 3, H, W) of x * factor + offset, or to
// pixels (N, H, W, 3) if `planes` is null.  Writes to status (N,) 0: decoded; 1: needs the fallback
// decoder; 2: the entropy-coded data ends before the last pixels.  Pixels with status 1 or 2 are
// undefined. All arrays must stay valid until face_decoder_wait returns.  Returns null in a forked
// process.
extern "C" Job* face_decoder_start(Decoder* decoder, const uint8_t* const* data,
                                   const int64_t* bytes, const uint8_t* mirror, int64_t N,
                                   int64_t H, int64_t W, float factor, float offset, float* planes,
                                   uint8_t* pixels, uint8_t* status) {
  if (!decoder->in_own_process()) return nullptr;
  const int64_t longest = N ? std::max<int64_t>(*std::max_element(bytes, bytes + N), 0) : 0;
  const int64_t max_bytes = std::min(longest, kMaxPixelBytes * H * W + kMaxHeaderBytes);
  Job* job =
      new Job{{N, H, W, max_bytes, data, bytes, mirror, factor, offset, planes, pixels}, status};
  decoder->start(job);
  return job;
}

// Waits for a job and deletes it.  Returns 0 if the decoder ends first, and in a forked process.
extern "C" int64_t face_decoder_wait(Decoder* decoder, Job* job) {
  return decoder->in_own_process() && decoder->wait(job);
}

// Returns whether the entropy-coded data of a JPEG ends, at an end-of-image marker, before its last
// pixels.  Also checks JPEGs that Exif rotates; returns 0 for all other formats that this decoder
// does not support.
extern "C" int64_t face_jpeg_cut_off(const uint8_t* data, int64_t bytes) {
  const face::JpegKernels& jpeg = face::kernels().jpeg;
  int64_t H = 0, W = 0;
  if (!jpeg.decode || !jpeg_size(data, bytes, H, W)) return 0;
  Workspace workspace;
  char* const memory = workspace.reserve(jpeg, W, bytes);
  if (!memory) return 0;
  uint8_t status = face::kFallback;
  jpeg.decode({1, H, W, bytes, &data, &bytes, nullptr, 0, 0, nullptr, nullptr}, memory, &status);
  return status == face::kTruncated;
}
