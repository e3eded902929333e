// The selective scan by hand, for AVX-512, and what the processor can do at most: the peers of
// scan_ceiling.py, which compiles this file. No part of the package.
//
// One pass over the tokens with all 16 components of the state in registers, a polynomial exp2 as
// the numba kernel's without a table, and prefetches. float32, N = 16, D a multiple of 16.
#include <immintrin.h>
#include <cstdint>
#include <thread>
#include <vector>
#include <atomic>

static inline __m512 exp2_poly(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-126.f));
    const __m512 magic = _mm512_set1_ps(12582912.f + 127.f);
    __m512 s = _mm512_add_ps(x, magic);
    __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(s, magic));
    __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(s), 23));
    __m512 p = _mm512_set1_ps(0.00133813025f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00966636852f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05550381014f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022349039f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69314718056f));
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, r), p, scale);
}
static inline __m512 softplus(__m512 x) {
    __m512 ax = _mm512_abs_ps(x);
    __m512 w = exp2_poly(_mm512_mul_ps(ax, _mm512_set1_ps(-1.4426950408889634f)));
    __m512 s = _mm512_div_ps(w, _mm512_add_ps(w, _mm512_set1_ps(2.f)));
    __m512 v = _mm512_mul_ps(s, s);
    __m512 p = _mm512_set1_ps(0.28157778363f);
    p = _mm512_fmadd_ps(p, v, _mm512_set1_ps(0.27965157745f));
    p = _mm512_fmadd_ps(p, v, _mm512_set1_ps(0.40024595231f));
    p = _mm512_fmadd_ps(p, v, _mm512_set1_ps(0.66666321641f));
    p = _mm512_fmadd_ps(p, v, _mm512_set1_ps(2.00000000768f));
    return _mm512_fmadd_ps(s, p, _mm512_max_ps(x, _mm512_setzero_ps()));
}

template <int N>
static void job(int b, int c0, int K, int L, int D, const float* u, const float* delta, const float* A, const float* B,
                const float* C, const int32_t* order, const float* skip, const float* bias, float* y) {
    alignas(64) float a2[N * 16];
    const int ahead = 8, far = 24;
    for (int k = 0; k < K; k++) {
        for (int n = 0; n < N; n++)
            for (int j = 0; j < 16; j++) a2[n * 16 + j] = A[((int64_t)k * D + c0 + j) * N + n] * 1.4426950408889634f;
        __m512 h[N];
        for (int n = 0; n < N; n++) h[n] = _mm512_setzero_ps();
        const int32_t* o = order + (int64_t)k * L;
        const int64_t row0 = ((int64_t)b * K + k) * L;
        const __m512 dbias = _mm512_loadu_ps(bias + (int64_t)k * D + c0), sk = _mm512_loadu_ps(skip + c0);
        for (int t = 0; t < L; t++) {
            int64_t tf = o[t + far < L ? t + far : L - 1], ta = o[t + ahead < L ? t + ahead : L - 1];
            _mm_prefetch((const char*)(delta + (row0 + tf) * D + c0), _MM_HINT_T0);
            _mm_prefetch((const char*)(u + ((int64_t)b * L + tf) * D + c0), _MM_HINT_T0);
            _mm_prefetch((const char*)(B + (row0 + ta) * N), _MM_HINT_T0);
            _mm_prefetch((const char*)(C + (row0 + ta) * N), _MM_HINT_T0);
            _mm_prefetch((const char*)(y + ((int64_t)b * L + ta) * D + c0), _MM_HINT_T0);
            int64_t token = o[t];
            const float *Br = B + (row0 + token) * N, *Cr = C + (row0 + token) * N;
            __m512 d = softplus(_mm512_add_ps(_mm512_loadu_ps(delta + (row0 + token) * D + c0), dbias));
            __m512 ut = _mm512_loadu_ps(u + ((int64_t)b * L + token) * D + c0);
            __m512 x = _mm512_mul_ps(d, ut);
            float* yr = y + ((int64_t)b * L + token) * D + c0;
            __m512 yt = k == 0 ? _mm512_mul_ps(sk, ut) : _mm512_loadu_ps(yr);
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) {
                __m512 a = exp2_poly(_mm512_mul_ps(d, _mm512_load_ps(a2 + n * 16)));
                h[n] = _mm512_fmadd_ps(a, h[n], _mm512_mul_ps(x, _mm512_set1_ps(Br[n])));
                yt = _mm512_fmadd_ps(h[n], _mm512_set1_ps(Cr[n]), yt);
            }
            _mm512_storeu_ps(yr, yt);
        }
    }
}

extern "C" void scan_forward(int batch, int K, int L, int D, const float* u, const float* delta, const float* A, const float* B,
                             const float* C, const int32_t* order, const float* skip, const float* bias, float* y, int threads) {
    std::atomic<int> next(0);
    const int jobs = batch * (D / 16);
    auto work = [&] {
        for (int i; (i = next++) < jobs;)
            job<16>(i / (D / 16), i % (D / 16) * 16, K, L, D, u, delta, A, B, C, order, skip, bias, y);
    };
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; i++) pool.emplace_back(work);
    work();
    for (auto& t : pool) t.join();
}

// So many times eight independent exponentials of 16 lanes, on registers.
extern "C" float exponentials(int64_t times) {
    __m512 x[8];
    for (int i = 0; i < 8; i++) x[i] = _mm512_set1_ps(-0.1f * (i + 1));
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) x[i] = _mm512_sub_ps(_mm512_setzero_ps(), exp2_poly(x[i]));
    __m512 s = x[0];
    for (int i = 1; i < 8; i++) s = _mm512_add_ps(s, x[i]);
    return _mm512_reduce_add_ps(s);
}

// So many times sixteen independent multiply-adds of 16 lanes, on registers.
extern "C" float multiply_adds(int64_t times) {
    __m512 x[16];
    for (int i = 0; i < 16; i++) x[i] = _mm512_set1_ps(0.1f * i);
    const __m512 m = _mm512_set1_ps(0.999f);
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) x[i] = _mm512_fmadd_ps(x[i], m, m);
    __m512 s = x[0];
    for (int i = 1; i < 16; i++) s = _mm512_add_ps(s, x[i]);
    return _mm512_reduce_add_ps(s);
}
