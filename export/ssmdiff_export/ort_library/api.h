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
  SSMDIFF_ENTRY(85, KernelInfoGetAttribute_float, OrtStatus*, const OrtKernelInfo*, const char*,
                float*)
  SSMDIFF_ENTRY(90, KernelContext_GetInput, OrtStatus*, const OrtKernelContext*, size_t,
                const OrtValue**)
  SSMDIFF_ENTRY(91, KernelContext_GetOutput, OrtStatus*, OrtKernelContext*, size_t, const int64_t*,
                size_t, OrtValue**)
  SSMDIFF_ENTRY(99, ReleaseTensorTypeAndShapeInfo, void, OrtTensorTypeAndShapeInfo*)
  SSMDIFF_ENTRY(274, KernelContext_ParallelFor, OrtStatus*, const OrtKernelContext*,
                void (*)(void*, size_t), size_t total, size_t batches, void*)  // since 1.17
#undef SSMDIFF_ENTRY
};

}  // namespace
