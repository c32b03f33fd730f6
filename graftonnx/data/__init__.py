"""Labelled images from wherever they are: what there is, which images train, and their pixels at one size.

| module | what it knows |
|---|---|
| `opening` | which of the formats a path is |
| `folders`, `archives` | class folders, on the disk and in a zip or tar file |
| `manifests` | CSV and Parquet tables of paths and labels |
| `arrays`, `strips` | NumPy archives, idx files; CIFAR as one image strip a class |
| `hub` | everything that the `datasets` library reads |
| `splits` | which images train, validate, test; few-shot subsets |
| `cache` | decoded pixels, in memory or in a mapped file; which images are bad, which occur twice |
| `catalogue` | what all of them give: samples, and how to get an image |
"""
