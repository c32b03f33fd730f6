"""Classify image files, however many: which files are meant, their likeliest classes, and where those go.

| module | what it knows |
|---|---|
| `listing` | the files that arguments and standard input name |
| `answers` | the likeliest classes of an image |
| `formats` | CSV, JSON, JSON lines and Parquet |
| `journal` | what an interrupted command had answered |
| `writing` | from images to a file, resumable |
"""

from graftonnx.prediction.answers import Answer, Candidate, predict
from graftonnx.prediction.writing import Tally, Written, write_predictions

__all__ = ["Answer", "Candidate", "Tally", "Written", "predict", "write_predictions"]
