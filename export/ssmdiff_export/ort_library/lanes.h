// Vectors of float32 lanes and what is computed on them, for one instruction set. No include guard:
// arithmetic.h is included once for each set, see operators.cpp.

constexpr int kLanes = SSMDIFF_LANES;
constexpr int kParts = kBlock / kLanes;  // vectors in a row of 16 channels
typedef float Lanes __attribute__((vector_size(4 * SSMDIFF_LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * SSMDIFF_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * SSMDIFF_LANES)));

SSMDIFF_INLINE Lanes splat(float x) { return x - Lanes{}; }

struct Float32 {
  using Raw = float;
  using RawLanes = Lanes;
  SSMDIFF_INLINE Lanes widen(RawLanes x) { return x; }
  SSMDIFF_INLINE RawLanes narrow(Lanes x) { return x; }
};

// Round to nearest, ties to even, in both. NaN stays NaN.
struct Bfloat16 {
  using Raw = uint16_t;
  using RawLanes = Halves;
  SSMDIFF_INLINE Lanes widen(RawLanes x) { return (Lanes)(__builtin_convertvector(x, Bits) << 16); }
  SSMDIFF_INLINE RawLanes narrow(Lanes x) {
    const Bits bits = (Bits)x;
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Bits nan = (Bits)(x != x);
    return __builtin_convertvector((rounded & ~nan) | (0x7fc0 & nan), Halves);
  }
};

struct Float16 {
  using Raw = uint16_t;
  using RawLanes = Halves;
  SSMDIFF_INLINE Lanes widen(RawLanes x) {
    const Bits half = __builtin_convertvector(x, Bits);
    const Bits magnitude = (half & 0x7fff) << 13;
    const Bits finite = (Bits)((Lanes)magnitude * 0x1p112f);  // also of subnormal numbers
    const Bits special = (Bits)(magnitude >= (0x7c00u << 13));
    return (Lanes)(finite | ((magnitude | 0x7f800000) & special) | ((half & 0x8000) << 16));
  }
  SSMDIFF_INLINE RawLanes narrow(Lanes x) {
    const Bits sign = (Bits)x & 0x80000000;
    const Bits bits = (Bits)x ^ sign;
    const Bits normal = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
    const Bits subnormal = (Bits)((Lanes)bits + 0.5f) - 0x3f000000;  // 0.5 has steps of 2^-24
    const Bits small = (Bits)(bits < (113u << 23)), large = (Bits)(bits >= (143u << 23));
    const Bits nan = (Bits)(x != x);
    Bits result = (subnormal & small) | (normal & ~small & ~large) | (0x7c00 & large);
    result |= 0x0200 & nan;
    return __builtin_convertvector(result | (sign >> 16), Halves);
  }
};

template <class Vector, class Raw>
SSMDIFF_INLINE Vector load(const Raw* source) {
  Vector value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

SSMDIFF_INLINE void store(float* target, Lanes value) {
  std::memcpy(target, &value, sizeof value);
}

// Part `part` of a row of `width` <= 16 elements, zeros behind it; touches no other memory.
template <class Type>
SSMDIFF_INLINE Lanes load_part(const typename Type::Raw* row, int width, int part) {
  using Raw = typename Type::Raw;
  if (width == kBlock) return Type::widen(load<typename Type::RawLanes>(row + part * kLanes));
  Raw padded[kLanes] = {};
  const int count = std::min(width - part * kLanes, kLanes);
  if (count > 0) std::memcpy(padded, row + part * kLanes, count * sizeof(Raw));
  return Type::widen(load<typename Type::RawLanes>(padded));
}

template <class Type>
SSMDIFF_INLINE void store_part(typename Type::Raw* row, int width, int part, Lanes value) {
  const typename Type::RawLanes raw = Type::narrow(value);
  const int count = std::min(width - part * kLanes, kLanes);
  if (count == kLanes) {
    std::memcpy(row + part * kLanes, &raw, sizeof raw);
  } else if (count > 0) {
    std::memcpy(row + part * kLanes, &raw, count * sizeof(typename Type::Raw));
  }
}

constexpr float kLog2E = 1.4426950408889634f;
// Added to x in [-126, 127.5): the lowest bits of the sum are round(x) + 127, a float's exponent.
constexpr float kRound = 1.5f * (1 << 23) + 127;
constexpr float kLowest = -126;  // 2^-126 is the smallest normal number; no power gets smaller
constexpr float kHighest = 127.5f;
// Minimax polynomial of (2^r - 1) / r on [-1/2, 1/2]; its error is 3.2e-7 before rounding.
constexpr float kE[] = {0.69314718056f, 0.24022349039f, 0.05550381014f, 0.00966636852f,
                        0.00133813025f};

struct Power {
  Lanes value, less_one;  // 2^x, and 2^x - 1 without cancellation
};

// x = i + r with i an integer and r in [-1/2, 1/2]: 2^x = 2^i + 2^i (2^r - 1). Needs x < 127.5.
SSMDIFF_INLINE Power exp2_and_less_one(Lanes x) {
  x = x < kLowest ? splat(kLowest) : x;
  const Lanes shifted = x + kRound;
  const Lanes scale = (Lanes)((Bits)shifted << 23);
  const Lanes r = x - (shifted - kRound);
  const Lanes small = r * (kE[0] + r * (kE[1] + r * (kE[2] + r * (kE[3] + r * kE[4]))));
  return {scale * small + scale, scale * small + (scale - 1.0f)};
}

#if SSMDIFF_LANES == 16
// 2^x by a table of 32 powers: half of the multiplications. x = i / 32 + r with an integer i and r
// in [-1/64, 1/64], where (2^r - 1) / r is a line: its error is 5.3e-8.
struct Exp2 {
  Lanes low, high;  // 2^(i / 32) for i < 16, and from there on
  SSMDIFF_MEMBER Exp2() {
    for (int i = 0; i < 16; ++i) low[i] = kPowers[i], high[i] = kPowers[16 + i];
  }
  SSMDIFF_MEMBER Lanes operator()(Lanes x) const {
    constexpr float kRound32 = 1.5f * (1 << 18);
    const Lanes shifted = x + kRound32;
    const Lanes nearest = shifted - kRound32;
    const Lanes r = x - nearest;
    const Lanes power = (Lanes)_mm512_permutex2var_ps((__m512)low, (__m512i)shifted, (__m512)high);
    const Lanes value = power * r * (0.69315734f + r * 0.24022866f) + power;
    return (Lanes)_mm512_scalef_ps((__m512)value, (__m512)nearest);
  }
};
#else
struct Exp2 {
  SSMDIFF_MEMBER Lanes operator()(Lanes x) const { return exp2_and_less_one(x).value; }
};
#endif

// log(1 + exp(x)), relatively accurate on either side of 0: with w = exp(-|x|) and s = w / (2 + w)
// it is max(x, 0) + 2 atanh(s).
SSMDIFF_INLINE Lanes softplus(Lanes x) {
  const Lanes magnitude = x < 0.0f ? -x : x;
  const Lanes w = exp2_and_less_one(magnitude * -kLog2E).value;
  const Lanes s = w / (w + 2.0f), v = s * s;
  const Lanes log1p =
      s * (2.00000000768f +
           v * (0.66666321641f + v * (0.40024595231f + v * (0.27965157745f + v * 0.28157778363f))));
  return (x < 0.0f ? Lanes{} : x) + log1p;
}

// x / (1 + exp(-x)). Beyond 88, exp(-x) is inf and x / inf the limit, -0.
SSMDIFF_INLINE Lanes silu(Lanes x) {
  Lanes z = x * -kLog2E;
  z = z > 126.0f ? splat(126.0f) : z;
  return x / (exp2_and_less_one(z).value + 1.0f);
}
