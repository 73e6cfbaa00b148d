// SPDX-License-Identifier: Apache-2.0
// PReLU, and batch normalisation optionally followed by PReLU, on (N, C, P) arrays.
//
// Batch normalisation runs all its passes over one channel before the next channel, so that the
// later passes read the values from the cache.
//
// Included by level.cc, into the namespace of a level.
#pragma once

// Calls f(i) for each whole vector of a plane of n values, and g(i) for each remaining value.
template <typename T, typename F, typename G>
INLINE void over(int64_t n, F f, G g) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(i);
  for (; i < n; ++i) g(i);
}

// Applies PReLU to a vector or a single value.
template <typename T, typename V>
INLINE V rectified(V z, T slope) {
  return z > 0 ? z : z * slope;
}

template <typename T>
void prelu_forward(const Planes& size, int threads, const T* x, const T* slope, T* y) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t plane = 0; plane < size.N * size.C; ++plane) {
    const T a = slope[plane % size.C];
    const T* from = x + plane * size.P;
    T* to = y + plane * size.P;
    over<T>(
        size.P, [&](int64_t i) { at(to + i) = rectified<T>(at(from + i), a); },
        [&](int64_t i) { to[i] = rectified<T>(from[i], a); });
  }
}

template <typename T>
void prelu_backward(const Planes& size, int threads, const T* x, const T* slope, const T* dy, T* dx,
                    T* dslope) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range channels = share(size.C, k, threads);
    for (int64_t c = channels.begin; c < channels.end; ++c) dslope[c] = 0;
    for (int64_t n = 0; n < size.N; ++n)
      for (int64_t c = channels.begin; c < channels.end; ++c) {
        const int64_t plane = (n * size.C + c) * size.P;
        const T *from = x + plane, *gradient = dy + plane;
        const T a = slope[c];
        T* to = dx + plane;
        Vector<T> sum{};
        T rest = 0;
        over<T>(
            size.P,
            [&](int64_t i) {
              const Vector<T> v = at(from + i), g = at(gradient + i);
              at(to + i) = v > 0 ? g : g * a;
              sum += v > 0 ? Vector<T>{} : g * v;
            },
            [&](int64_t i) {
              to[i] = from[i] > 0 ? gradient[i] : gradient[i] * a;
              rest += from[i] > 0 ? 0 : gradient[i] * from[i];
            });
        dslope[c] += sum_of<T>(sum) + rest;
      }
  }
}

// Computes mean and biased variance of a channel by merging those of its planes (Chan, Golub and
// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances").
template <typename T>
INLINE void moments(const Planes& size, const T* x, int64_t c, double* mean, double* variance) {
  double all = 0, squares = 0;
  const double P = double(size.P);
  for (int64_t n = 0; n < size.N; ++n) {
    const T* from = x + (n * size.C + c) * size.P;
    Vector<T> sum{};
    T rest = 0;
    over<T>(size.P, [&](int64_t i) { sum += at(from + i); }, [&](int64_t i) { rest += from[i]; });
    const T here = (sum_of<T>(sum) + rest) / T(size.P);
    Vector<T> deviations{};
    rest = 0;
    over<T>(
        size.P,
        [&](int64_t i) {
          const Vector<T> d = at(from + i) - here;
          deviations += d * d;
        },
        [&](int64_t i) { rest += (from[i] - here) * (from[i] - here); });
    const double away = double(here) - all;
    all += away / double(n + 1);
    squares += double(sum_of<T>(deviations) + rest) + away * away * P * double(n) / double(n + 1);
  }
  *mean = all;
  *variance = squares / (P * double(size.N));
}

// Computes y = PReLU(factor x + shift), or factor x + shift if `slope` is null.
template <typename T>
INLINE void normalise_plane(int64_t P, const T* x, T factor, T shift, const T* slope, T* y) {
  if (slope) {
    const T a = *slope;
    over<T>(
        P, [&](int64_t i) { at(y + i) = rectified<T>(at(x + i) * factor + shift, a); },
        [&](int64_t i) { y[i] = rectified<T>(x[i] * factor + shift, a); });
  } else {
    over<T>(
        P, [&](int64_t i) { at(y + i) = at(x + i) * factor + shift; },
        [&](int64_t i) { y[i] = x[i] * factor + shift; });
  }
}

// Computes the gradients of one channel of N images. `x_apart`, `dy_apart` and `dx_apart` are the
// distances, in values, from one image's plane to the next.
template <typename T>
INLINE void norm_backward_channel(int64_t N, int64_t P, T gamma, T beta, const T* slope, T mean,
                                  T inverse, const T* x, int64_t x_apart, const T* dy,
                                  int64_t dy_apart, T* dx, int64_t dx_apart, T* dgamma, T* dbeta,
                                  T* dslope) {
  const T factor = gamma * inverse, shift = beta - mean * factor;
  const T a = slope ? *slope : T(1);
  double along = 0, through = 0, slopes = 0;  // sums of dz (x - mean), dz, dy min(z, 0)
  for (int64_t n = 0; n < N; ++n) {
    const T *from = x + n * x_apart, *gradient = dy + n * dy_apart;
    Vector<T> sum{}, product{}, negative{};
    T s = 0, p = 0, m = 0;
    over<T>(
        P,
        [&](int64_t i) {
          const Vector<T> v = at(from + i), g = at(gradient + i), z = v * factor + shift;
          const Vector<T> d = z > 0 ? g : g * a;
          sum += d;
          product += d * (v - mean);
          negative += z > 0 ? Vector<T>{} : g * z;
        },
        [&](int64_t i) {
          const T v = from[i], g = gradient[i], z = v * factor + shift;
          const T d = z > 0 ? g : g * a;
          s += d;
          p += d * (v - mean);
          m += z > 0 ? 0 : g * z;
        });
    through += sum_of<T>(sum) + s;
    along += sum_of<T>(product) + p;
    slopes += sum_of<T>(negative) + m;
  }
  *dbeta = T(through);
  *dgamma = T(along) * inverse;
  if (dslope) *dslope = T(slopes);
  const double count = double(N) * double(P);
  const T less = T(through / count);
  const T turn = T(along / count) * inverse * inverse;
  for (int64_t n = 0; n < N; ++n) {
    const T *from = x + n * x_apart, *gradient = dy + n * dy_apart;
    T* to = dx + n * dx_apart;
    over<T>(
        P,
        [&](int64_t i) {
          const Vector<T> v = at(from + i), g = at(gradient + i), z = v * factor + shift;
          const Vector<T> d = z > 0 ? g : g * a;
          at(to + i) = (d - less - (v - mean) * turn) * factor;
        },
        [&](int64_t i) {
          const T v = from[i], g = gradient[i], z = v * factor + shift;
          const T d = z > 0 ? g : g * a;
          to[i] = (d - less - (v - mean) * turn) * factor;
        });
  }
}

// Computes mean and 1 / standard deviation of one channel, whose first plane is x + c * P, and
// updates its running statistics.
template <typename T>
INLINE void statistics(const Planes& size, const T* x, int64_t c, T epsilon, T momentum, T* mean,
                       T* inverse, T* running_mean, T* running_variance) {
  double centre, variance;
  moments(size, x, c, &centre, &variance);
  *running_mean = momentum * *running_mean + (1 - momentum) * T(centre);
  *running_variance = momentum * *running_variance + (1 - momentum) * T(variance);
  *mean = T(centre);
  *inverse = T(1 / __builtin_sqrt(variance + double(epsilon)));
}

template <typename T>
void batch_norm_forward(const Planes& size, int threads, const BatchNorm<T>& in, T momentum, T* y,
                        T* mean, T* inverse, T* running_mean, T* running_variance) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range channels = share(size.C, k, threads);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      statistics<T>(size, in.x, c, in.epsilon, momentum, mean + c, inverse + c, running_mean + c,
                    running_variance + c);
      const T factor = in.gamma[c] * inverse[c], shift = in.beta[c] - mean[c] * factor;
      for (int64_t n = 0; n < size.N; ++n) {
        const int64_t plane = (n * size.C + c) * size.P;
        normalise_plane<T>(size.P, in.x + plane, factor, shift, in.slope ? in.slope + c : nullptr,
                           y + plane);
      }
    }
  }
}

// dslope is null if in.slope is.
template <typename T>
void batch_norm_backward(const Planes& size, int threads, const BatchNorm<T>& in, const T* mean,
                         const T* inverse, const T* dy, T* dx, T* dgamma, T* dbeta, T* dslope) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < threads; ++k) {
    const Range channels = share(size.C, k, threads);
    const int64_t apart = size.C * size.P;
    for (int64_t c = channels.begin; c < channels.end; ++c)
      norm_backward_channel<T>(size.N, size.P, in.gamma[c], in.beta[c],
                               in.slope ? in.slope + c : nullptr, mean[c], inverse[c],
                               in.x + c * size.P, apart, dy + c * size.P, apart, dx + c * size.P,
                               apart, dgamma + c, dbeta + c, dslope ? dslope + c : nullptr);
  }
}
