"""The stub refuses what the real binding would: else tests over it could not fail."""

import pytest


def test_unknown_names_are_not_there(trt):
    for name in ("Builderr", "init_libnvinfer_plugins_v9", "OnnxParserFlags"):
        assert not hasattr(trt, name)
    config = trt.Builder(trt.Logger()).create_builder_config()
    with pytest.raises(AttributeError, match="max_workspace_size"):
        config.max_workspace_size = 1 << 30
    with pytest.raises(AttributeError):
        config.set_workspace
    with pytest.raises(AttributeError):
        trt.Builder(trt.Logger()).build_engine


def test_names_that_11_dropped_are_dropped(trt):
    old = trt.__version__.startswith("10.")
    assert hasattr(trt.BuilderFlag, "FP16") == old
    assert hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") == old
    assert hasattr(trt.ICudaEngine, "device_memory_size") == old
    assert hasattr(trt.ICudaEngine, "device_memory_size_v2")


def test_arguments_of_another_type_are_refused(trt):
    logger = trt.Logger()
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    with pytest.raises(TypeError):
        trt.Builder("logger")
    with pytest.raises(TypeError):
        config.set_memory_pool_limit("workspace", 1)
    with pytest.raises(TypeError):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5)
    with pytest.raises(TypeError):
        config.set_timing_cache(config.create_timing_cache(b""))
    with pytest.raises(TypeError):
        trt.OnnxParser(logger, builder.create_network())
    assert builder.create_network(1 << 30) is None
    with pytest.raises(RuntimeError, match="inconsistent"):
        builder.create_optimization_profile().set_shape("x", (4,), (2,), (8,))


def test_a_logger_that_does_not_call_its_base_is_refused(trt):
    class Mute(trt.ILogger):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="must be called"):
        trt.Runtime(Mute())


def test_bytes_that_are_no_plan_give_none(trt):
    assert trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"no plan") is None
