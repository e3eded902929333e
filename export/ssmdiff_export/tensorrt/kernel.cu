// The selective scan as TensorRT's plugin launches it: one thread walks one channel of one direction.
//
//   h_t = exp(d_t A) h_{t-1} + g_t B_t u_t,   y_t = sum_n C_t h_t,   g = d or (exp(d A) - 1) / A
//
// u (B, L, D); delta (B, K, L, D), after softplus; A (K, D, N); B_, C_ (B, K, L, N); order (K, L);
// y (B, K, L, D) at the token's own place. An order entry -1 - token starts the state anew and then
// visits the token. u, B_, C_ and y are Real; delta, A and the state are float.
//
// Compiled with -DKERNEL=name -DREAL=Float|Half|BFloat16 -DSTATE=N -DZOH=0|1. It includes no header,
// so that NVRTC needs none. A CPU compiler can compile it too, given the few words defined below.

#ifdef __CUDACC__
using Float = float;
struct Half { unsigned short bits; };
struct BFloat16 { unsigned short bits; };

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Half x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
__device__ __forceinline__ float widen(BFloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(float x, Half& to) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
__device__ __forceinline__ void narrow(float x, BFloat16& to) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}

// 2^x to 2 ulp; 0 below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
#endif

// With more states than this a thread's registers do not hold them, and unrolling gains nothing.
constexpr int UNROLLED_STATE = STATE <= 64 ? STATE : 1;
// Several steps in flight hide the latency of the loads, which do not depend on the state.
constexpr int UNROLLED_TIME = STATE <= 16 ? 4 : 1;

// (exp(z) - 1) / A with z = d A. The quotient cancels near z = 0; there, d times the series.
__device__ __forceinline__ float zoh_gain(float d, float A, float z, float decay) {
    float series = 1 + z / 7;
    series = 1 + z * (1.0f / 6) * series;
    series = 1 + z * (1.0f / 5) * series;
    series = 1 + z * (1.0f / 4) * series;
    series = 1 + z * (1.0f / 3) * series;
    series = 1 + z * (1.0f / 2) * series;
    return z > -0.35f ? d * series : (decay - 1) / A;
}

extern "C" __global__ void KERNEL(
    const REAL* __restrict__ u, const float* __restrict__ delta, const float* __restrict__ A,
    const REAL* __restrict__ B_, const REAL* __restrict__ C_, const int* __restrict__ order,
    int L, int D, int K, REAL* __restrict__ y) {
    const int blocks = (D + blockDim.x - 1) / blockDim.x;
    const int d = (blockIdx.x % blocks) * blockDim.x + threadIdx.x;
    if (d >= D) return;
    const long long bk = blockIdx.x / blocks;
    const long long b = bk / K;
    const int k = int(bk % K);

    float rate[STATE], h[STATE];
#pragma unroll UNROLLED_STATE
    for (int n = 0; n < STATE; n++) {
        rate[n] = A[((long long)k * D + d) * STATE + n];
        h[n] = 0;
    }
#pragma unroll UNROLLED_TIME
    for (int t = 0; t < L; t++) {
        const int entry = order[(long long)k * L + t];
        const bool restart = entry < 0;
        int token = restart ? -1 - entry : entry;
        // An order comes from outside. A token off the grid reads nothing and turns all of the
        // direction that follows into NaN.
        const bool off_grid = token >= L;
        token = off_grid ? 0 : token;
        const long long row = bk * L + token;
        const float step = off_grid ? __int_as_float(0x7fc00000) : delta[row * D + d];
        const float x = widen(u[(b * L + token) * D + d]);
        float sum = 0;
#pragma unroll UNROLLED_STATE
        for (int n = 0; n < STATE; n++) {
            const float z = step * rate[n];
            const float decay = exp2_fast(z * 1.44269504f);
            const float gain = ZOH ? zoh_gain(step, rate[n], z, decay) : step;
            h[n] = (restart ? 0 : decay * h[n]) + gain * x * widen(B_[row * STATE + n]);
            sum += widen(C_[row * STATE + n]) * h[n];
        }
        narrow(sum, y[row * D + d]);
    }
}
