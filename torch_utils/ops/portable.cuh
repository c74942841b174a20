// What the kernels need so that the same file is CUDA under nvcc and plain C++ under g++: number types, the launch, the dtype codes.
// A kernel is a struct whose operator()(x, y, z) does one work item; g++ runs blocks and threads in loops, which is how they are tested
// without a GPU.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define HD __host__ __device__ __forceinline__
#define UNROLL _Pragma("unroll")
typedef __half float16;
typedef __nv_bfloat16 bfloat16;
#else
#include <string.h>
#define HD inline
#define UNROLL
typedef _Float16 float16;
struct bfloat16 {  // the upper half of a float32, rounded to nearest even
    uint16_t bits;
    bfloat16() = default;
    explicit bfloat16(float value) {
        uint32_t whole;
        memcpy(&whole, &value, 4);
        bits = value != value ? 0x7fc0 : uint16_t((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
    }
    operator float() const {
        uint32_t whole = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &whole, 4);
        return value;
    }
};
#endif

template <class T> struct Accumulate { typedef float type; };  // what sums and products are taken in
template <> struct Accumulate<double> { typedef double type; };

struct Extent {  // work items along each axis; neighbours along x are neighbours in memory
    unsigned x, y, z;
};

struct Grid {  // blocks along each axis, each of wide x 1 x deep threads
    unsigned x, y, z, wide, deep;
};

const unsigned THREADS = 128, DEEPEST = 64;
#ifdef __CUDACC__
const unsigned MOST = 65535;  // blocks along y and z; a thread goes on where there are more items
#else
const unsigned MOST = 2;  // so that the tests see threads go on
#endif

inline Grid arrange(Extent work) {
    unsigned wide = 1;
    while (wide < THREADS && wide < work.x) wide *= 2;
    const unsigned deep = THREADS / wide < DEEPEST ? THREADS / wide : DEEPEST, slices = (work.z - 1) / deep + 1;
    return Grid{(work.x - 1) / wide + 1, work.y < MOST ? work.y : MOST, slices < MOST ? slices : MOST, wide, deep};
}

// What one thread does.
template <class Body> HD void walk(const Body& body, Extent work, Grid grid, Extent block, unsigned thread_x, unsigned thread_z) {
    const unsigned x = block.x * grid.wide + thread_x;
    if (x >= work.x) return;
    for (unsigned z = block.z * grid.deep + thread_z; z < work.z; z += grid.z * grid.deep)
        for (unsigned y = block.y; y < work.y; y += grid.y) body(x, y, z);
}

#ifdef __CUDACC__
template <class Body> __global__ void __launch_bounds__(THREADS) each(Body body, Extent work, Grid grid) {
    walk(body, work, grid, Extent{blockIdx.x, blockIdx.y, blockIdx.z}, threadIdx.x, threadIdx.z);
}
#endif

// Runs body for every work item on a device and stream. Returns a cudaError_t, 0 for success.
template <class Body> int launch(const Body& body, Extent work, int device, void* stream) {
#ifdef __CUDACC__
    const cudaError_t error = cudaSetDevice(device);  // this library has a CUDA runtime of its own
    if (error != cudaSuccess) return int(error);
#endif
    if (!work.x || !work.y || !work.z) return 0;
    const Grid grid = arrange(work);
#ifdef __CUDACC__
    each<<<dim3(grid.x, grid.y, grid.z), dim3(grid.wide, 1, grid.deep), 0, cudaStream_t(stream)>>>(body, work, grid);
    return int(cudaGetLastError());
#else
    (void)device, (void)stream;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x)
                for (unsigned thread = 0; thread < grid.wide * grid.deep; ++thread)
                    walk(body, work, grid, Extent{x, y, z}, thread % grid.wide, thread / grid.wide);
    return 0;
#endif
}

const int INVALID = 1;  // cudaErrorInvalidValue

// Calls run.with<T>() for the type a dtype code stands for (native.DTYPES has the same order).
template <class Run> int dispatch(int dtype, const Run& run) {
    switch (dtype) {
        case 0: return run.template with<float>();
        case 1: return run.template with<float16>();
        case 2: return run.template with<bfloat16>();
        case 3: return run.template with<double>();
    }
    return INVALID;
}
