"""What our HTML pages have in common: one style sheet, how templates are read, how data and scripts go in.

A page holds all it needs and loads nothing. Its policy lets it run no script but its own, by its hash, and
data goes in as JSON that no name can break out of.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from graftonnx.printable import printable

DASH, TIMES = "\u2013", " \u00d7 "


def render(
    package: str, template: str, filters: Mapping[str, Callable[..., Any]] | None = None, /, **values: Any
) -> str:
    """Return a page, or a part of one.

    Args:
        package: Whose folder `templates` holds the template; it may include ours, as `base.css`.
        template: Its name.
        filters: More filters for the template.
        **values: What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(__name__)]),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, short=short, breakable=breakable, **(filters or {}))
    return environment.get_template(template).render(**values)


def _visible(value: Any) -> Any:
    """Return what a value reads, with what is not seen, or turns what is around it, spelt out.

    Markup and numbers stay as they are.
    """
    return value if isinstance(value, Markup | int | float) else printable(str(value))


def read_template(package: str, name: str) -> str:
    """Return the text of a file in a package's folder `templates`."""
    return (importlib.resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def read_scripts(package: str, names: Iterable[str]) -> str:
    """Return the script that some files of a package's folder `templates` make together, in strict mode."""
    return "\n".join(['"use strict";\n', *(read_template(package, name) for name in names)])


def embedded(data: Any) -> Markup:
    """Return data as JSON for `<script type="application/json">`, which no text in it can end."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def policy(script: str) -> str:
    """Return a Content-Security-Policy that lets a page run one script, and load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@functools.cache
def palette() -> dict[str, str]:
    """Return the colours of the light scheme by name, without the dashes: `ink` -> `#1b1e22`."""
    root = read_template(__name__, "base.css").split("}", 1)[0]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", root))


def percent(value: float | None, digits: int = 2) -> str:
    """Return a share as 12.34%; a dash for none."""
    return DASH if value is None else f"{value:.{digits}%}"


def short(value: float) -> str:
    """Return a large number in thousands, millions or billions: 23.4 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def breakable(name: str) -> Markup:
    """Return a long name with places where a line may break: after dots, slashes and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[./_])", printable(name)))
