"""Help with the options in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich_click import RichCommand, RichHelpConfiguration, command, option_panel

CONFIG = RichHelpConfiguration(
    style_options_panel_box="SIMPLE_HEAD",
    range_string="",
    options_table_column_types=["opt_all_metavar", "help"],
)


def grouped(panels: dict[str, list[str]]) -> Callable[[Callable[..., Any]], RichCommand]:
    """Return `@click.command()` whose help shows options in groups.

    Args:
        panels: Title of each group, and its options; those in no group come first.
    """

    def decorate(function: Callable[..., Any]) -> RichCommand:
        for title, options in reversed(panels.items()):
            function = option_panel(title, options=options)(function)
        made: RichCommand = command(context_settings={"rich_help_config": CONFIG})(function)
        return made

    return decorate
