"""What a measurement found, as values that become JSON."""

from __future__ import annotations

from graftonnx.metadata import Record


class Figures(Record):
    """One contender at one batch size. Times in seconds.

    Attributes:
        contender: Its name.
        batch: Images at once.
        runs: How many runs were timed, in all streams together.
        p50: Median latency of a run.
        p90: The latency that nine of ten runs stay within.
        p99: The latency that 99 of 100 runs stay within; None with fewer than 100 runs.
        mean: Mean latency.
        images_per_second: Of all streams together.
        cpu_seconds: CPU time of this process for one run, all threads together; median of the rounds.
        memory: Peak of the main memory, bytes, of a process that runs this contender alone, up to this batch
            size; None where the system does not tell.
        memory_before: What that process had before it opened the networks: Python and the libraries.
        device_memory: What the GPU's memory grew by meanwhile, bytes; None without an NVIDIA GPU.
        joules: Energy of the GPU for one image, idle draw included; None where the card does not tell.
    """

    contender: str
    batch: int
    runs: int
    p50: float
    p90: float
    p99: float | None
    mean: float
    images_per_second: float
    cpu_seconds: float
    memory: int | None = None
    memory_before: int | None = None
    device_memory: int | None = None
    joules: float | None = None


class Ratio(Record):
    """How long one contender takes, as a multiple of another's time in the same round.

    Attributes:
        contender: The one.
        rival: The other.
        batch: Images at once.
        median: Median of the rounds; below 1 the contender is faster.
        low: First quartile of the rounds.
        high: Third quartile of the rounds.
        cpu: The ratio of their CPU times, median of the rounds.
    """

    contender: str
    rival: str
    batch: int
    median: float
    low: float
    high: float
    cpu: float


class Benchmark(Record):
    """The result of :func:`graftonnx.benchmark`.

    Attributes:
        contenders: For each contender the files that it runs.
        coverage: For each contender, and each of its files, which nodes ran where.
        provider: Where they ran.
        fallback: Why `auto` did not take CUDA although an NVIDIA driver is installed; None otherwise.
        options: Options of the provider in force, by ONNX Runtime's names.
        threads: CPU threads within an operator; 0 if ONNX Runtime chose.
        streams: Runs of a contender at the same time.
        io: How inputs and outputs are handed over: `arrays`, `bound` or `resident`.
        rounds: Rounds at most.
        warm_up: Rounds that are not counted.
        data: Where the images are from; None for random numbers.
        cores: CPU cores that this process may use.
        versions: Of graftonnx and ONNX Runtime.
        figures: One for each contender and batch size.
        ratios: The networks against their rivals, for each batch size.
    """

    contenders: dict[str, tuple[str, ...]]
    coverage: dict[str, tuple[str, ...]]
    provider: str
    fallback: str | None
    options: dict[str, str]
    threads: int
    streams: int
    io: str
    rounds: int
    warm_up: int
    data: str | None
    cores: int
    versions: dict[str, str]
    figures: tuple[Figures, ...]
    ratios: tuple[Ratio, ...]
