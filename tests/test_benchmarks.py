"""Measuring networks: contenders, inputs, turns, memory, energy, and what comes of them."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from lookalikes import colour_folder, colour_network, model, two_branches
from PIL import Image
from simulated import FakeDriver, pretend

from graftonnx.benchmarks import benchmark
from graftonnx.benchmarks.card import NVML, Card, find_card
from graftonnx.benchmarks.chart import draw
from graftonnx.benchmarks.contenders import Contender, Running, line_up, open_all, step
from graftonnx.benchmarks.inputs import picture_inputs, pictures, random_inputs, shapes
from graftonnx.benchmarks.memory import measure, peak, resident
from graftonnx.benchmarks.record import Figures
from graftonnx.benchmarks.timing import Times, interleave
from graftonnx.errors import DataError, ModelError
from graftonnx.metadata import InputConvention, Metadata, Preprocess
from graftonnx.providers import nvidia
from graftonnx.providers.settings import SETTLE, Settings
from graftonnx.runtime import open_session

RUNNING = Running(provider="cpu", settings=Settings(), threads=1, cores=2, io="arrays")


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, Path]:
    """Three files: images of 8 and of 16 pixels, and one that takes exactly two of them."""
    made = {"a": colour_network(), "b": colour_network(size=16), "fixed": colour_network(batch="2")}
    for name, proto in made.items():
        onnx.save(proto, tmp_path / f"{name}.onnx")
    return {name: tmp_path / f"{name}.onnx" for name in made}


class TestContenders:
    def test_rivals_run_in_turn_and_at_once(self) -> None:
        line = line_up([Path("f.onnx")], [Path("x/a.onnx"), Path("b.onnx")])
        files = (Path("x/a.onnx"), Path("b.onnx"))
        assert line == [
            Contender("f.onnx", (Path("f.onnx"),)),
            Contender("a.onnx then b.onnx", files),
            Contender("a.onnx and b.onnx in 2 threads", files, at_once=True),
        ]

    def test_a_single_rival_runs_alone_and_namesakes_show_their_folders(self) -> None:
        line = line_up([Path("x/m.onnx"), Path("n.onnx")], [Path("y/m.onnx")])
        assert [contender.name for contender in line] == ["x/m.onnx", "n.onnx", "y/m.onnx"]

    def test_networks_at_once_share_out_the_threads(
        self, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[int, dict[str, str]]] = []

        def opened(path: Path, *, provider: str, threads: int, settings: Settings) -> None:
            asked.append((threads, dict(settings.options)))

        monkeypatch.setattr("graftonnx.benchmarks.contenders.open_session", opened)
        files = (networks["a"], networks["b"])
        running = Running(provider="cpu", settings=Settings(), threads=0, cores=6, io="arrays")
        open_all(Contender("in turn", files), running)
        open_all(Contender("at once", files, at_once=True), running)
        assert asked == [(0, SETTLE), (0, SETTLE), (3, SETTLE), (3, SETTLE)]

    @pytest.mark.parametrize("io", ["arrays", "bound", "resident"])
    def test_each_way_of_handing_over_runs(self, networks: dict[str, Path], io: str) -> None:
        contender = Contender("a", (networks["a"],))
        sessions = open_all(contender, RUNNING)
        feed = random_inputs(sessions[0], shapes(sessions[0], 2))
        with contextlib.ExitStack() as stack:
            result = step(contender, sessions, [feed], io, stack)()  # type: ignore[arg-type]
        if io != "resident":
            np.testing.assert_array_equal(result[0], sessions[0].run(*feed)[0])  # type: ignore[index]

    def test_at_once_is_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both wait for each other: one after the other they would wait for ever. The first runs are not."""
        barrier, threads = threading.Barrier(2, timeout=5), list[int]()

        def run() -> int:
            threads.append(threading.get_ident())
            return barrier.wait() if len(threads) > 2 else -1

        monkeypatch.setattr("graftonnx.benchmarks.contenders._single", lambda session, arrays, io: run)
        with contextlib.ExitStack() as stack:
            contender = Contender("both", (Path("a"), Path("b")), at_once=True)
            together = step(contender, [None, None], [(), ()], "arrays", stack)  # type: ignore[list-item]
            assert sorted(together()) == [0, 1]  # type: ignore[call-overload]
            assert len(set(threads[:2])) == 2
            assert set(threads[2:]) == set(threads[:2])


class TestInputs:
    def test_the_batch_is_filled_in(self, networks: dict[str, Path]) -> None:
        session = open_session(networks["b"], provider="cpu")
        assert shapes(session, 4) == [(4, 3, 16, 16)]

    def test_a_fixed_batch_refuses_others(self, networks: dict[str, Path]) -> None:
        session = open_session(networks["fixed"], provider="cpu")
        assert shapes(session, 2) == [(2, 3, 8, 8)]
        with pytest.raises(ModelError) as caught:
            shapes(session, 8)
        assert caught.value.message == (
            "cannot run 'fixed.onnx' with 8 images at once: its input is [2, 3, 8, 8]. Give --batch 2."
        )

    def test_dynamic_extents_must_be_given(self) -> None:
        proto = model("g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }", {}, Metadata())
        session = open_session(proto, provider="cpu")
        assert shapes(session, 2, (5, 6)) == [(2, 3, 5, 6)]
        with pytest.raises(ModelError, match=r"its input is \['N', 3, 'H', 'W'\]\. Give --input-size\."):
            shapes(session, 2)

    def test_random_numbers_have_the_types_of_the_inputs(self) -> None:
        proto = model(
            """g (float16[N, 4] h, uint8[N, 4] u, int64[N] i) => (float16[N, 4] y, uint8[N, 4] v, int64[N] j)
            { y = Relu(h)  v = Identity(u)  j = Identity(i) }""",
            {},
            Metadata(),
        )
        session = open_session(proto, provider="cpu")
        half, byte, whole = random_inputs(session, shapes(session, 64))
        assert (half.dtype, byte.dtype, whole.dtype) == (np.float16, np.uint8, np.int64)
        assert 0 <= half.min() < half.max() <= 1
        assert byte.max() > 200
        assert not whole.any()

    def test_images_come_as_each_network_takes_them(self, tmp_path: Path) -> None:
        folder = colour_folder(tmp_path / "data", {"red": 1, "green": 1})
        images = pictures(str(folder), 3, (8, 8))
        assert images.shape == (3, 8, 8, 3)
        np.testing.assert_array_equal(images[2], images[0])
        convention = InputConvention(preprocess=Preprocess(order="bgr", scale=255, mean=(1, 2, 3)))
        planes = open_session(colour_network(Metadata(input=convention)), provider="cpu")
        (given,) = picture_inputs(planes, shapes(planes, 2), images)
        expected = images[:2, :, :, ::-1].transpose(0, 3, 1, 2) - np.float32([1, 2, 3]).reshape(3, 1, 1)
        np.testing.assert_allclose(given, expected, atol=1e-3)
        proto = model("g (uint8[N, 8, 8, 3] x) => (uint8[N, 8, 8, 3] y) { y = Identity(x) }", {}, Metadata())
        camera = open_session(proto, provider="cpu")
        np.testing.assert_array_equal(picture_inputs(camera, shapes(camera, 3), images)[0], images)

    def test_images_for_a_network_that_takes_none(self, tmp_path: Path) -> None:
        proto = model("g (float[N, 7] x) => (float[N, 7] y) { y = Relu(x) }", {}, Metadata())
        onnx.save(proto, tmp_path / "m.onnx")
        folder = colour_folder(tmp_path / "data", {"red": 1, "green": 1})
        with pytest.raises(ModelError, match=r"cannot feed images to 'm.onnx': it takes none\. Leave --data"):
            benchmark([tmp_path / "m.onnx"], batches=(1,), data=str(folder))

    def test_data_without_a_readable_image(self, tmp_path: Path) -> None:
        folder = colour_folder(tmp_path / "data", {"red": 1, "green": 1})
        for file in folder.rglob("*.png"):
            file.write_bytes(b"no image")
        with pytest.raises(DataError, match="none of the first 2 can be decoded"):
            pictures(str(folder), 4, (8, 8))


class TestTurns:
    def test_every_round_begins_with_the_next_contender(self) -> None:
        order: list[str] = []
        steps = {name: [lambda name=name: order.append(name)] for name in "abc"}
        rounds: list[None] = []
        times = interleave(steps, warm_up=1, rounds=3, seconds=60, on_round=lambda: rounds.append(None))
        assert "".join(order) == "cab" + "abc" + "bca" + "cab"
        assert [times[name].runs for name in "abc"] == [3, 3, 3]
        assert len(rounds) == 4

    def test_no_round_begins_after_the_time_is_up(self) -> None:
        times = interleave({"a": [lambda: time.sleep(0.02)]}, warm_up=0, rounds=1000, seconds=0.1)
        assert 1 <= times["a"].runs <= 6

    def test_latencies_and_percentiles_are_those_of_the_runs(self) -> None:
        times = interleave({"a": [lambda: time.sleep(0.01)]}, warm_up=0, rounds=5, seconds=60)["a"]
        assert 0.01 <= times.percentile(50) < 0.1
        assert times.cpu_of_a_run < 0.01
        known = Times(latencies=[float(n) for n in range(101)])
        assert [known.percentile(p) for p in (50, 90, 99)] == [50, 90, 99]

    def test_streams_run_at_the_same_time(self) -> None:
        barrier = threading.Barrier(3, timeout=5)
        times = interleave({"a": [barrier.wait] * 3}, warm_up=0, rounds=2, seconds=60)["a"]
        assert (times.runs, len(times.turns)) == (24, 2)


class TestMemory:
    def test_a_process_of_its_own_tells_its_peak(self, networks: dict[str, Path]) -> None:
        """Memory that the parent process holds does not count."""
        ballast = np.ones(1 << 25)
        answer = measure(Contender("a", (networks["a"],)), RUNNING, (1, 64), ())
        assert answer.before is not None
        small, large = answer.peaks
        assert small is not None
        assert large is not None
        assert 10 << 20 < answer.before <= small <= large < ballast.nbytes
        assert answer.device == (None, None)

    def test_a_large_network_needs_more(self, tmp_path: Path) -> None:
        weight = np.ones((3, 2_000_000), np.float32)
        proto = model(
            "g (float[N, 3] x) => (float[N, 2000000] y) { y = MatMul(x, w) }", {"w": weight}, Metadata()
        )
        onnx.save(proto, tmp_path / "large.onnx")
        answer = measure(Contender("large", (tmp_path / "large.onnx",)), RUNNING, (1,), ())
        assert answer.before is not None
        assert answer.peaks[0] is not None
        assert answer.peaks[0] - answer.before > weight.nbytes

    def test_the_process_fails_with_a_sentence(self, networks: dict[str, Path]) -> None:
        with pytest.raises(ModelError) as caught:
            measure(Contender("fixed", (networks["fixed"],)), RUNNING, (8,), ())
        assert caught.value.message.startswith(
            "cannot measure the memory of 'fixed': its process ended with: "
        )
        assert "Give --batch 2. Try a smaller --batch, or --no-memory." in caught.value.message

    def test_code_in_the_current_folder_does_not_run(
        self, networks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "numpy.py").write_text("from pathlib import Path; Path('ran').touch()")
        monkeypatch.chdir(tmp_path)
        measure(Contender("fixed", (networks["fixed"],)), RUNNING, (2,), ())
        assert not (tmp_path / "ran").exists()

    def test_the_peak_is_never_below_what_is_held(self) -> None:
        held, most = resident(), peak()
        assert held is not None
        assert most is not None
        assert held <= most


class FakeNvml:
    """NVML with one card that draws 50 W."""

    def __init__(self, *, tells: bool = True) -> None:
        self.tells, self.asked = tells, b""

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVIDIA's names, here and below
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus: bytes, handle: object) -> int:  # noqa: N802
        self.asked = bus
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, target: object) -> int:  # noqa: N802
        pointer = ctypes.cast(target, ctypes.POINTER(ctypes.c_ulonglong))  # type: ignore[arg-type]
        pointer[0] = int(time.perf_counter() * 50_000)
        return 0 if self.tells else 3

    def nvmlDeviceGetMemoryInfo(self, handle: object, target: object) -> int:  # noqa: N802
        pointer = ctypes.cast(target, ctypes.POINTER(ctypes.c_ulonglong))  # type: ignore[arg-type]
        pointer[0], pointer[1], pointer[2] = 100, 60, 40
        return 0


class TestCard:
    def test_the_energy_of_a_run_is_told_by_the_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("graftonnx.benchmarks.card.WINDOW", 0.2)
        card = Card(FakeNvml(), ctypes.c_void_p())  # type: ignore[arg-type]
        assert card.energy(lambda: time.sleep(0.01)) == pytest.approx(0.5, rel=0.5)
        assert card.memory() == 40

    def test_a_card_that_does_not_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("graftonnx.benchmarks.card.WINDOW", 0.01)
        card = Card(FakeNvml(tells=False), ctypes.c_void_p())  # type: ignore[arg-type]
        assert card.energy(lambda: None) is None

    def test_the_card_is_found_by_its_bus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """CUDA and NVML count cards in different orders."""
        nvml = FakeNvml()
        pretend(monkeypatch, FakeDriver())
        real = nvidia.load
        monkeypatch.setattr(nvidia, "load", lambda name: nvml if name == NVML else real(name))
        assert find_card("cuda", {}) is not None
        assert nvml.asked == b"0000:0A:00.0"
        assert find_card("cuda", {"device_id": "1"}) is None
        assert find_card("openvino", {"device_id": "GPU.0"}) is None

    def test_there_is_none_without_a_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, None)
        assert find_card("cuda", {}) is None


class TestBenchmark:
    def test_figures_and_ratios_of_a_network_against_two(self, networks: dict[str, Path]) -> None:
        result = benchmark(
            [networks["a"]],
            against=[networks["a"], networks["b"]],
            batches=(4, 1, 4),
            provider="cpu",
            threads=1,
            warm_up=1,
            rounds=12,
            measure_memory=False,
        )
        assert [(found.contender, found.batch) for found in result.figures] == [
            (name, batch) for batch in (1, 4) for name in result.contenders
        ]
        assert len(result.contenders) == 3
        for found in result.figures:
            assert found.runs == 12
            assert 0 < found.p50 <= found.p90
            assert (found.p99, found.memory, found.joules) == (None, None, None)
            assert found.images_per_second == pytest.approx(found.batch / found.mean, rel=0.5)
        first = next(iter(result.contenders))
        assert [(ratio.contender, ratio.rival, ratio.batch) for ratio in result.ratios] == [
            (first, rival, batch) for batch in (1, 4) for rival in list(result.contenders)[1:]
        ]
        assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in result.ratios)
        assert (result.provider, result.io, result.data) == ("cpu", "arrays", None)
        assert all("nodes on CPU" in line for lines in result.coverage.values() for line in lines)

    def test_without_rivals_files_are_compared_with_the_first(self, networks: dict[str, Path]) -> None:
        files = [networks["a"], networks["b"]]
        result = benchmark(files, batches=(1,), provider="cpu", rounds=2, measure_memory=False)
        assert [(ratio.contender, ratio.rival) for ratio in result.ratios] == [("b.onnx", "a.onnx")]

    def test_the_slower_network_has_the_larger_ratio(self, networks: dict[str, Path], tmp_path: Path) -> None:
        weight = np.ones((200, 200), np.float32)
        chain = "  ".join(f"v{n + 1} = MatMul(v{n}, w)" for n in range(60))
        proto = model(f"g (float[N, 200] v0) => (float[N, 200] v60) {{ {chain} }}", {"w": weight}, Metadata())
        onnx.save(proto, tmp_path / "slow.onnx")
        result = benchmark(
            [tmp_path / "slow.onnx", networks["a"]],
            batches=(64,),
            provider="cpu",
            threads=1,
            rounds=20,
            measure_memory=False,
        )
        assert result.ratios[0].median < 0.5
        assert result.ratios[0].cpu < 0.5

    def test_a_file_that_fixes_its_batch_is_measured_at_others_too(self, tmp_path: Path) -> None:
        """It is opened in the form that fuse reads, here and in the process that tells its memory."""
        proto = two_branches()
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(proto, tmp_path / "fixed.onnx")
        result = benchmark([tmp_path / "fixed.onnx"], batches=(1, 8), provider="cpu", rounds=2)
        assert [found.batch for found in result.figures] == [1, 8]
        assert all(found.memory for found in result.figures)

    @pytest.mark.parametrize("keywords", [{"batches": ()}, {"batches": (0,)}, {"streams": 0}])
    def test_wrong_use_is_a_value_error(self, networks: dict[str, Path], keywords: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="at least one file"):
            benchmark([networks["a"]], **keywords)  # type: ignore[arg-type]

    def test_graphs_belong_to_one_thread(self, networks: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="CUDA graphs runs in one thread only"):
            benchmark([networks["a"]], streams=2, settings=Settings(cuda_graph=True))

    @pytest.mark.parametrize("memory", [None, 200 << 20])
    def test_the_chart_is_a_png_with_a_panel_for_each_figure(
        self, networks: dict[str, Path], tmp_path: Path, memory: int | None
    ) -> None:
        result = benchmark([networks["a"]], batches=(1, 2), provider="cpu", rounds=3, measure_memory=False)
        figures: list[Figures] = [
            found.model_copy(update={"memory": memory, "memory_before": 100 << 20})
            for found in result.figures
        ]
        draw(tmp_path / "c.png", result.model_copy(update={"figures": tuple(figures)}))
        with Image.open(tmp_path / "c.png") as image:
            assert image.format == "PNG"
            assert image.width == (1440 if memory else 1020)
