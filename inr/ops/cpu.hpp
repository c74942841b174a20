// What the CPU sources share: vectors, bfloat16, threads, buffers. Plain C++ with the vector types of GCC and Clang.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VW = 16, MR = 8, NV = 3;  // floats of a vector, channels and vectors held in registers
#elif defined(__AVX2__)
constexpr int VW = 8, MR = 4, NV = 3;
#elif defined(__aarch64__)
constexpr int VW = 4, MR = 8, NV = 3;
#else
constexpr int VW = 4, MR = 4, NV = 2;
#endif
constexpr int P = NV * VW;

typedef float vec __attribute__((vector_size(VW * 4)));
typedef int32_t ivec __attribute__((vector_size(VW * 4)));
typedef uint32_t uvec __attribute__((vector_size(VW * 4)));

inline vec load(const float* p) { vec v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec splat(float f) { return vec{} + f; }
inline int64_t up_to(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline uint32_t bf16_bits(float f) {  // rounded to nearest, ties to even; NaN stays one
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return f != f ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

inline uvec bf16_bits(vec v) {
#if defined(__AVX512BF16__) && defined(__AVX512F__)
    return (uvec)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
    uvec u = (uvec)v, rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return v != v ? uvec{} + 0x7fc0 : rounded;
#endif
}

#if defined(__AVX512F__)  // one instruction each, which GCC does not find by itself
inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
inline vec smaller(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
inline vec smaller(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
inline vec larger(vec a, vec b) { return a > b ? a : b; }  // b where one is NaN
inline vec smaller(vec a, vec b) { return a < b ? a : b; }
#endif

inline vec limited(vec v, float clamp) { return larger(splat(-clamp), smaller(splat(clamp), v)); }

// lrelu of a slope in [0, 1] or above.
inline vec activated(vec v, float slope) { return slope <= 1 ? larger(v * slope, v) : v > vec{} ? v : v * slope; }

// f()(item) for all items, on so many threads; each calls f once for what it works with. With OpenMP these are the threads that PyTorch's
// own operators have just used and that wait for more: others would have to share the processor with their waiting.
template <class F> void in_parallel(int64_t items, int threads, F f) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        auto mine = f();
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;) mine(i);
    };
    threads = (int)std::min<int64_t>(threads, items);
    if (threads < 2) return work();
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    work();
#else
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
#endif
}

struct Buffer {  // aligned to a cache line
    void* data;
    explicit Buffer(size_t bytes) : data(std::aligned_alloc(64, up_to(bytes + 64, 64))) {}
    Buffer(Buffer&& other) : data(other.data) { other.data = nullptr; }
    Buffer(const Buffer&) = delete;
    ~Buffer() { std::free(data); }
    template <class T> T* as() const { return (T*)data; }
};

}  // namespace
