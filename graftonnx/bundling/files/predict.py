"""Classify images: `python predict.py photo.jpg`. Without images: check the bundle by its selfcheck."""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is imported: it sends events
import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

HERE = Path(__file__).parent
BUNDLE = json.loads((HERE / "bundle.json").read_text("utf-8"))
LABELS = (HERE / "labels.txt").read_text("utf-8").splitlines()


def decode(path):  # RGB, uint8 [H, W, 3]: upright, on white, stretched
    with Image.open(path) as file:
        file.draft(None, (2 * max(BUNDLE["size"]),) * 2)
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB").resize(BUNDLE["size"][::-1], Image.Resampling.BILINEAR))


def feed(pixels, rule):  # what an input takes of it: [1, C, H', W'] or [1, H', W', C]
    image = np.float32(pixels) / 255 @ np.float32(rule["matrix"]) + np.float32(rule["offset"])
    planes = [Image.fromarray(x.T).resize(rule["size"][::-1], Image.Resampling.BILINEAR) for x in image.T]
    image = np.stack(planes, axis=2 if rule["layout"] == "nhwc" else 0)[None]
    return (np.rint(image) if rule["type"] == "uint8" else image).astype(rule["type"])


def classify(session, pixels):  # probabilities, [K]
    return session.run(None, {name: feed(pixels, rule) for name, rule in BUNDLE["inputs"].items()})[0][0]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("images", nargs="*")
parser.add_argument("--precision", choices=BUNDLE["models"], default=next(iter(BUNDLE["models"])))
given = parser.parse_args()
network = ort.InferenceSession(HERE / f"models/{given.precision}.onnx", providers=["CPUExecutionProvider"])
for name in given.images:
    answer = classify(network, decode(name))
    print(f"{name}\t{LABELS[answer.argmax()]}\t{answer.max():.6f}")
if not given.images:
    check = np.load(HERE / f"selfcheck/{given.precision}.npz")
    images = [decode(HERE / "selfcheck/example.png"), *np.load(HERE / "selfcheck/inputs.npz")["images"][1:]]
    off = np.abs([classify(network, x) for x in images] - check["probabilities"]).max()
    print(f"probabilities differ by {off:.1e} from the recorded ones; {check['tolerance']:.0e} is allowed")
    raise SystemExit(not off <= check["tolerance"])
