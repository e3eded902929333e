// Our operators for ONNX Runtime on a CPU; what each computes stands in problems.h.
//
//   SelectiveScan, SelectiveScanZoh    the scan alone, as the node of every exported graph
//   CrossScan, CrossScanZoh            with the projections to delta, B and C, the sum, the skip
//   DepthwiseConv, DepthwiseConvSilu   of channels-last maps
//   GroupNormSilu, TimedGroupNormSilu
//   Softplus
//
// ONNX Runtime's pool runs the jobs of each. Nothing here throws: it is compiled without exceptions,
// and every failure is an OrtStatus.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "api.h"
#include "problems.h"
#include "kernel.h"

#define SSMDIFF_LANES 4
#define SSMDIFF_ISA baseline
#include "arithmetic.h"

#if defined(__x86_64__)
#define SSMDIFF_LANES 8
#define SSMDIFF_ISA avx2
#include "arithmetic.h"

#define SSMDIFF_LANES 16
#define SSMDIFF_ISA avx512
#include "arithmetic.h"
#endif

namespace {

// All that keeps the walks inside their memory, and writes every row of the output exactly once.
OrtStatus* check_order(const Kernel& kernel, const ScanProblem& problem) {
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

OrtStatus* run_scan(const Kernel& kernel, OrtKernelContext* context, ScanProblem& problem,
                    const Tensor& order, const int64_t* size, size_t rank) {
  if (order.type != kInt32) {
    return kernel.refuse("order has element type %d of ONNX; expected int32, which is %d",
                         order.type, kInt32);
  }
  problem.order = static_cast<const int32_t*>(order.data);
  if (OrtStatus* error = make_output(kernel, context, size, rank, &problem.y)) return error;
  if (OrtStatus* error = check_order(kernel, problem)) return error;
  if (problem.length == 0 || problem.directions == 0) return nullptr;
  const int64_t walks = problem.batch * (problem.merged() ? 1 : problem.directions);
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  problem.strip = 1;  // the widest that leaves each core two jobs, of nearly one size
  for (int64_t strip = 2; strip <= kMostBlocks; ++strip) {
    const int64_t strips = (problem.blocks() + strip - 1) / strip;
    if (walks * strips >= 2 * cores && strips * strip - problem.blocks() <= 1) problem.strip = strip;
  }
  return run_jobs(kernel, context, problem,
                  kernel.arithmetic->scan[kernel.op->element][kernel.op->variant],
                  walks * problem.strips());
}

OrtStatus* selective_scan(const Kernel& kernel, OrtKernelContext* context, const Tensor* inputs) {
  const Tensor &u = inputs[0], &delta = inputs[1], &A = inputs[2], &B = inputs[3], &C = inputs[4];
  ScanProblem problem{};
  problem.batch = delta.size[0], problem.directions = delta.size[1];
  problem.length = delta.size[2], problem.channels = delta.size[3], problem.states = A.size[2];
  problem.step_token = problem.states;
  problem.step_direction = problem.length * problem.step_token;
  problem.step_batch = problem.directions * problem.step_direction;
  problem.u = u.data, problem.B = B.data, problem.C = C.data;
  problem.delta = delta.floats(), problem.A = A.floats();
  return run_scan(kernel, context, problem, inputs[5], delta.size, 4);
}

OrtStatus* cross_scan(const Kernel& kernel, OrtKernelContext* context, const Tensor* inputs) {
  const Tensor &u = inputs[0], &x = inputs[1], &weights = inputs[2], &A = inputs[4];
  ScanProblem problem{};
  problem.batch = u.size[0], problem.length = u.size[1], problem.channels = u.size[2];
  problem.directions = A.size[0], problem.states = A.size[2], problem.rank = weights.size[1];
  const int64_t row = problem.rank + 2 * problem.states;
  if (x.size[2] != problem.directions * row) {
    return kernel.refuse("input x has %lld numbers a token; expected K (R + 2 N) = %lld, from W %s "
                         "and A %s",
                         static_cast<long long>(x.size[2]),
                         static_cast<long long>(problem.directions * row),
                         Sizes(weights.size, 3).text, Sizes(A.size, 3).text);
  }
  problem.step_direction = row, problem.step_token = problem.directions * row;
  problem.step_batch = problem.length * problem.step_token;
  problem.u = u.data, problem.low = x.floats();
  problem.B = problem.low + problem.rank;
  problem.C = problem.low + problem.rank + problem.states;
  problem.weights = weights.floats(), problem.bias = inputs[3].floats();
  problem.A = A.floats(), problem.skip = inputs[6].floats();
  return run_scan(kernel, context, problem, inputs[5], u.size, 3);
}

OrtStatus* depthwise_conv(const Kernel& kernel, OrtKernelContext* context, const Tensor* inputs) {
  const Tensor &x = inputs[0], &weights = inputs[1];
  const int64_t channels = x.size[3], side = weights.size[2], taps = side * side;
  if (side % 2 == 0) {
    return kernel.refuse("the kernel has a side of %lld; expected an odd one",
                         static_cast<long long>(side));
  }
  void* y = nullptr;
  if (OrtStatus* error = make_output(kernel, context, x.size, 4, &y)) return error;
  std::unique_ptr<float[]> turned(new (std::nothrow) float[taps * channels]);
  if (!turned) return kernel.refuse("no memory for its weights");
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < taps; ++i) turned[i * channels + c] = weights.floats()[c * taps + i];
  }
  const DepthwiseProblem problem{x.size[1],  x.size[2],    channels,           side,
                                 x.floats(), turned.get(), inputs[2].floats(), static_cast<float*>(y)};
  return run_jobs(kernel, context, problem, kernel.arithmetic->depthwise[kernel.op->variant],
                  x.size[0] * x.size[1]);
}

OrtStatus* group_norm_silu(const Kernel& kernel, OrtKernelContext* context, const Tensor* inputs) {
  const Tensor &x = inputs[0], &gamma = inputs[1];
  const int64_t groups = gamma.size[0];
  if (groups * gamma.size[1] != x.size[1]) {
    return kernel.refuse("gamma has shape %s; expected groups times members to be the %lld "
                         "channels of x",
                         Sizes(gamma.size, 2).text, static_cast<long long>(x.size[1]));
  }
  void* y = nullptr;
  if (OrtStatus* error = make_output(kernel, context, x.size, 4, &y)) return error;
  GroupNormProblem problem{x.size[1],  groups,         x.size[2] * x.size[3], kernel.epsilon,
                           x.floats(), gamma.floats(), inputs[2].floats(),    nullptr,
                           nullptr,    static_cast<float*>(y)};
  if (kernel.op->variant) {
    problem.factor = inputs[3].floats(), problem.shift = inputs[4].floats();
  }
  return run_jobs(kernel, context, problem, kernel.arithmetic->group_norm,
                  problem.pixels ? x.size[0] * groups : 0);
}

OrtStatus* softplus(const Kernel& kernel, OrtKernelContext* context, const Tensor* inputs) {
  const Tensor& x = inputs[0];
  void* y = nullptr;
  if (OrtStatus* error = make_output(kernel, context, x.size, 4, &y)) return error;
  const int64_t count = x.size[0] * x.size[1] * x.size[2] * x.size[3];
  const SoftplusProblem problem{count, x.floats(), static_cast<float*>(y)};
  return run_jobs(kernel, context, problem, kernel.arithmetic->softplus,
                  (count + problem.kRun - 1) / problem.kRun);
}

constexpr Kind kSelectiveScan = {selective_scan, 6, {{"u", "BLD", kAny, true},
                                                     {"delta", "BKLD", kFloat32, false},
                                                     {"A", "KDN", kFloat32, false},
                                                     {"B", "BKLN", kAny, true},
                                                     {"C", "BKLN", kAny, true},
                                                     {"order", "KL", kAny, false}}, "12"};
constexpr Kind kCrossScan = {cross_scan, 7, {{"u", "BLD", kFloat32, false},
                                             {"x", "BLP", kFloat32, false},
                                             {"W", "KRD", kFloat32, false},
                                             {"bias", "KD", kFloat32, false},
                                             {"A", "KDN", kFloat32, false},
                                             {"order", "KL", kAny, false},
                                             {"skip", "D", kFloat32, false}}, "04"};
constexpr Kind kDepthwise = {depthwise_conv, 3, {{"x", "BHWC", kFloat32, false},
                                                 {"weight", "C1SS", kFloat32, false},
                                                 {"bias", "C", kFloat32, false}}, "0"};
constexpr Kind kGroupNorm = {group_norm_silu, 3, {{"x", "BCHW", kFloat32, false},
                                                  {"gamma", "GM", kFloat32, false},
                                                  {"beta", "GM", kFloat32, false}}, "01"};
constexpr Kind kTimedGroupNorm = {group_norm_silu, 5, {{"x", "BCHW", kFloat32, false},
                                                       {"gamma", "GM", kFloat32, false},
                                                       {"beta", "GM", kFloat32, false},
                                                       {"factor", "BC11", kFloat32, false},
                                                       {"shift", "BC11", kFloat32, false}}, "01"};
constexpr Kind kSoftplus = {softplus, 1, {{"x", "BKLD", kFloat32, false}}, "0"};

OrtStatus* compute(void* kernel_data, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(kernel_data);
  const Kind& kind = *kernel.op->kind;
  Tensor tensors[kMostInputs];
  for (size_t i = 0; i < kind.inputs; ++i) {
    if (OrtStatus* error = read_input(kernel, context, i, tensors[i])) return error;
  }
  if (OrtStatus* error = check_sizes(kernel, tensors)) return error;
  return kind.compute(kernel, context, tensors);
}

// Of the widest instruction set that this machine has, or of that named by SSMDIFF_SCAN_ISA.
OrtStatus* choose_arithmetic(Kernel& kernel) {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  const struct {
    const char* name;
    bool here;
    const Arithmetic* arithmetic;
  } sets[] = {
#if defined(__x86_64__)
      {"avx512", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"),
       &avx512::arithmetic},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &avx2::arithmetic},
#endif
      {"baseline", true, &baseline::arithmetic}};
  const char* wanted = std::getenv("SSMDIFF_SCAN_ISA");
  for (const auto& set : sets) {
    if (!set.here || (wanted && std::strcmp(wanted, set.name) != 0)) continue;
    kernel.arithmetic = set.arithmetic;
    return nullptr;
  }
  return kernel.refuse("SSMDIFF_SCAN_ISA is '%.40s', which this machine does not have; expected "
                       "avx512, avx2 or baseline, or the variable unset", wanted);
}

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* table, const OrtKernelInfo* info,
                         void** result) {
  Kernel local{Api(table), static_cast<const Op*>(op), nullptr, 0};
  if (OrtStatus* error = choose_arithmetic(local)) return error;
  if (local.op->kind->compute == group_norm_silu) {
    if (OrtStatus* error = local.api.KernelInfoGetAttribute_float(info, "epsilon", &local.epsilon)) {
      return error;
    }
  }
  *result = new (std::nothrow) Kernel(local);
  return *result ? nullptr : local.refuse("no memory for a kernel");
}

int input_type(const OrtCustomOp* op, size_t index) {
  const Op& self = *static_cast<const Op*>(op);
  const Input& input = self.kind->input[index];
  if (!input.narrow) return input.type;  // of kAny, checked with a sentence of our own
  switch (self.element) {
    case kElementFloat16: return kFloat16;
    case kElementBfloat16: return kBfloat16;
    default: return kFloat32;
  }
}

Op make_op(const char* name, const Kind& kind, bool variant, Element element = kElementFloat32) {
  Op op{};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp* self) { return static_cast<const Op*>(self)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputTypeCount = [](const OrtCustomOp* self) {
    return static_cast<const Op*>(self)->kind->inputs;
  };
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
  op.kind = &kind;
  op.variant = variant;
  op.element = element;
  return op;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  static const Op ops[] = {make_op("SelectiveScan", kSelectiveScan, false, kElementFloat32),
                           make_op("SelectiveScan", kSelectiveScan, false, kElementFloat16),
                           make_op("SelectiveScan", kSelectiveScan, false, kElementBfloat16),
                           make_op("SelectiveScanZoh", kSelectiveScan, true, kElementFloat32),
                           make_op("SelectiveScanZoh", kSelectiveScan, true, kElementFloat16),
                           make_op("SelectiveScanZoh", kSelectiveScan, true, kElementBfloat16),
                           make_op("CrossScan", kCrossScan, false),
                           make_op("CrossScanZoh", kCrossScan, true),
                           make_op("DepthwiseConv", kDepthwise, false),
                           make_op("DepthwiseConvSilu", kDepthwise, true),
                           make_op("GroupNormSilu", kGroupNorm, false),
                           make_op("TimedGroupNormSilu", kTimedGroupNorm, true),
                           make_op("Softplus", kSoftplus, false)};
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
