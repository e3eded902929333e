// The walk of the selective scan, for one instruction set; see ScanProblem in operators.cpp.
//
// A job takes a strip of blocks of 16 channels through one direction, or through all of them. Steps
// come in chunks: their rows are gathered from the tokens' own places into a workspace that fits
// the first-level cache, the state is taken through the chunk four components at a time, in
// registers, and the outputs go back to the tokens' places.

constexpr int kSteps = 32;  // of a chunk
constexpr float kSmallestA = 1e-30f;  // replaces A = 0: 1/A stays finite, the zoh gain is d
constexpr float kLimit = 1e19f;  // of |A| and d in the exponent: their product stays finite

// Of a block of 16 channels, (parts, N) vectors each: A log2(e), 1 / A, the state; and (R, 16)
// weights of the step sizes' projection.
struct State {
  float *A, *inverse_A, *h, *weights;
};

struct Workspace {
  float *d, *x, *y;  // (steps, 16)
  float *B, *C;      // (steps, row), a row being N rounded up to vectors
  float* states;
  int64_t row, states_each, N;
  bool anew[kSteps];  // whether the state is zero before the step
  int64_t token[kSteps];

  // Room for all of it; null if there is no memory.
  SSMDIFF_MEMBER void* allocate(const ScanProblem& p) {
    N = p.states;
    row = (N + kBlock - 1) / kBlock * kBlock;
    states_each = (3 * N + p.rank) * kBlock;
    const int64_t floats = 3 * kSteps * kBlock + 2 * kSteps * row + p.strip * states_each;
    void* const memory = std::aligned_alloc(64, floats * sizeof(float));
    d = static_cast<float*>(memory);
    x = d + kSteps * kBlock, y = x + kSteps * kBlock;
    B = y + kSteps * kBlock, C = B + kSteps * row, states = C + kSteps * row;
    return memory;
  }
  SSMDIFF_MEMBER State of(int block) const {
    float* const A = states + block * states_each;
    return {A, A + N * kBlock, A + 2 * N * kBlock, A + 3 * N * kBlock};
  }
};

// `count` components of the state, from n on, through a chunk of one part of the channels.
template <bool kZoh, int kCount>
SSMDIFF_INLINE void walk_components(Workspace& ws, const State& state, int steps, int part,
                                    int64_t n, int64_t states, const Exp2& exp2) {
  float* const at = state.h + (part * states + n) * kLanes;
  Lanes A[kCount], inverse_A[kCount], h[kCount];
  for (int i = 0; i < kCount; ++i) {
    A[i] = load<Lanes>(state.A + (part * states + n + i) * kLanes);
    if (kZoh) inverse_A[i] = load<Lanes>(state.inverse_A + (part * states + n + i) * kLanes);
    h[i] = load<Lanes>(at + i * kLanes);
  }
  for (int t = 0; t < steps; ++t) {
    if (ws.anew[t]) {
      for (int i = 0; i < kCount; ++i) h[i] = Lanes{};
    }
    const int place = t * kBlock + part * kLanes;
    const Lanes d = load<Lanes>(ws.d + place), x = load<Lanes>(ws.x + place);
    const float *const B = ws.B + t * ws.row + n, *const C = ws.C + t * ws.row + n;
    Lanes y = load<Lanes>(ws.y + place);
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kZoh) {
        const Power a = exp2_and_less_one(d * A[i]);
        h[i] = a.value * h[i] + a.less_one * inverse_A[i] * x * B[i];
      } else {
        h[i] = exp2(d * A[i]) * h[i] + x * B[i];
      }
      y += h[i] * C[i];
    }
    store(ws.y + place, y);
  }
  for (int i = 0; i < kCount; ++i) store(at + i * kLanes, h[i]);
}

// A of a direction and 16 channels into the workspace, and the limits of the rates in each lane.
SSMDIFF_INLINE void start_direction(const ScanProblem& p, const State& state, int64_t k,
                                    int64_t channel, int width, Lanes* highest, Lanes* lowest) {
  for (int part = 0; part < kParts; ++part) {
    highest[part] = lowest[part] = Lanes{};
    for (int64_t n = 0; n < p.states; ++n) {
      Lanes value = splat(-1);
      for (int j = 0; j < std::min(width - part * kLanes, kLanes); ++j) {
        value[j] = p.A[(k * p.channels + channel + part * kLanes + j) * p.states + n];
      }
      value = ((value < kSmallestA) & (value > -kSmallestA)) ? splat(-kSmallestA) : value;
      const int64_t at = (part * p.states + n) * kLanes;
      store(state.inverse_A + at, 1.0f / value);
      Lanes scaled = value * kLog2E;
      highest[part] = scaled > highest[part] ? scaled : highest[part];
      lowest[part] = scaled < lowest[part] ? scaled : lowest[part];
      scaled = scaled < -kLimit ? splat(-kLimit) : scaled;
      store(state.A + at, scaled);
    }
  }
  for (int64_t r = 0; p.weights && r < p.rank; ++r) {
    for (int part = 0; part < kParts; ++part) {
      store(state.weights + r * kBlock + part * kLanes,
            load_part<Float32>(p.weights + (k * p.rank + r) * p.channels + channel, width, part));
    }
  }
  std::memset(state.h, 0, p.states * kBlock * sizeof(float));
}

// The step sizes of a chunk before bias and softplus, from the rows of their projection.
template <int kCount>
SSMDIFF_INLINE void project(const State& state, const float* const* rows, int64_t rank, int part,
                            Lanes* d) {
  for (int i = 0; i < kCount; ++i) d[i] = Lanes{};
  for (int64_t r = 0; r < rank; ++r) {
    const Lanes weight = load<Lanes>(state.weights + r * kBlock + part * kLanes);
    for (int i = 0; i < kCount; ++i) d[i] += rows[i][r] * weight;
  }
}

// The limits of A log2(e) in each lane of a block.
struct Limits {
  Lanes highest[kParts], lowest[kParts];
};

// A job: a strip of blocks of a batch element, through one direction or all of them.
template <class Type, bool kZoh>
struct Walk {
  using Raw = typename Type::Raw;
  const ScanProblem& p;
  Workspace& ws;
  int64_t b, first;  // the first block
  int blocks;
  Exp2 exp2{};
  Limits limits[kMostBlocks]{};
  // Of the direction at work; u, delta and y at token 0 and channel 0, the others at token 0.
  int64_t k = 0;
  const int32_t* order = nullptr;
  const Raw *u = nullptr, *B = nullptr, *C = nullptr;
  const float *low = nullptr, *delta = nullptr;
  Raw* y = nullptr;

  SSMDIFF_MEMBER int64_t channel(int block) const { return (first + block) * kBlock; }
  SSMDIFF_MEMBER int width(int block) const {
    return static_cast<int>(std::min<int64_t>(kBlock, p.channels - channel(block)));
  }
  SSMDIFF_MEMBER int64_t token_at(int64_t t) const {
    const int64_t entry = order[std::min(t, p.length - 1)];
    return entry < 0 ? -1 - entry : entry;
  }

  SSMDIFF_MEMBER void start(int64_t direction) {
    k = direction;
    order = p.order + k * p.length;
    u = static_cast<const Raw*>(p.u) + b * p.length * p.channels;
    const int64_t projections = b * p.step_batch + k * p.step_direction;
    B = static_cast<const Raw*>(p.B) + projections;
    C = static_cast<const Raw*>(p.C) + projections;
    const int64_t row = (b * p.directions + k) * p.length;
    low = p.merged() ? p.low + projections : nullptr;
    delta = p.merged() ? nullptr : p.delta + row * p.channels;
    y = static_cast<Raw*>(p.y) + (p.merged() ? b * p.length : row) * p.channels;
    for (int block = 0; block < blocks; ++block) {
      start_direction(p, ws.of(block), k, channel(block), width(block), limits[block].highest,
                      limits[block].lowest);
    }
  }

  // The tokens of a chunk, their rows of B and C, and requests for the rows of the next.
  SSMDIFF_MEMBER void gather(int64_t start, int steps) {
    for (int t = 0; t < steps; ++t) {
      ws.token[t] = token_at(start + t);
      ws.anew[t] = order[start + t] < 0;
      const int64_t ahead = token_at(start + t + kSteps);
      request(B + ahead * p.step_token, p.states);
      request(C + ahead * p.step_token, p.states);
      if (low) request(low + ahead * p.step_token, p.rank);
      for (int block = 0; block < blocks; ++block) {
        const int64_t at = ahead * p.channels + channel(block);
        __builtin_prefetch(u + at);
        __builtin_prefetch(y + at, 1);
        if (delta) __builtin_prefetch(delta + at);
      }
    }
    for (int t = 0; t < steps; ++t) {
      const Raw* const B_t = B + ws.token[t] * p.step_token;
      const Raw* const C_t = C + ws.token[t] * p.step_token;
      for (int64_t n = 0; n < p.states; n += kLanes) {
        const int count = static_cast<int>(std::min<int64_t>(p.states - n, kLanes));
        const int as_row = count == kLanes ? kBlock : count;
        store(ws.B + t * ws.row + n, load_part<Type>(B_t + n, as_row, 0));
        store(ws.C + t * ws.row + n, load_part<Type>(C_t + n, as_row, 0));
      }
    }
  }

  template <class Element>
  SSMDIFF_MEMBER void request(const Element* row, int64_t count) const {
    const char* const bytes = reinterpret_cast<const char*>(row);
    __builtin_prefetch(bytes);
    __builtin_prefetch(bytes + count * sizeof(Element) - 1);
  }

  // d, x = d u (u for zoh) and what y starts from, of a chunk of a part of a block.
  SSMDIFF_MEMBER void fill(int steps, int block, int part) {
    const int64_t c = channel(block);
    const int wide = width(block);
    const Lanes bias =
        p.bias ? load_part<Float32>(p.bias + k * p.channels + c, wide, part) : Lanes{};
    const bool skips = p.merged() && k == 0;
    const Lanes skip = skips ? load_part<Float32>(p.skip + c, wide, part) : Lanes{};
    const Limits& limit = limits[block];
    for (int t = 0; t < steps; t += 4) {
      const float* lows[4];
      Lanes sizes[4];
      for (int i = 0; i < 4; ++i) {
        const int64_t token = ws.token[std::min(t + i, steps - 1)];
        if (low) {
          lows[i] = low + token * p.step_token;
        } else {
          sizes[i] = load_part<Float32>(delta + token * p.channels + c, wide, part);
        }
      }
      if (low) project<4>(ws.of(block), lows, p.rank, part, sizes);
      for (int i = 0; i < std::min(steps - t, 4); ++i) {
        const int place = (t + i) * kBlock + part * kLanes;
        const Lanes u_t = load_part<Type>(u + ws.token[t + i] * p.channels + c, wide, part);
        const Lanes d = p.bias ? softplus(sizes[i] + bias) : sizes[i];
        store(ws.x + place, kZoh ? u_t : d * u_t);
        // A decay that overflows, which takes A > 0 or d < 0, is NaN: never a number.
        const Lanes most = (d < 0.0f) ? d * limit.lowest[part] : d * limit.highest[part];
        const Lanes step = most < kHighest ? d : splat(std::numeric_limits<float>::quiet_NaN());
        store(ws.d + place, step > kLimit ? splat(kLimit) : step);
        store(ws.y + place, skips ? skip * u_t : Lanes{});  // u may be infinite
      }
    }
  }

  SSMDIFF_MEMBER void walk_chunk(int steps, int block, int part) {
    State state = ws.of(block);
    int64_t n = 0;
    for (; n + 4 <= p.states; n += 4) {
      walk_components<kZoh, 4>(ws, state, steps, part, n, p.states, exp2);
    }
    for (; n < p.states; ++n) walk_components<kZoh, 1>(ws, state, steps, part, n, p.states, exp2);
  }

  // The outputs of a chunk to the tokens' places, added to those of the directions before.
  SSMDIFF_MEMBER void scatter(int steps, int block, int part) {
    const int wide = width(block);
    for (int t = 0; t < steps; ++t) {
      Raw* const y_t = y + ws.token[t] * p.channels + channel(block);
      Lanes value = load<Lanes>(ws.y + t * kBlock + part * kLanes);
      if (p.merged() && k > 0) value += load_part<Type>(y_t, wide, part);
      store_part<Type>(y_t, wide, part, value);
    }
  }
};

template <class Type, bool kZoh>
bool walk(const ScanProblem& p, int64_t job) {
  const int64_t strips = p.strips(), strip = job % strips, lead = job / strips;
  const int64_t first = strip * p.strip;
  const int blocks = static_cast<int>(std::min<int64_t>(p.strip, p.blocks() - first));
  Workspace ws{};
  std::unique_ptr<void, decltype(&std::free)> memory(ws.allocate(p), &std::free);
  if (!memory) return false;
  Walk<Type, kZoh> w{p, ws, p.merged() ? lead : lead / p.directions, first, blocks};
  const int64_t first_k = p.merged() ? 0 : lead % p.directions;
  for (int64_t k = first_k; k < (p.merged() ? p.directions : first_k + 1); ++k) {
    w.start(k);
    for (int64_t start = 0; start < p.length; start += kSteps) {
      const int steps = static_cast<int>(std::min<int64_t>(kSteps, p.length - start));
      w.gather(start, steps);
      for (int block = 0; block < blocks; ++block) {
        for (int part = 0; part < kParts; ++part) {
          w.fill(steps, block, part);
          w.walk_chunk(steps, block, part);
          w.scatter(steps, block, part);
        }
      }
    }
  }
  return true;
}
