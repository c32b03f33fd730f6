"""Bring any network to one internal form, step by step; each step works on a skeleton without weights.

| step | module |
|---|---|
| local functions inlined, one opset | `opset` |
| numbers of a quantised network to floats | `quantization` |
| 16-bit floats to 32 bits | `dtypes` |
| constants as initializers, constant parts computed | `constants` |
| channels-last input to `[N, C, H, W]` | `layout` |
| regions between Transposes likewise | `transposes` |
| dynamic batch | `batch` |
| another input size | `extents` |
| shapes of every value | `inference` |
"""
