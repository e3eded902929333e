// What kernel.cu takes from CUDA, for a CPU compiler: its words, its types, and a launch that walks
// over blocks and threads one after another.
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline

struct Index { int x; };
static Index blockIdx, blockDim, threadIdx;

using Float = float;
struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

inline float __int_as_float(int bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline uint32_t as_bits(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }

inline float exp2_fast(float x) { return std::exp2(x); }

inline float widen(float x) { return x; }
inline float widen(BFloat16 x) { return __int_as_float(int(uint32_t(x.bits) << 16)); }
inline float widen(Half x) {
    const int exponent = (x.bits >> 10) & 31, fraction = x.bits & 1023;
    const float magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? std::ldexp(float(1024 + fraction), exponent - 25)
                   : std::ldexp(float(fraction), -24);
    return x.bits & 0x8000 ? -magnitude : magnitude;
}

inline void narrow(float x, float& to) { to = x; }
inline void narrow(float x, BFloat16& to) {
    const uint32_t bits = as_bits(x);
    to.bits = std::isnan(x) ? 0x7fff : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void narrow(float x, Half& to) {
    const uint16_t sign = as_bits(x) >> 31 << 15;
    const float m = std::fabs(x);
    if (std::isnan(x)) { to.bits = 0x7fff; return; }
    if (m >= 65520.0f) { to.bits = sign | 0x7c00; return; }
    // A unit of the last place at this size; nearbyint rounds ties to even, as the GPU does.
    const int exponent = m < 0x1p-14f ? -14 : std::ilogb(m);
    const int units = int(std::nearbyint(std::ldexp(m, 10 - exponent)));
    to.bits = sign | uint16_t(((exponent + 14) << 10) + units);
}

#include "kernel.cu"

extern "C" void launch(
    int blocks, int threads, const REAL* u, const float* delta, const float* A, const REAL* B,
    const REAL* C, const int* order, int L, int D, int K, REAL* y) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
            KERNEL(u, delta, A, B, C, order, L, D, K, y);
}
