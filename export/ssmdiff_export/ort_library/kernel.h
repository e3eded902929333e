// What all operators have in common: inputs read and checked, an output, jobs for ONNX Runtime's pool.

namespace {

constexpr size_t kMostInputs = 7, kMostDimensions = 4;

// An input: its axes by letters, or 1; an axis has one size wherever its letter stands.
struct Input {
  const char *name, *axes;
  int type;  // of ONNX; kAny where ONNX Runtime is not to check it
  bool narrow;  // of the operator's element type instead
};

struct Tensor {
  void* data;
  int type;
  size_t rank;
  int64_t size[kMostDimensions];

  const float* floats() const { return static_cast<const float*>(data); }
};

struct Kernel;
using Compute = OrtStatus* (*)(const Kernel&, OrtKernelContext*, const Tensor* inputs);

struct Kind {
  Compute compute;
  size_t inputs;
  Input input[kMostInputs];
  const char* leading;  // the inputs, by place, that say what sizes the letters have
};

struct Op : OrtCustomOp {
  const char* name;
  const Kind* kind;
  Element element;
  bool variant;  // zoh, with silu, or timed
};

struct Kernel {
  Api api;
  const Op* op;
  const Arithmetic* arithmetic;
  float epsilon;

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

// "(2, 4, 7)" or "(B, L, D)", for messages.
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
  explicit Sizes(const char* axes) {
    int used = std::snprintf(text, sizeof text, "(");
    for (size_t i = 0; axes[i]; ++i) {
      used += std::snprintf(text + used, sizeof text - used, i ? ", %c" : "%c", axes[i]);
    }
    std::snprintf(text + used, sizeof text - used, ")");
  }
};

OrtStatus* read_input(const Kernel& kernel, const OrtKernelContext* context, size_t index,
                      Tensor& tensor) {
  const Api& api = kernel.api;
  const Input& input = kernel.op->kind->input[index];
  const OrtValue* value = nullptr;
  if (OrtStatus* error = api.KernelContext_GetInput(context, index, &value)) return error;
  if (!value) {
    return kernel.refuse("input %s is absent; expected a tensor %s", input.name,
                         Sizes(input.axes).text);
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* error = api.GetTensorTypeAndShape(value, &info)) return error;
  OrtStatus* error = api.GetTensorElementType(info, &tensor.type);
  if (!error) error = api.GetDimensionsCount(info, &tensor.rank);
  if (!error && tensor.rank != std::strlen(input.axes)) {
    error = kernel.refuse("input %s has %zu dimensions; expected %s", input.name, tensor.rank,
                          Sizes(input.axes).text);
  }
  if (!error) error = api.GetDimensions(info, tensor.size, tensor.rank);
  api.ReleaseTensorTypeAndShapeInfo(info);
  return error ? error : api.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data);
}

// Every axis of every input against the letters, which the leading inputs give sizes.
OrtStatus* check_sizes(const Kernel& kernel, const Tensor* tensors) {
  const Kind& kind = *kernel.op->kind;
  int64_t sizes[128];
  std::fill(sizes, sizes + 128, -1);
  sizes[int{'1'}] = 1;
  const auto give = [&](size_t index) {
    for (size_t i = 0; i < tensors[index].rank; ++i) {
      int64_t& size = sizes[int{kind.input[index].axes[i]}];
      if (size < 0) size = tensors[index].size[i];
    }
  };
  char from[200] = "";
  size_t used = 0;
  for (const char* place = kind.leading; *place; ++place) {
    const size_t index = static_cast<size_t>(*place - '0');
    give(index);
    used += std::snprintf(from + used, sizeof from - used, "%s %s %s", used ? " and" : "from",
                          kind.input[index].name,
                          Sizes(tensors[index].size, tensors[index].rank).text);
  }
  for (size_t index = 0; index < kind.inputs; ++index) {
    give(index);
    int64_t expected[kMostDimensions];
    for (size_t i = 0; i < tensors[index].rank; ++i) {
      expected[i] = sizes[int{kind.input[index].axes[i]}];
    }
    if (!std::equal(expected, expected + tensors[index].rank, tensors[index].size)) {
      return kernel.refuse("input %s has shape %s; expected %s %s, %s", kind.input[index].name,
                           Sizes(tensors[index].size, tensors[index].rank).text,
                           Sizes(kind.input[index].axes).text,
                           Sizes(expected, tensors[index].rank).text, from);
    }
  }
  return nullptr;
}

OrtStatus* make_output(const Kernel& kernel, OrtKernelContext* context, const int64_t* size,
                       size_t rank, void** data) {
  OrtValue* output = nullptr;
  if (OrtStatus* error = kernel.api.KernelContext_GetOutput(context, 0, size, rank, &output)) {
    return error;
  }
  return kernel.api.GetTensorMutableData(output, data);
}

template <class Problem>
struct Jobs {
  const Problem* problem;
  Job<Problem> job;
  std::atomic<bool> failed;

  static void run(void* data, size_t index) {
    Jobs& jobs = *static_cast<Jobs*>(data);
    if (!jobs.job(*jobs.problem, static_cast<int64_t>(index))) jobs.failed = true;
  }
};

template <class Problem>
OrtStatus* run_jobs(const Kernel& kernel, OrtKernelContext* context, const Problem& problem,
                    Job<Problem> job, int64_t total) {
  if (total == 0) return nullptr;
  Jobs<Problem> jobs{&problem, job, {false}};
  if (OrtStatus* error = kernel.api.KernelContext_ParallelFor(
          context, Jobs<Problem>::run, static_cast<size_t>(total), 0, &jobs)) {
    return error;
  }
  return jobs.failed ? kernel.refuse("no memory for its workspace") : nullptr;
}

}  // namespace
