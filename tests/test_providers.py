"""Why a provider cannot work here, in one sentence each, and the options that settings come to."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from simulated import FakeDriver, install, pretend, pretend_torch

from graftonnx.errors import RuntimeProviderError
from graftonnx.providers import CATALOGUE, PROVIDERS, Provider, nvidia
from graftonnx.providers import obstacles as obstacles_module
from graftonnx.providers.catalogue import title
from graftonnx.providers.obstacles import cuda_build, obstacle, preload_cuda
from graftonnx.providers.settings import Settings, chain

CUBLAS = ["libcublasLt.so.13", "libcublas.so.13"]
IMAGE = {"input": ("batch", 3, 8, 8)}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Linux machine with a GPU and every library, and ONNX Runtime for CUDA 13 and TensorRT."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ort, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: [CATALOGUE[name].name for name in ("tensorrt", "cuda", "cpu")]
    )
    monkeypatch.setattr(obstacles_module, "preload_cuda", list)
    pretend(monkeypatch, FakeDriver(), libraries="*")
    return monkeypatch


def lack(machine: pytest.MonkeyPatch, names: list[str], *, present: str = "") -> None:
    """Let ONNX Runtime miss these libraries, and the system find no others but those present."""
    machine.setattr(obstacles_module, "preload_cuda", lambda: names)
    pretend(machine, FakeDriver(), libraries=present)


def test_onnx_runtime_knows_every_provider_of_the_catalogue() -> None:
    assert {entry.name for entry in CATALOGUE.values()} <= set(ort.get_all_providers())
    assert set(PROVIDERS) == {"auto", *CATALOGUE}


def test_providers_have_names_for_people() -> None:
    assert [title(name) for name in ("TensorrtExecutionProvider", "OddExecutionProvider")] == [
        "TensorRT",
        "OddExecutionProvider",
    ]


def test_importing_the_catalogue_does_not_import_onnx_runtime() -> None:
    import subprocess

    code = "import sys, graftonnx.providers; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_where_everything_is_there_nothing_is_in_the_way(provider: Provider) -> None:
    assert obstacle(provider) is None


class TestPackages:
    def test_two_packages_of_onnx_runtime_overwrite_each_other(
        self, machine: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        install(machine, tmp_path, "onnxruntime")
        assert obstacle("cuda") == (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. Repair it "
            "with: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu."
        )

    def test_three_packages_keep_the_one_that_has_the_provider(
        self, machine: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        install(machine, tmp_path / "a", "onnxruntime")
        install(machine, tmp_path / "b", "onnxruntime-openvino")
        message = obstacle("openvino")
        assert message is not None
        assert message.startswith(
            "onnxruntime and onnxruntime-gpu and onnxruntime-openvino are all installed"
        )
        assert message.endswith("&& pip install onnxruntime-openvino.")

    @pytest.mark.parametrize(
        ("provider", "package"), [("cuda", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino")]
    )
    def test_a_package_without_the_provider(
        self, machine: pytest.MonkeyPatch, provider: Provider, package: str
    ) -> None:
        machine.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
        assert obstacle(provider) == (
            f"the installed onnxruntime-gpu {ort.__version__} is built without {CATALOGUE[provider].title}. "
            f"Replace it with: pip uninstall -y onnxruntime-gpu && pip install {package}."
        )

    @pytest.mark.usefixtures("machine")
    def test_a_provider_that_no_package_has(self) -> None:
        assert obstacle("xnnpack") == (
            f"the installed onnxruntime-gpu {ort.__version__} is built without XNNPACK. Build ONNX Runtime "
            "with it, or ask its vendor for a package."
        )

    @pytest.mark.usefixtures("machine")
    @pytest.mark.parametrize(
        ("provider", "sentence"),
        [
            ("coreml", "Core ML is for macOS, this is Linux."),
            ("directml", "DirectML is for Windows, this is Linux."),
        ],
    )
    def test_a_provider_of_another_system(self, provider: Provider, sentence: str) -> None:
        assert obstacle(provider) == sentence


class TestNvidia:
    def test_no_driver(self, machine: pytest.MonkeyPatch) -> None:
        pretend(machine, None)
        assert obstacle("tensorrt") == (
            f"the NVIDIA driver is missing ({nvidia.DRIVER} cannot be loaded). Install the driver; in a "
            "container, start it with GPU access (docker run --gpus all)."
        )

    def test_a_driver_too_old(self, machine: pytest.MonkeyPatch) -> None:
        pretend(machine, FakeDriver(version=12040), libraries="*")
        assert obstacle("cuda") == (
            "the NVIDIA driver supports CUDA 12, this onnxruntime-gpu is built for CUDA 13.0. "
            "Upgrade the driver, or install an onnxruntime-gpu for CUDA 12."
        )

    def test_no_cuda_libraries(self, machine: pytest.MonkeyPatch) -> None:
        lack(machine, CUBLAS)
        assert obstacle("cuda") == (
            "libcublasLt.so.13, libcublas.so.13 cannot be loaded (this onnxruntime-gpu is built for CUDA "
            '13.0). Install the libraries with: pip install "onnxruntime-gpu[cuda,cudnn]".'
        )

    def test_the_libraries_of_another_cuda_on_the_system(self, machine: pytest.MonkeyPatch) -> None:
        lack(machine, CUBLAS, present="libcudart.so.12 libcudart.so.13")
        assert obstacle("cuda") == (
            "libcublasLt.so.13, libcublas.so.13 cannot be loaded, the libraries found here are those of CUDA "
            "12 (this onnxruntime-gpu is built for CUDA 13.0). Install the libraries with: pip install "
            '"onnxruntime-gpu[cuda,cudnn]".'
        )

    def test_the_libraries_of_another_cuda_that_torch_brought(
        self, machine: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        lack(machine, CUBLAS)
        install(machine, tmp_path / "runtime", "nvidia-cuda-runtime-cu12", "12.6.77")
        pretend_torch(machine, tmp_path / "torch", "12.6")
        message = obstacle("cuda")
        assert message is not None
        assert (
            "the libraries found here are those of CUDA 12, which torch 2.7.0 needs (this onnxruntime-gpu is "
            "built for CUDA 13.0)."
        ) in message

    def test_cudnn_alone_is_missing(self, machine: pytest.MonkeyPatch) -> None:
        """ONNX Runtime would find out with the first convolution."""
        lack(machine, [], present="libcudart.so.12")
        message = obstacle("cuda")
        assert message is not None
        assert message.startswith(f"{nvidia.CUDNN} cannot be loaded (this onnxruntime-gpu is built for CUDA")

    def test_cudnn_for_the_cuda_of_another_torch(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Both cuDNN packages unpack into one folder, under one library name."""
        install(machine, tmp_path / "cudnn", "nvidia-cudnn-cu12", "9.5.1")
        pretend_torch(machine, tmp_path / "torch", "12.6")
        assert obstacle("cuda") == (
            "cuDNN is here for CUDA 12 (nvidia-cudnn-cu12, which torch 2.7.0 needs), this onnxruntime-gpu is "
            "built for CUDA 13.0. Replace it with: pip uninstall -y nvidia-cudnn-cu12 torch && pip install "
            "torch nvidia-cudnn-cu13."
        )

    def test_a_right_cudnn_beside_a_wrong_one(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        install(machine, tmp_path / "a", "nvidia-cudnn-cu12")
        install(machine, tmp_path / "b", "nvidia-cudnn-cu13")
        assert obstacle("cuda") is None

    def test_tensorrt_itself_is_missing(self, machine: pytest.MonkeyPatch) -> None:
        """ONNX Runtime's own provider library is asked which version it needs."""
        pretend(machine, FakeDriver(), libraries=nvidia.CUDNN)
        message = obstacle("tensorrt")
        assert message is not None
        assert message.startswith("TensorRT's libnvinfer.so.10 and libnvonnxparser.so.10 cannot be loaded.")
        assert message.endswith('Install TensorRT with: pip install "tensorrt-cu13==10.*".')

    def test_tensorrt_is_loaded_from_its_package(self, machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
        folder = tmp_path / "tensorrt_libs"
        folder.mkdir()
        (folder / "__init__.py").touch()
        machine.syspath_prepend(tmp_path)
        found = [str(folder / name) for name in ("libnvinfer.so.10", "libnvonnxparser.so.10")]
        pretend(machine, FakeDriver(), libraries=" ".join([*found, nvidia.CUDNN]))
        assert obstacle("tensorrt") is None

    def test_the_names_of_missing_libraries_are_read_from_what_onnx_runtime_prints(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pretend(monkeypatch, None)
        names = preload_cuda()
        assert any("cublas" in name for name in names)
        assert all(nvidia.major(cuda_build()) for name in names)
        assert capfd.readouterr() == ("", "")

    def test_devices(self, machine: pytest.MonkeyPatch) -> None:
        pretend(machine, FakeDriver(devices=2))
        assert nvidia.devices() == [nvidia.Device("NVIDIA Simulated", 8 << 30, "9.0", "0000:0A:00.0")] * 2
        pretend(machine, None)
        assert nvidia.devices() == []

    def test_the_cuda_of_torch_is_read_without_importing_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pretend_torch(monkeypatch, tmp_path, "12.6")
        assert nvidia.torch_cuda() == "12.6"


class TestSettings:
    def test_float32_means_float32_on_cuda(self) -> None:
        assert chain("cuda", Settings(), IMAGE) == [
            ("CUDAExecutionProvider", {"use_tf32": "0"}),
            ("CPUExecutionProvider", {}),
        ]

    def test_what_is_given_wins_and_session_entries_are_apart(self) -> None:
        given = {"use_tf32": "1", "gpu_mem_limit": "1000", "prefer_nhwc": "1", "ep.context_enable": "1"}
        settings = Settings(options=given, cuda_graph=True)
        assert chain("cuda", settings, IMAGE)[0][1] == {
            "use_tf32": "1",
            "gpu_mem_limit": "1000",
            "prefer_nhwc": "1",
            "enable_cuda_graph": "1",
        }
        assert settings.session_entries == {"ep.context_enable": "1"}

    def test_tensorrt_has_a_cache_and_a_profile_and_cuda_behind_it(self) -> None:
        inputs = {"a": ("batch", 3, 8, 8), "fixed": (1, 4), "b": (None, 1, 4, 4)}
        settings = Settings(
            options={"trt_fp16_enable": "1", "device_id": "1", "gpu_mem_limit": "9"},
            cache=Path("cache"),
            batches=(8, 1, 32),
            cuda_graph=True,
        )
        assert chain("tensorrt", settings, inputs) == [
            (
                "TensorrtExecutionProvider",
                {
                    "trt_cuda_graph_enable": "1",
                    "trt_engine_cache_enable": "1",
                    "trt_engine_cache_path": "cache",
                    "trt_timing_cache_enable": "1",
                    "trt_timing_cache_path": "cache",
                    "trt_profile_min_shapes": "a:1x3x8x8,b:1x1x4x4",
                    "trt_profile_opt_shapes": "a:32x3x8x8,b:32x1x4x4",
                    "trt_profile_max_shapes": "a:32x3x8x8,b:32x1x4x4",
                    "trt_fp16_enable": "1",
                    "device_id": "1",
                },
            ),
            ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1", "gpu_mem_limit": "9"}),
            ("CPUExecutionProvider", {}),
        ]

    @pytest.mark.parametrize("inputs", [{"x": (4, 3, 8, 8)}, {"x": ("batch", 3, "height", 8)}])
    def test_no_profile_where_there_is_nothing_to_say(self, inputs: dict[str, tuple[int | str, ...]]) -> None:
        assert chain("tensorrt", Settings(batches=(1, 8)), inputs)[0][1] == {}

    @pytest.mark.parametrize(
        ("provider", "option"),
        [
            ("openvino", "cache_dir"),
            ("coreml", "ModelCacheDirectory"),
            ("migraphx", "migraphx_model_cache_dir"),
        ],
    )
    def test_the_cache_of_other_providers(self, provider: Provider, option: str) -> None:
        assert chain(provider, Settings(cache=Path("kept")), IMAGE)[0][1] == {option: "kept"}

    @pytest.mark.parametrize(
        ("provider", "settings", "sentence"),
        [
            (
                "cpu",
                Settings(options={"use_tf32": "1"}),
                "the provider 'cpu' has no option 'use_tf32'. Leave it out, or name the provider that "
                "has it.",
            ),
            (
                "cuda",
                Settings(cache=Path("x")),
                "CUDA keeps no compiled files. Leave --cache out; it is for tensorrt, openvino, coreml, "
                "migraphx.",
            ),
            (
                "openvino",
                Settings(cuda_graph=True),
                "OpenVINO has no CUDA graphs. Leave them out; they are for cuda, tensorrt.",
            ),
        ],
    )
    def test_what_would_have_no_effect_is_refused(
        self, provider: Provider, settings: Settings, sentence: str
    ) -> None:
        with pytest.raises(RuntimeProviderError) as caught:
            chain(provider, settings, IMAGE)
        assert caught.value.message == sentence


def test_every_option_that_is_set_is_known_to_onnx_runtime() -> None:
    """Its provider libraries hold the names of their options."""
    folder = Path(ort.__file__).parent / "capi"
    settings = Settings(cache=Path("x"), batches=(1, 2), cuda_graph=True)
    for provider, library, ours in (
        ("tensorrt", "tensorrt", chain("tensorrt", settings, IMAGE)[0][1]),
        ("cuda", "cuda", chain("cuda", Settings(cuda_graph=True), IMAGE)[0][1]),
    ):
        file = folder / f"libonnxruntime_providers_{library}.so"
        if not file.is_file():
            pytest.skip(f"this onnxruntime has no {provider} provider")
        content = file.read_bytes()
        assert [name for name in ours if name.encode() not in content] == []
