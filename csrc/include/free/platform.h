// SPDX-License-Identifier: Apache-2.0
// What lets one header serve the CPU loops and the CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define FREE_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Forced, because the callers are compiled once per instruction set and a function that stays out
// of line would keep the baseline's.
#define FREE_HOST_DEVICE inline __attribute__((always_inline))
#else
#define FREE_HOST_DEVICE inline
#endif
