"""A user's wishes, as the options that each execution provider documents.

| wish | becomes |
|---|---|
| nothing said | CUDA: `use_tf32=0`; every other provider's own defaults |
| `cuda_graph` | CUDA: `enable_cuda_graph`; TensorRT: `trt_cuda_graph_enable` |
| `cache` | TensorRT: `trt_engine_cache_*`, `trt_timing_cache_*`; OpenVINO: `cache_dir`; Core ML: |
| | `ModelCacheDirectory`; MIGraphX: `migraphx_model_cache_dir` |
| `batches` | TensorRT: `trt_profile_*_shapes` |

TF32 rounds the factors of float32 products to 10 bits. ONNX Runtime's CUDA provider uses it unless told
otherwise; here float32 means float32, and `use_tf32=1` asks for the other. TensorRT uses it wherever the
environment does not say `NVIDIA_TF32_OVERRIDE=0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftonnx.errors import RuntimeProviderError
from graftonnx.providers.catalogue import CATALOGUE, Provider

Shape = Sequence[int | str | None]
"""Of an input: numbers where fixed, names (or None) where dynamic."""

_CACHES: dict[Provider, tuple[str, ...]] = {
    "tensorrt": ("trt_engine_cache_path", "trt_timing_cache_path"),
    "openvino": ("cache_dir",),
    "coreml": ("ModelCacheDirectory",),
    "migraphx": ("migraphx_model_cache_dir",),
}
"""The options that name the folder where a provider keeps what it has compiled."""

_GRAPHS: dict[Provider, str] = {"cuda": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}


SETTLE = {"session.force_spinning_stop": "1"}
"""Of a session that takes turns with others: its threads do not spin when its run has ended, in their way."""


@dataclass(frozen=True)
class Settings:
    """How a provider is to run a network, apart from which it is.

    Attributes:
        options: ONNX Runtime's own names and values. A name with a dot is a session's configuration entry
            (`ep.context_enable`, `session.intra_op.allow_spinning`), any other an option of the provider
            (`gpu_mem_limit`, `prefer_nhwc`, `cudnn_conv_algo_search`, `trt_fp16_enable`). They come last, so
            they win.
        cache: Folder in which the provider keeps what it compiles for this network and device.
        batches: Batch sizes that will be run. TensorRT builds one engine for all between the smallest and the
            largest, best for the largest.
        cuda_graph: Record the work of a run once for each batch size and replay it. Needs
            :meth:`graftonnx.runtime.Session.bind`, and every node on the GPU.
        min_coverage: The least share of the network's nodes, 0..1, that must run on the provider.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    batches: tuple[int, ...] = ()
    cuda_graph: bool = False
    min_coverage: float = 0.0

    @property
    def session_entries(self) -> dict[str, str]:
        """The options that configure the session."""
        return {key: value for key, value in self.options.items() if "." in key}

    @property
    def provider_entries(self) -> dict[str, str]:
        """The options of the provider."""
        return {key: value for key, value in self.options.items() if "." not in key}


def chain(
    provider: Provider, settings: Settings, inputs: Mapping[str, Shape]
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers that a session asks one after the other for each node, with their options.

    Args:
        provider: The first of them. TensorRT leaves to CUDA what it cannot do, all leave the rest to the CPU.
        settings: How it is to run.
        inputs: The network's inputs with their shapes, batch first.

    Raises:
        RuntimeProviderError: If the provider has nothing that a setting could mean.
    """
    _check(provider, settings)
    given = settings.provider_entries
    if provider == "cpu":
        return [(CATALOGUE["cpu"].name, {})]
    rest = [(CATALOGUE["cpu"].name, dict[str, str]())]
    if provider == "tensorrt":
        own = {key: value for key, value in given.items() if key.startswith("trt_")}
        shared = {key: value for key, value in given.items() if key not in own}
        device = {key: value for key, value in shared.items() if key == "device_id"}
        cuda = {**_defaults("cuda", Settings(), {}), **shared}
        defaults = _defaults("tensorrt", settings, inputs)
        return [
            (CATALOGUE["tensorrt"].name, {**defaults, **device, **own}),
            (CATALOGUE["cuda"].name, cuda),
            *rest,
        ]
    return [(CATALOGUE[provider].name, {**_defaults(provider, settings, inputs), **given}), *rest]


def _check(provider: Provider, settings: Settings) -> None:
    """Refuse what would have no effect."""
    title = CATALOGUE[provider].title
    if provider == "cpu" and settings.provider_entries:
        names = ", ".join(map(repr, settings.provider_entries))
        raise RuntimeProviderError(
            f"the provider 'cpu' has no option {names}. Leave it out, or name the provider that has it."
        )
    if settings.cache is not None and provider not in _CACHES:
        raise RuntimeProviderError(
            f"{title} keeps no compiled files. Leave --cache out; it is for {', '.join(_CACHES)}."
        )
    if settings.cuda_graph and provider not in _GRAPHS:
        raise RuntimeProviderError(
            f"{title} has no CUDA graphs. Leave them out; they are for {', '.join(_GRAPHS)}."
        )


def _defaults(provider: Provider, settings: Settings, inputs: Mapping[str, Shape]) -> dict[str, str]:
    """Return the options that the settings come to."""
    options: dict[str, str] = {}
    if provider == "cuda":
        options["use_tf32"] = "0"
    if settings.cuda_graph:
        options[_GRAPHS[provider]] = "1"
    if settings.cache is not None:
        options.update(dict.fromkeys(_CACHES[provider], str(settings.cache)))
    if provider == "tensorrt":
        if settings.cache is not None:
            options |= {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
        options |= _profile(settings.batches, inputs)
    return options


def _profile(batches: Sequence[int], inputs: Mapping[str, Shape]) -> dict[str, str]:
    """Return TensorRT's range of input shapes: `{"trt_profile_min_shapes": "x:1x3x8x8,...", ...}`.

    Empty where there is nothing to say: no batch size, or no input whose batch alone is dynamic.
    """
    open_inputs = {
        name: shape for name, shape in inputs.items() if not all(isinstance(n, int) for n in shape)
    }
    if not batches or not open_inputs:
        return {}
    if any(not all(isinstance(extent, int) for extent in shape[1:]) for shape in open_inputs.values()):
        return {}
    sizes = {"min": min(batches), "opt": max(batches), "max": max(batches)}
    return {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, (size, *shape[1:])))}" for name, shape in open_inputs.items()
        )
        for which, size in sizes.items()
    }
