// What the kernels need so that the same file is CUDA under nvcc and plain C++ under g++: number types, the launch, the dtype codes.
// A kernel is a struct whose operator()(x, y, z) does one work item; g++ runs the items in a loop, which is how they are tested without
// a GPU.
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

#ifdef __CUDACC__
const unsigned THREADS = 128;

template <class Body> __global__ void __launch_bounds__(THREADS) each(Body body, Extent work) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= work.x) return;
    for (unsigned z = blockIdx.z * blockDim.z + threadIdx.z; z < work.z; z += gridDim.z * blockDim.z)
        for (unsigned y = blockIdx.y; y < work.y; y += gridDim.y) body(x, y, z);
}

// Runs body for every work item on a device and stream. Returns a cudaError_t, 0 for success.
template <class Body> int launch(const Body& body, Extent work, int device, void* stream) {
    const cudaError_t error = cudaSetDevice(device);  // this library has a CUDA runtime of its own
    if (error != cudaSuccess) return int(error);
    if (!work.x || !work.y || !work.z) return 0;
    unsigned wide = 1;
    while (wide < THREADS && wide < work.x) wide *= 2;
    const unsigned deep = THREADS / wide < 64 ? THREADS / wide : 64;  // 64 is the most along z
    const unsigned most = 65535, slices = (work.z - 1) / deep + 1;
    const dim3 block(wide, 1, deep);
    const dim3 grid((work.x - 1) / wide + 1, work.y < most ? work.y : most, slices < most ? slices : most);
    each<<<grid, block, 0, cudaStream_t(stream)>>>(body, work);
    return int(cudaGetLastError());
}
#else
template <class Body> int launch(const Body& body, Extent work, int, void*) {
    for (unsigned z = 0; z < work.z; ++z)
        for (unsigned y = 0; y < work.y; ++y)
            for (unsigned x = 0; x < work.x; ++x) body(x, y, z);
    return 0;
}
#endif

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
