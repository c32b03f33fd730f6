"""The findings, against what the other commands say of the same network and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftonnx.classifier import open_classifier
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.evaluation import evaluate, select
from graftonnx.images import decode_many
from graftonnx.training.report import validation
from graftonnx.training.report.validation import Findings, examine
from graftonnx.training.run import RunFolder


def findings_of(run: RunFolder) -> Findings:
    return Findings.model_validate_json(run.findings.read_text(encoding="utf-8"))


def test_counts_as_eval_does(finished: RunFolder) -> None:
    record = finished.read()
    expected = evaluate(
        open_classifier(finished.path, provider="cpu"), select(record.data, None, source=finished.path)
    )
    found = findings_of(finished).evaluation
    assert found.labels == expected.labels
    assert found.confusion.tolist() == expected.confusion.tolist()
    assert found.top5_hits == expected.top5_hits
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_mistakes_are_wrong_named_and_the_most_confident_first(finished: RunFolder) -> None:
    mistakes = findings_of(finished).mistakes
    record, split = finished.read(), read_split(finished.split, open_data(finished.read().data))
    assert len(mistakes) >= 1
    assert [m.probability for m in mistakes] == sorted((m.probability for m in mistakes), reverse=True)
    true = {sample.name: split.classes[sample.label] for sample in split.val}
    paths = [Path(record.data) / mistake.image for mistake in mistakes]
    for mistake, prediction in zip(
        mistakes, open_classifier(finished.path, provider="cpu").predict(paths), strict=True
    ):
        assert prediction.probabilities is not None
        assert mistake.true == true[mistake.image] != mistake.predicted
        assert mistake.predicted == record.labels[int(prediction.probabilities.argmax())]
        assert mistake.probability == pytest.approx(float(prediction.probabilities.max()), rel=1e-5)


def test_neither_batches_nor_the_limit_change_what_comes_first(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = read_split(finished.split, open_data(finished.read().data))
    pixels = decode_many([Path(finished.read().data) / s.name for s in split.val], (16, 16))
    labels = np.array([s.label for s in split.val])
    names = [s.name for s in split.val]
    monkeypatch.setattr(validation, "MOST_MISTAKES", 1)
    for size in (1, len(names)):
        batches = ((pixels[i : i + size], labels[i : i + size]) for i in range(0, len(names), size))
        found, pictures = examine(finished.model, batches, names, split.classes, "cpu")
        assert found.confusion == findings_of(finished).confusion
        assert [mistake.image for mistake in found.mistakes] == [findings_of(finished).mistakes[0].image]
        assert np.array_equal(pictures[0], pixels[names.index(found.mistakes[0].image)])
