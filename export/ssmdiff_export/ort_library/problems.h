// What the operators compute, as the arithmetic of every instruction set takes it.

namespace {

constexpr int kBlock = 16;  // channels: a cache line of float32
constexpr int kMostBlocks = 6;  // in a job

enum Element { kElementFloat32, kElementFloat16, kElementBfloat16 };

// The selective scan:
//
//   h_t = exp(d_t A) h_{t-1} + g_t B_t u_t   g_t = d_t, or (exp(d_t A) - 1) / A for zoh
//   y_t = sum_n C_t h_t                      written at the token that direction k visits at time t
//
// u (B, L, D), A (K, D, N), order (K, L), where -1 - token zeroes the state before token. u, B, C
// and y are of one element type, the rest and the state float32. A row of B, and of C, lies at
// b step_batch + k step_direction + token step_token.
//
// Either the step sizes are given, delta (B, K, L, D), and y is (B, K, L, D). Or, merged, they are
// softplus(low W + bias), with rows of R numbers in `low` that lie as those of B, W (K, R, D) and
// bias (K, D), and y is (B, L, D): the sum over the directions, and u skip, with skip (D).
struct ScanProblem {
  int64_t batch, directions, length, channels, states, rank;
  int64_t step_batch, step_direction, step_token;
  const void *u, *B, *C;
  const float *delta, *A;
  const float *low, *weights, *bias, *skip;  // null unless merged
  const int32_t* order;                      // checked: each direction visits every token once
  void* y;

  int64_t strip;  // blocks of 16 channels in a job; the result does not depend on it

  int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
  int64_t strips() const { return (blocks() + strip - 1) / strip; }
  bool merged() const { return weights != nullptr; }
};

// A convolution of each channel by itself, padded with zeros to the same size: x and y
// (B, H, W, C), weights (side, side, C), side odd, bias (C).
struct DepthwiseProblem {
  int64_t height, width, channels, side;
  const float *x, *weights, *bias;
  float* y;
};

// Norms over groups of channels of maps (B, C, pixels), gamma and beta (C), then times factor plus
// shift (B, C) where they are given, then silu.
struct GroupNormProblem {
  int64_t channels, groups, pixels;
  float epsilon;
  const float *x, *gamma, *beta, *factor, *shift;
  float* y;
};

// softplus of so many numbers, a job for each kRun of them.
struct SoftplusProblem {
  static constexpr int64_t kRun = 1 << 13;
  int64_t count;
  const float* x;
  float* y;
};

// Does one job; false if there was no memory for it.
template <class Problem>
using Job = bool (*)(const Problem&, int64_t job);

// The functions of one instruction set.
struct Arithmetic {
  Job<ScanProblem> scan[3][2];  // by element type, and euler or zoh
  Job<DepthwiseProblem> depthwise[2];  // without and with silu
  Job<GroupNormProblem> group_norm;
  Job<SoftplusProblem> softplus;
};

// 2^(i / 32), rounded to float32.
constexpr float kPowers[32] = {
    1.0f, 1.0218972f, 1.04427373f, 1.06714046f,
    1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f,
    1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f,
    1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
    1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f,
};

}  // namespace
