// The selective scan as custom ops of ONNX Runtime on a CPU: SelectiveScan and SelectiveScanZoh.
//
//   h_t = exp(d_t A) h_{t-1} + g_t B_t u_t   g_t = d_t, or (exp(d_t A) - 1) / A in SelectiveScanZoh
//   y_t = sum_n C_t h_t                      written at the token that direction k visits at time t
//
// Inputs u (B, L, D), delta (B, K, L, D), A (K, D, N), B and C (B, K, L, N), order (K, L) int32;
// output y (B, K, L, D). u, B, C and y are float32, float16 or bfloat16, all alike; the rest and
// the state are float32. A negative entry of the order, -1 - token, zeroes the state before token.
//
// A job is a batch element, a direction and a block of 16 channels; ONNX Runtime's pool runs them.
// Nothing here throws: it is compiled without exceptions, and every failure is an OrtStatus.
//
// This file includes itself, once for each instruction set: a vector wider than the registers of
// the function that uses it is ten times slower than one that fits, so every function of the
// arithmetic has to be compiled for its own target.

#ifndef SSMDIFF_LANES

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

namespace {

constexpr int kBlock = 16;  // channels in a job: a cache line of float32
constexpr int64_t kAhead = 4;  // steps between the prefetch of a row and its use

enum class Element { kFloat32, kFloat16, kBfloat16 };

struct Problem {
  int64_t batch, directions, length, channels, states;
  const void *u, *B, *C;
  const float *delta, *A;
  const int32_t* order;  // checked: each direction visits every token once
  void* y;

  int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
};

// Walks the sequence of one job; false if there was no memory for its state.
using Walk = bool (*)(const Problem&, int64_t job);

}  // namespace

#define SSMDIFF_LANES 4
#define SSMDIFF_ISA baseline
#include "selective_scan.cpp"

#if defined(__x86_64__)
#define SSMDIFF_LANES 8
#define SSMDIFF_ISA avx2
#include "selective_scan.cpp"

#define SSMDIFF_LANES 16
#define SSMDIFF_ISA avx512
#include "selective_scan.cpp"
#endif

// The part of ONNX Runtime's C interface that is used here. Its tables only grow: a place in them
// is for ever. From include/onnxruntime/core/session/onnxruntime_c_api.h of microsoft/onnxruntime,
// MIT, at ORT_API_VERSION 29, whose comments tell the version that brought each entry.
extern "C" {
struct OrtStatus;
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtApi;

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version) noexcept;
  const char* (*GetVersionString)() noexcept;
};

struct OrtCustomOp {  // as of version 17; later versions add to the end
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*,
                               void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  // Left null: ORT's side of it takes an unknown shape for a scalar's.
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, void* context);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
};
}

namespace {

constexpr uint32_t kApiVersion = 17;
enum ErrorCode { kFail = 1, kInvalidArgument = 2 };  // OrtErrorCode
enum TensorType { kAny = 0, kFloat32 = 1, kInt32 = 6, kFloat16 = 10, kBfloat16 = 16 };

// OrtApi is a struct of nothing but function pointers; the number is the place in it.
struct Api {
  using Entry = void (*)();
  const Entry* table;
  explicit Api(const OrtApi* api) : table(reinterpret_cast<const Entry*>(api)) {}

#define SSMDIFF_ENTRY(place, name, result, ...)                       \
  template <class... Arguments>                                       \
  result name(Arguments... arguments) const {                         \
    return reinterpret_cast<result (*)(__VA_ARGS__)>(table[place])(arguments...); \
  }
  // Places up to 101 are of the first version.
  SSMDIFF_ENTRY(0, CreateStatus, OrtStatus*, int code, const char* message)
  SSMDIFF_ENTRY(26, CreateCustomOpDomain, OrtStatus*, const char*, OrtCustomOpDomain**)
  SSMDIFF_ENTRY(27, CustomOpDomain_Add, OrtStatus*, OrtCustomOpDomain*, const OrtCustomOp*)
  SSMDIFF_ENTRY(28, AddCustomOpDomain, OrtStatus*, OrtSessionOptions*, OrtCustomOpDomain*)
  SSMDIFF_ENTRY(51, GetTensorMutableData, OrtStatus*, OrtValue*, void**)
  SSMDIFF_ENTRY(60, GetTensorElementType, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int*)
  SSMDIFF_ENTRY(61, GetDimensionsCount, OrtStatus*, const OrtTensorTypeAndShapeInfo*, size_t*)
  SSMDIFF_ENTRY(62, GetDimensions, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)
  SSMDIFF_ENTRY(65, GetTensorTypeAndShape, OrtStatus*, const OrtValue*, OrtTensorTypeAndShapeInfo**)
  SSMDIFF_ENTRY(90, KernelContext_GetInput, OrtStatus*, const OrtKernelContext*, size_t,
                const OrtValue**)
  SSMDIFF_ENTRY(91, KernelContext_GetOutput, OrtStatus*, OrtKernelContext*, size_t, const int64_t*,
                size_t, OrtValue**)
  SSMDIFF_ENTRY(99, ReleaseTensorTypeAndShapeInfo, void, OrtTensorTypeAndShapeInfo*)
  SSMDIFF_ENTRY(274, KernelContext_ParallelFor, OrtStatus*, const OrtKernelContext*,
                void (*)(void*, size_t), size_t total, size_t batches, void*)  // since 1.17
#undef SSMDIFF_ENTRY
};

struct Op : OrtCustomOp {
  const char* name;
  bool zoh;
  Element element;
};

struct Kernel {
  Api api;
  const Op* op;
  Walk walk;

  __attribute__((format(printf, 2, 3))) OrtStatus* refuse(const char* format, ...) const {
    char message[600];
    const int start = std::snprintf(message, sizeof message, "ssmdiff::%s: ", op->name);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message + start, sizeof message - start, format, arguments);
    va_end(arguments);
    return api.CreateStatus(kInvalidArgument, message);
  }
};

constexpr size_t kInputs = 6;
constexpr const char* kInputNames[kInputs] = {"u", "delta", "A", "B", "C", "order"};
constexpr const char* kInputShapes[kInputs] = {"(B, L, D)",    "(B, K, L, D)", "(K, D, N)",
                                               "(B, K, L, N)", "(B, K, L, N)", "(K, L)"};
constexpr size_t kRanks[kInputs] = {3, 4, 3, 4, 4, 2};
constexpr size_t kMostDimensions = 4;

struct Tensor {
  void* data;
  int type;
  size_t rank;
  int64_t size[kMostDimensions];
};

// "(2, 4, 7)", for messages.
struct Sizes {
  char text[96];
  Sizes(const int64_t* size, size_t rank) {
    int used = std::snprintf(text, sizeof text, "(");
    for (size_t i = 0; i < rank; ++i) {
      used += std::snprintf(text + used, sizeof text - used, i ? ", %lld" : "%lld",
                            static_cast<long long>(size[i]));
    }
    std::snprintf(text + used, sizeof text - used, ")");
  }
};

OrtStatus* read_input(const Kernel& kernel, const OrtKernelContext* context, size_t index,
                      Tensor& tensor) {
  const Api& api = kernel.api;
  const OrtValue* value = nullptr;
  if (OrtStatus* error = api.KernelContext_GetInput(context, index, &value)) return error;
  if (!value) {
    return kernel.refuse("input %s is absent; expected a tensor %s", kInputNames[index],
                         kInputShapes[index]);
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* error = api.GetTensorTypeAndShape(value, &info)) return error;
  OrtStatus* error = api.GetTensorElementType(info, &tensor.type);
  if (!error) error = api.GetDimensionsCount(info, &tensor.rank);
  if (!error && tensor.rank != kRanks[index]) {
    error = kernel.refuse("input %s has %zu dimensions; expected %s", kInputNames[index],
                          tensor.rank, kInputShapes[index]);
  }
  if (!error) error = api.GetDimensions(info, tensor.size, tensor.rank);
  api.ReleaseTensorTypeAndShapeInfo(info);
  return error ? error : api.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data);
}

// All that keeps the walks inside their memory, and writes every row of the output exactly once.
OrtStatus* check_order(const Kernel& kernel, const Problem& problem) {
  const int64_t length = problem.length;
  // A byte for each token: a bit would make each step wait for the last one's store.
  std::unique_ptr<uint8_t[]> visited(new (std::nothrow) uint8_t[length]);
  if (!visited) return kernel.refuse("no memory for %lld bytes", static_cast<long long>(length));
  for (int64_t k = 0; k < problem.directions; ++k) {
    std::memset(visited.get(), 0, length);
    for (int64_t t = 0; t < length; ++t) {
      const int32_t entry = problem.order[k * length + t];
      const int32_t token = entry < 0 ? -1 - entry : entry;
      if (token >= length) {
        return kernel.refuse("order[%lld, %lld] is %d, which is token %d; expected tokens 0 to "
                             "%lld",
                             static_cast<long long>(k), static_cast<long long>(t), entry, token,
                             static_cast<long long>(length - 1));
      }
      if (visited[token]) {
        return kernel.refuse("order is no permutation: direction %lld visits token %d twice, the "
                             "second time at time %lld; expected each token once",
                             static_cast<long long>(k), token, static_cast<long long>(t));
      }
      visited[token] = 1;
    }
  }
  return nullptr;
}

struct Jobs {
  const Problem* problem;
  Walk walk;
  std::atomic<bool> failed;
};

void run_job(void* data, size_t job) {
  Jobs& jobs = *static_cast<Jobs*>(data);
  if (!jobs.walk(*jobs.problem, static_cast<int64_t>(job))) jobs.failed = true;
}

OrtStatus* compute(void* kernel_data, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(kernel_data);
  const Api& api = kernel.api;
  Tensor tensors[kInputs];
  for (size_t i = 0; i < kInputs; ++i) {
    if (OrtStatus* error = read_input(kernel, context, i, tensors[i])) return error;
  }
  const auto& [u, delta, A, B, C, order] = tensors;
  const int64_t batch = delta.size[0], directions = delta.size[1], length = delta.size[2];
  const int64_t channels = delta.size[3], states = A.size[2];
  const int64_t sizes[kInputs][kMostDimensions] = {
      {batch, length, channels},           {batch, directions, length, channels},
      {directions, channels, states},      {batch, directions, length, states},
      {batch, directions, length, states}, {directions, length}};
  for (size_t i = 0; i < kInputs; ++i) {
    if (!std::equal(tensors[i].size, tensors[i].size + kRanks[i], sizes[i])) {
      return kernel.refuse("input %s has shape %s; expected %s %s, from delta %s and A %s",
                           kInputNames[i], Sizes(tensors[i].size, kRanks[i]).text, kInputShapes[i],
                           Sizes(sizes[i], kRanks[i]).text, Sizes(delta.size, 4).text,
                           Sizes(A.size, 3).text);
    }
  }
  if (order.type != kInt32) {
    return kernel.refuse("order has element type %d of ONNX; expected int32, which is %d",
                         order.type, kInt32);
  }
  OrtValue* output = nullptr;
  void* y = nullptr;
  if (OrtStatus* error = api.KernelContext_GetOutput(context, 0, delta.size, 4, &output)) {
    return error;
  }
  if (OrtStatus* error = api.GetTensorMutableData(output, &y)) return error;
  const Problem problem{batch, directions, length, channels, states, u.data, B.data, C.data,
                        static_cast<const float*>(delta.data), static_cast<const float*>(A.data),
                        static_cast<const int32_t*>(order.data), y};
  if (OrtStatus* error = check_order(kernel, problem)) return error;
  if (batch == 0 || directions == 0 || length == 0 || channels == 0) return nullptr;
  Jobs jobs{&problem, kernel.walk, {false}};
  const size_t total = static_cast<size_t>(batch * directions * problem.blocks());
  if (OrtStatus* error = api.KernelContext_ParallelFor(context, run_job, total, 0, &jobs)) {
    return error;
  }
  if (jobs.failed) {
    return kernel.refuse("no memory for a state of %lld numbers a channel",
                         static_cast<long long>(states));
  }
  return nullptr;
}

struct InstructionSet {
  const char* name;
  bool here;
  Walk (*walk_of)(Element, bool zoh);
};

// The widest that this machine has, or the one that the variable SSMDIFF_SCAN_ISA names.
OrtStatus* choose_walk(Kernel& kernel) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2_here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const InstructionSet sets[] = {
      {"avx512", avx2_here && __builtin_cpu_supports("avx512f"), avx512::walk_of},
      {"avx2", avx2_here, avx2::walk_of},
      {"baseline", true, baseline::walk_of}};
#else
  const InstructionSet sets[] = {{"baseline", true, baseline::walk_of}};
#endif
  const char* wanted = std::getenv("SSMDIFF_SCAN_ISA");
  for (const InstructionSet& set : sets) {
    if (!set.here || (wanted && std::strcmp(wanted, set.name) != 0)) continue;
    kernel.walk = set.walk_of(kernel.op->element, kernel.op->zoh);
    return nullptr;
  }
  return kernel.refuse("SSMDIFF_SCAN_ISA is '%.40s', which this machine does not have; expected "
                       "avx512, avx2 or baseline, or the variable unset", wanted);
}

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* table, const OrtKernelInfo*,
                         void** result) {
  Kernel local{Api(table), static_cast<const Op*>(op), nullptr};
  if (OrtStatus* error = choose_walk(local)) return error;
  *result = new (std::nothrow) Kernel(local);
  return *result ? nullptr : local.refuse("no memory for a kernel");
}

int input_type(const OrtCustomOp* op, size_t index) {
  if (index == 5) return kAny;  // checked with a sentence of our own
  if (index == 1 || index == 2) return kFloat32;
  switch (static_cast<const Op*>(op)->element) {
    case Element::kFloat16: return kFloat16;
    case Element::kBfloat16: return kBfloat16;
    default: return kFloat32;
  }
}

Op make_op(const char* name, bool zoh, Element element) {
  Op op{};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp* self) { return static_cast<const Op*>(self)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kInputs; };
  op.GetInputType = input_type;
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return input_type(self, 0); };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };  // required
  op.GetOutputCharacteristic = op.GetInputCharacteristic;
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };  // the provider's own
  op.CreateKernelV2 = create_kernel;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.name = name;
  op.zoh = zoh;
  op.element = element;
  return op;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  static const Op ops[] = {make_op("SelectiveScan", false, Element::kFloat32),
                           make_op("SelectiveScan", false, Element::kFloat16),
                           make_op("SelectiveScan", false, Element::kBfloat16),
                           make_op("SelectiveScanZoh", true, Element::kFloat32),
                           make_op("SelectiveScanZoh", true, Element::kFloat16),
                           make_op("SelectiveScanZoh", true, Element::kBfloat16)};
  const OrtApi* table = base->GetApi(kApiVersion);
  if (!table) {
    char message[200];
    std::snprintf(message, sizeof message,
                  "ssmdiff's library of custom ops needs ONNX Runtime 1.17 or newer; this is %s",
                  base->GetVersionString());
    return Api(base->GetApi(1)).CreateStatus(kFail, message);
  }
  const Api api(table);
  // Never released: the session options, and all sessions made from them, keep the pointer.
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* error = api.CreateCustomOpDomain("ssmdiff", &domain)) return error;
  for (const Op& op : ops) {
    if (OrtStatus* error = api.CustomOpDomain_Add(domain, &op)) return error;
  }
  return api.AddCustomOpDomain(options, domain);
}

#else  // SSMDIFF_LANES: the arithmetic for one instruction set

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
#define SSMDIFF_INLINE static inline __attribute__((always_inline))

namespace {
namespace SSMDIFF_ISA {

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

// A row of B or C as float32: itself, or converted into the buffer.
template <class Type>
SSMDIFF_INLINE const float* floats(const typename Type::Raw* row, int64_t count, float* buffer) {
  if constexpr (std::is_same_v<Type, Float32>) return row;
  for (int64_t n = 0; n < count; n += kLanes) {
    const int width = static_cast<int>(std::min<int64_t>(count - n, kBlock));
    const Lanes part = load_part<Type>(row + n, width, 0);
    std::memcpy(buffer + n, &part, sizeof part);
  }
  return buffer;
}

constexpr float kLog2E = 1.4426950408889634f;
// Added to x in [-126, 127.5): the lowest bits of the sum are round(x) + 127, a float's exponent.
constexpr float kRound = 1.5f * (1 << 23) + 127;
constexpr float kLowest = -126;  // 2^-126 is the smallest normal number; no decay gets smaller
constexpr float kHighest = 127.5f;
constexpr float kSmallestA = 1e-30f;  // replaces A = 0: 1/A stays finite, the zoh gain is d
// Minimax polynomial of (2^r - 1) / r on [-1/2, 1/2]; its error is 3.2e-7 before rounding.
constexpr float kE[] = {0.69314718056f, 0.24022349039f, 0.05550381014f, 0.00966636852f,
                        0.00133813025f};

struct Power {
  Lanes value, less_one;  // 2^x, and 2^x - 1 without cancellation
};

// x = i + r with i an integer and r in [-1/2, 1/2]: 2^x = 2^i + 2^i (2^r - 1). Needs x < 127.5.
SSMDIFF_INLINE Power exp2(Lanes x) {
  x = x < kLowest ? splat(kLowest) : x;
  const Lanes shifted = x + kRound;
  const Lanes scale = (Lanes)((Bits)shifted << 23);
  const Lanes r = x - (shifted - kRound);
  const Lanes small = r * (kE[0] + r * (kE[1] + r * (kE[2] + r * (kE[3] + r * kE[4]))));
  return {scale * small + scale, scale * small + (scale - 1.0f)};
}

template <class Type, bool kZoh>
bool walk(const Problem& p, int64_t job) {
  using Raw = typename Type::Raw;
  const int64_t block = job % p.blocks(), sequence = job / p.blocks();  // sequence: b K + k
  const int64_t b = sequence / p.directions, k = sequence % p.directions;
  const int64_t channel = block * kBlock, states = p.states, last = p.length - 1;
  const int width = static_cast<int>(std::min<int64_t>(kBlock, p.channels - channel));
  const int64_t vectors = states * kParts;
  const int64_t row_floats = (states + kBlock - 1) / kBlock * kBlock;

  // A log2(e), 1 / A and the state, each (parts, N) vectors; then a row of B and one of C.
  const size_t bytes = 3 * vectors * sizeof(Lanes) + 2 * row_floats * sizeof(float) + 64;
  std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(64, bytes / 64 * 64),
                                                     &std::free);
  if (!memory) return false;
  Lanes* const A = static_cast<Lanes*>(memory.get());
  Lanes *const inverse_A = A + vectors, *const h = inverse_A + vectors;
  float* const B_row = reinterpret_cast<float*>(h + vectors);
  float* const C_row = B_row + row_floats;

  Lanes highest[kParts], lowest[kParts];  // of A log2(e)
  for (int part = 0; part < kParts; ++part) {
    highest[part] = lowest[part] = Lanes{};
    for (int64_t n = 0; n < states; ++n) {
      Lanes value = splat(-1);
      for (int j = 0; j < std::min(width - part * kLanes, kLanes); ++j) {
        value[j] = p.A[(k * p.channels + channel + part * kLanes + j) * states + n];
      }
      value = ((value < kSmallestA) & (value > -kSmallestA)) ? splat(-kSmallestA) : value;
      const Lanes scaled = value * kLog2E;
      A[part * states + n] = scaled;
      inverse_A[part * states + n] = 1.0f / value;
      highest[part] = scaled > highest[part] ? scaled : highest[part];
      lowest[part] = scaled < lowest[part] ? scaled : lowest[part];
    }
  }
  std::memset(h, 0, vectors * sizeof *h);

  const int32_t* const order = p.order + k * p.length;
  const auto token_at = [order](int64_t t) {
    const int64_t entry = order[t];
    return entry < 0 ? -1 - entry : entry;
  };
  const Raw* const u = static_cast<const Raw*>(p.u) + b * p.length * p.channels + channel;
  const int64_t first = sequence * p.length;  // the row of token 0
  const float* const delta = p.delta + first * p.channels + channel;
  const Raw* const B = static_cast<const Raw*>(p.B) + first * states;
  const Raw* const C = static_cast<const Raw*>(p.C) + first * states;
  Raw* const y = static_cast<Raw*>(p.y) + first * p.channels + channel;

  for (int64_t t = 0; t < p.length; ++t) {
    const int64_t ahead = token_at(std::min(t + kAhead, last));
    __builtin_prefetch(delta + ahead * p.channels);
    __builtin_prefetch(u + ahead * p.channels);
    __builtin_prefetch(B + ahead * states);
    __builtin_prefetch(C + ahead * states);
    __builtin_prefetch(y + ahead * p.channels, 1);

    if (order[t] < 0) std::memset(h, 0, vectors * sizeof *h);
    const int64_t token = token_at(t);
    const float* const B_t = floats<Type>(B + token * states, states, B_row);
    const float* const C_t = floats<Type>(C + token * states, states, C_row);
    for (int part = 0; part < kParts; ++part) {
      const Lanes d = load_part<Float32>(delta + token * p.channels, width, part);
      const Lanes u_t = load_part<Type>(u + token * p.channels, width, part);
      const Lanes x = kZoh ? u_t : d * u_t;
      // A decay that overflows, which takes A > 0 or d < 0, is NaN: a clamp would hide it.
      const Lanes most = (d < 0.0f) ? d * lowest[part] : d * highest[part];
      const Lanes step = most < kHighest ? d : splat(std::numeric_limits<float>::quiet_NaN());
      Lanes* const h_part = h + part * states;
      Lanes y_t{};
#pragma GCC unroll 4
      for (int64_t n = 0; n < states; ++n) {
        const Power a = exp2(step * A[part * states + n]);
        const Lanes gx = kZoh ? a.less_one * inverse_A[part * states + n] * x : x;
        h_part[n] = a.value * h_part[n] + gx * B_t[n];
        y_t += h_part[n] * C_t[n];
      }
      store_part<Type>(y + token * p.channels, width, part, y_t);
    }
  }
  return true;
}

static Walk walk_of(Element element, bool zoh) {
  switch (element) {
    case Element::kFloat16: return zoh ? walk<Float16, true> : walk<Float16, false>;
    case Element::kBfloat16: return zoh ? walk<Bfloat16, true> : walk<Bfloat16, false>;
    default: return zoh ? walk<Float32, true> : walk<Float32, false>;
  }
}

}  // namespace SSMDIFF_ISA
}  // namespace

#undef SSMDIFF_INLINE
#if SSMDIFF_LANES > 4
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef SSMDIFF_LANES
#undef SSMDIFF_ISA
#endif
