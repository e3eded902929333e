// Depthwise convolutions, norms and softplus, for one instruction set; the problems are in operators.cpp.

// One row of a map (B, H, W, C): a job is b H + h. Weights are (side, side, C).
template <bool kSilu>
bool depthwise(const DepthwiseProblem& p, int64_t job) {
  const int64_t b = job / p.height, h = job % p.height, reach = p.side / 2;
  const int64_t first = std::max<int64_t>(0, h - reach), end = std::min(p.height, h + reach + 1);
  const float* const image = p.x + b * p.height * p.width * p.channels;
  float* const target = p.y + job * p.width * p.channels;
  for (int64_t c = 0; c < p.channels; c += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(p.channels - c, kLanes));
    const int as_row = count == kLanes ? kBlock : count;
    const Lanes bias = load_part<Float32>(p.bias + c, as_row, 0);
    for (int64_t w = 0; w < p.width; ++w) {
      const int64_t left = std::max<int64_t>(0, w - reach);
      const int64_t right = std::min(p.width, w + reach + 1);
      Lanes sum = bias;
      for (int64_t i = first; i < end; ++i) {
        const float* const source = image + i * p.width * p.channels + c;
        const float* const weights =
            p.weights + ((i - h + reach) * p.side + reach - w) * p.channels + c;
        for (int64_t j = left; j < right; ++j) {
          sum += load_part<Float32>(source + j * p.channels, as_row, 0) *
                 load_part<Float32>(weights + j * p.channels, as_row, 0);
        }
      }
      if (kSilu) sum = silu(sum);
      store_part<Float32>(target + w * p.channels + c, count, 0, sum);
    }
  }
  return true;
}

SSMDIFF_INLINE double sum_of(Lanes x) {
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

// y = silu((x - mean) / sqrt(variance + epsilon) gamma + beta), mean and variance of a group of
// channels of one image in (B, C, H, W). A job is b G + group.
bool group_norm(const GroupNormProblem& p, int64_t job) {
  const int64_t b = job / p.groups, group = job % p.groups;
  const int64_t members = p.channels / p.groups, count = members * p.pixels;
  const int64_t first = b * p.channels + group * members;  // plane
  const float* const x = p.x + first * p.pixels;
  float* const y = p.y + first * p.pixels;
  const float pivot = x[0];  // near the mean, so that little cancels
  double total = 0, squares = 0;
  constexpr int64_t kRun = 1024;  // summed in float32, the runs in double
  for (int64_t start = 0; start < count; start += kRun) {
    const int64_t end = std::min(start + kRun, count);
    Lanes sums[2] = {}, powers[2] = {};
    int64_t i = start;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      for (int j = 0; j < 2; ++j) {
        const Lanes v = load<Lanes>(x + i + j * kLanes) - pivot;
        sums[j] += v;
        powers[j] += v * v;
      }
    }
    total += sum_of(sums[0] + sums[1]);
    squares += sum_of(powers[0] + powers[1]);
    for (; i < end; ++i) {
      const double v = x[i] - pivot;
      total += v, squares += v * v;
    }
  }
  const double shift = total / count;  // of the mean from the pivot
  double variance = squares / count - shift * shift;
  if (variance < 0.01 * shift * shift) {  // cancelled: once more, around the mean
    variance = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double v = (x[i] - pivot) - shift;
      variance += v * v / count;
    }
  }
  const double scale = 1 / std::sqrt(variance + p.epsilon);
  const float shift_float = static_cast<float>(shift);
  for (int64_t m = 0; m < members; ++m) {
    const int64_t channel = group * members + m;
    double gamma = p.gamma[channel], beta = p.beta[channel];
    if (p.factor) {
      gamma *= p.factor[first + m];
      beta = beta * p.factor[first + m] + p.shift[first + m];
    }
    const float slope = static_cast<float>(gamma * scale), offset = static_cast<float>(beta);
    const float* const source = x + m * p.pixels;
    float* const target = y + m * p.pixels;
    for (int64_t i = 0; i < p.pixels; i += kLanes) {
      const int some = static_cast<int>(std::min<int64_t>(p.pixels - i, kLanes));
      const Lanes v = load_part<Float32>(source + i, some == kLanes ? kBlock : some, 0);
      store_part<Float32>(target + i, some, 0, silu(((v - pivot) - shift_float) * slope + offset));
    }
  }
  return true;
}

bool softplus_of_run(const SoftplusProblem& p, int64_t job) {
  const int64_t end = std::min(p.count, (job + 1) * p.kRun);
  for (int64_t i = job * p.kRun; i < end; i += kLanes) {
    const int some = static_cast<int>(std::min<int64_t>(end - i, kLanes));
    const Lanes x = load_part<Float32>(p.x + i, some == kLanes ? kBlock : some, 0);
    store_part<Float32>(p.y + i, some, 0, softplus(x));
  }
  return true;
}
