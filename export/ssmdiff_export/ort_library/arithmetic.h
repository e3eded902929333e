// The arithmetic for one instruction set, SSMDIFF_ISA with vectors of SSMDIFF_LANES numbers.
//
// Included once for each set: a vector wider than the registers of the function that uses it is ten
// times slower than one that fits, so every function has to be compiled for its own target.

#if SSMDIFF_LANES > 4
#if defined(__clang__) && SSMDIFF_LANES == 8
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#elif SSMDIFF_LANES == 8
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
#endif
#define SSMDIFF_MEMBER inline __attribute__((always_inline))
#define SSMDIFF_INLINE static SSMDIFF_MEMBER

namespace {
namespace SSMDIFF_ISA {

#include "lanes.h"
#include "scan.h"
#include "maps.h"

const Arithmetic arithmetic = {
    {{walk<Float32, false>, walk<Float32, true>},
     {walk<Float16, false>, walk<Float16, true>},
     {walk<Bfloat16, false>, walk<Bfloat16, true>}},
    {depthwise<false>, depthwise<true>},
    group_norm,
    softplus_of_run,
};

}  // namespace SSMDIFF_ISA
}  // namespace

#undef SSMDIFF_INLINE
#undef SSMDIFF_MEMBER
#if SSMDIFF_LANES > 4
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef SSMDIFF_LANES
#undef SSMDIFF_ISA
