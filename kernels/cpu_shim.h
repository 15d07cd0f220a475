// Lets a kernel written in phases compile as plain C++, so that its arithmetic is tested where there is no GPU.
//
//   PARALLEL(i, n) { ... }   every i in 0..n-1, spread over the block's threads; on the CPU a plain loop
//   BARRIER()                all writes of the phase before are visible; on the CPU nothing
//   SHARED                   block-local memory
//   HALF                     16-bit storage
//
// A phase must not read what another i of the same phase writes: that is what makes both forms the same program.
#pragma once
#ifdef __CUDACC__
#include <cuda_fp16.h>
#define PARALLEL(i, n) for (int i = threadIdx.x; i < (n); i += blockDim.x)
#define BARRIER() __syncthreads()
#define SHARED __shared__
#define KERNEL extern "C" __global__ void __launch_bounds__(128)
#define BLOCK_X ((int)blockIdx.x)
#define DEVICE __device__ __forceinline__
typedef __half HALF;
DEVICE float wide(__half x) { return __half2float(x); }
DEVICE void narrow(__half *p, float x) { *p = __float2half_rn(x); }
#else
#include <cmath>
#include <cstdint>
[[maybe_unused]] static int shim_block;
#define PARALLEL(i, n) for (int i = 0; i < (n); i++)
#define BARRIER()
#define SHARED static
#define KERNEL extern "C" void
#define BLOCK_X shim_block
#define DEVICE static inline
typedef _Float16 HALF;
DEVICE float wide(HALF x) { return (float)x; }
DEVICE void narrow(HALF *p, float x) { *p = (HALF)x; }
using std::exp; using std::fmax; using std::sqrt; using std::tanh;
#endif
DEVICE float wide(float x) { return x; }
DEVICE void narrow(float *p, float x) { *p = x; }
