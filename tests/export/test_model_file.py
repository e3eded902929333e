"""The reader that looks at a model file before any library does: what it sees, and fuzz."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import random
import time
import zlib

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_files import card, model, recipe, write
from onnx import TensorProto, helper
from ssmdiff import Condition, Conditions
from ssmdiff.errors import ContractError, ExportError
from ssmdiff.orders.group_shuffle import GroupShuffle
from ssmdiff.orders.seeds import stream
from ssmdiff_export.runtime import check_model_file
from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.checks import fields, varints

SECONDS = 5.0
"""That no file of a few kilobytes may take, on a busy machine."""


class TestProtobuf:
    @given(st.integers(0, 2**63 - 1))
    def test_numbers_are_read_as_protobuf_writes_them(self, number: int) -> None:
        (item,) = fields(memoryview(onnx.ModelProto(model_version=number).SerializeToString()))
        assert (item.number, item.value) == (5, number)

    @given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
    def test_packed_numbers_are_read_as_protobuf_writes_them(self, numbers) -> None:
        data = memoryview(TensorProto(dims=numbers).SerializeToString())
        found = [n for item in fields(data) for n in self.of(item)]
        assert found == numbers

    @staticmethod
    def of(item) -> list[int]:
        return [item.value] if isinstance(item.value, int) else varints(item.value)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_fields_or_an_error(self, data: bytes) -> None:
        try:
            found = list(fields(memoryview(data)))
        except ExportError:
            return
        assert sum(len(f.value) for f in found if not isinstance(f.value, int)) <= len(data)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\x08", "truncated"),
            (b"\x0a\x05abc", "needs 5 bytes, 3 are left"),
            (b"\x08" + b"\xff" * 11, "more than ten bytes"),
            (b"\x00\x01", "number 0"),
            (b"\x0b", "of kind 3"),
        ],
    )
    def test_what_is_wrong_is_said(self, data: bytes, message: str) -> None:
        with pytest.raises(ExportError, match=message):
            list(fields(memoryview(data)))


class TestReport:
    def test_what_a_file_holds_is_what_onnx_reads(self, tmp_path) -> None:
        path = write(tmp_path / "model.onnx")
        report, proto = check_model_file(path), onnx.load(path)
        body = [n for f in proto.functions for n in f.node]
        inner = sum(
            len(a.g.node) for n in body for a in n.attribute if a.type == onnx.AttributeProto.GRAPH
        )
        assert report.nodes == len(proto.graph.node) + len(body) + inner
        assert (report.opset, report.ir_version) == (20, 10)
        assert report.functions == ("SelectiveScan",)
        assert report.external is None
        assert report.card.scan["name"] == "regenerate"

    def test_a_file_named_through_a_link_is_read(self, tmp_path) -> None:
        write(tmp_path / "model.onnx")
        (tmp_path / "latest.onnx").symlink_to("model.onnx")
        assert check_model_file(tmp_path / "latest.onnx").path == tmp_path / "model.onnx"

    @pytest.mark.slow
    def test_a_file_of_many_small_fields_is_refused_soon(self, tmp_path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(b"\x08\x0a" * 1_100_000)
        start_s = time.perf_counter()
        with pytest.raises(ExportError, match="over 1000000 fields"):
            check_model_file(path)
        assert time.perf_counter() - start_s < 6 * SECONDS

    def test_graphs_within_graphs_are_followed_so_far(self, tmp_path) -> None:
        proto = model()
        graph = helper.make_graph([], "innermost", [], [])
        for depth in range(12):
            node = helper.make_node("If", ["c"], ["y"], then_branch=graph)
            graph = helper.make_graph([node], f"depth_{depth}", [], [])
        proto.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=graph))
        with pytest.raises(ExportError, match="over 32 deep"):
            check_model_file(write(tmp_path / "model.onnx", proto))


class TestCard:
    def test_a_card_comes_back_as_it_was(self) -> None:
        before = card()
        after = ModelCard.from_json(before.to_json())
        assert after.to_json() == before.to_json()
        assert after.slots == before.slots
        drawn, expected = (
            c.recipes["recipe_0"].draw(stream(0, "order", 1, 2)) for c in (after, before)
        )
        np.testing.assert_array_equal(drawn.index, expected.index)
        np.testing.assert_array_equal(drawn.restart, expected.restart)

    def test_what_a_model_is_told_comes_back_with_it(self) -> None:
        told = Conditions([Condition("age", "number", low=1, high=9), Condition("t1", "image")])
        after = ModelCard.from_json(dataclasses.replace(card(), conditions=told).to_json())
        assert after.told == told
        assert after.input_shape == (card().channels + 1, *card().image_size)
        assert "age: expected 1 to 9; t1: expected 1 channel" in str(after)
        old = dataclasses.replace(card(), class_conditional=True, class_names=("a", "b"))
        assert "conditions" not in json.loads(old.to_json())
        assert old.told == Conditions([Condition("label", "label", ("a", "b"))])

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("format", 4, "format 4; this version reads 1 to 3"),
            ("image_size", [4], r"'image_size' is list; expected \[H, W\]"),
            ("image_size", [4, 4.0], "a whole number"),
            ("image_size", [True, 4], "a whole number"),
            ("channels", 0, "'channels' is 0; expected a whole number from 1"),
            ("channels", None, "'channels' is None"),
            ("class_conditional", 1, "true or false"),
            ("class_conditional", True, "names no classes"),
            ("class_names", ["\x1b[31m"], "printable text"),
            ("conditions", 3, "'conditions' is 3"),
            ("conditions", [3], "no list of conditions; expected tables of name, kind"),
            ("conditions", [{"name": "seen", "kind": "mask"}], "is no condition"),
            ("conditions", [{"name": "label", "kind": "label", "names": ["a"]}], "do not agree"),
            (
                "conditions",
                [{"name": f"x{i}", "kind": "image", "channels": 4096} for i in range(5)],
                "20480 planes; at most 16384",
            ),
            ("normalisation", [0, 1], r"expected \[-1, 1\]"),
            ("precision", "int8", "one of fp32, fp16, bf16"),
            ("weights_sha256", "abc", "64 hexadecimal digits"),
            ("diffusion.prediction", "noise", "one of epsilon, sample, v_prediction"),
            ("diffusion.beta_end", 1.5, "between 0 and 1"),
            ("diffusion.timesteps", 10**9, "from 2 to 100000"),
            ("diffusion.betas", [1], "unknown key 'betas'; did you mean"),
            ("sample.steps", 0, "from 1"),
            ("sample.scheduler", "ddim", "an object"),
            ("parity", {"max_abs": -1}, "a number from 0"),
            ("slots.0.order", "order_7", "slot 0 reads 'order_7'; expected 'order_0'"),
            ("slots.0.recipe", "other", "recipe 'recipe_0' is for 16 tokens"),
            ("slots.0.grid", [5, 5], r"is for 16 tokens; the slots that use it have \[25\]"),
            ("slots.0.grid", [1 << 16, 1 << 16], "tokens"),
            ("recipes.recipe_0.base", "????", "'base' cannot be unpacked"),
            ("recipes.recipe_0.directions", 1, "'base' does not unpack to 64 bytes"),
            ("recipes.recipe_0.directions", 10**12, "over 16777216 places"),
            ("recipes.recipe_0.count", 15, "16 tokens, which are not 15 groups"),
            ("extra", 1, "unknown key 'extra'"),
        ],
    )
    def test_a_wrong_value_is_refused_with_what_was_expected(self, path, value, message) -> None:
        document = json.loads(card().to_json())
        *way, last = path.split(".")
        place = document
        for key in way:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[last] = value
        with pytest.raises(ExportError, match=message):
            ModelCard.from_json(json.dumps(document))

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a":1,"a":2}', "[" * 10**5])
    def test_what_is_no_strict_json_is_refused(self, text: str) -> None:
        with pytest.raises(ExportError, match="model card"):
            ModelCard.from_json(text)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=8,
        ),
        st.sampled_from(sorted(json.loads(card().to_json()))),
    )
    @settings(max_examples=300)
    def test_any_value_in_any_place_is_read_or_refused(self, value, key: str) -> None:
        document = json.loads(card().to_json())
        document[key] = value
        with contextlib.suppress(ExportError):
            ModelCard.from_json(json.dumps(document))

    @given(st.data())
    def test_a_damaged_recipe_is_refused_or_is_still_a_recipe(self, data) -> None:
        values = recipe().to_json()
        key = data.draw(st.sampled_from(["base", "restart", "groups"]))
        place = data.draw(st.integers(0, len(values[key]) - 1))
        letter = data.draw(st.sampled_from("Ab0+/=?"))
        values[key] = values[key][:place] + letter + values[key][place + 1 :]
        try:
            order = GroupShuffle.from_json(values).draw(stream(0, "order"))
        except ContractError:
            return
        assert sorted(order.index[0]) == list(range(16))

    def test_a_recipe_that_would_unpack_to_gigabytes_is_not_unpacked(self) -> None:
        values = GroupShuffle(recipe().base, np.arange(4)[:, None]).to_json()
        values["base"] = base64.b64encode(zlib.compress(bytes(200_000_000), 9)).decode()
        start_s = time.perf_counter()
        with pytest.raises(ContractError, match="does not unpack to 128 bytes"):
            GroupShuffle.from_json(values)
        assert time.perf_counter() - start_s < 1


FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestFuzz:
    @staticmethod
    def refused_or_read(path, data: bytes) -> None:
        path.write_bytes(data)
        start_s = time.perf_counter()
        with contextlib.suppress(ExportError):
            check_model_file(path)
        assert time.perf_counter() - start_s < SECONDS

    @given(data=st.binary(max_size=400))
    @FUZZ
    def test_any_bytes_are_refused_with_a_sentence(self, tmp_path, data: bytes) -> None:
        (tmp_path / "fuzz.onnx").write_bytes(data)
        with pytest.raises(ExportError, match="is refused: "):
            check_model_file(tmp_path / "fuzz.onnx")

    @given(seed=st.integers(0, 2**32), changes=st.integers(1, 8))
    @FUZZ
    def test_a_mutated_file_is_read_or_refused(self, tmp_path, seed: int, changes: int) -> None:
        chance, data = random.Random(seed), bytearray(REAL)
        for _ in range(changes):
            place = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del data[place : place + chance.randrange(1, 20)]
            else:
                start = chance.randrange(len(data))
                data[place:place] = data[start : start + chance.randrange(1, 200)]
        self.refused_or_read(tmp_path / "fuzz.onnx", bytes(data))

    @pytest.mark.parametrize("part", range(1, 64))
    def test_a_file_cut_anywhere_is_refused(self, tmp_path, part: int) -> None:
        path = tmp_path / "cut.onnx"
        path.write_bytes(REAL[: len(REAL) * part // 64])
        with pytest.raises(ExportError, match="is refused: "):
            check_model_file(path)


REAL = model().SerializeToString()
