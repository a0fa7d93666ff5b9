"""Records of options: what commands take, and what their fields come to."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from free.cli.records import DraftingOptions, with_records

OWN = {"window": 16, "sweeps": 1, "recycle": "response"}
PAPERS = {"window": 8, "sweeps": None, "recycle": False, "verifier": "reflection"}


@dataclass(frozen=True)
class _Pair:
    """Two options."""

    left: Annotated[int, typer.Option(help="On one side.")] = 1
    swap: Annotated[bool, typer.Option("--swap", help="Exchange them.")] = False


def test_each_field_of_a_record_is_an_option() -> None:
    calls: list[tuple[str, _Pair, int]] = []
    app = typer.Typer()

    @app.command()
    @with_records
    def command(
        name: Annotated[str, typer.Argument()],
        *,
        pair: _Pair,
        right: Annotated[int, typer.Option()],
    ) -> None:
        """Its own help."""
        calls.append((name, pair, right))

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments)

    assert invoke("x", "--right", "2").exit_code == 0
    assert invoke("y", "--swap", "--left", "5", "--right", "3").exit_code == 0
    assert calls == [("x", _Pair(), 2), ("y", _Pair(5, swap=True), 3)]
    assert invoke("x").exit_code == 2  # an option that has no default is missed
    text = invoke("--help").output
    assert all(part in text for part in ("Its own help.", "On one side."))
    assert "--no-swap" not in text


def test_settings_of_drafting() -> None:
    for options, expected in (
        ({}, OWN | {"verifier": "reflection"}),
        ({"paper": True}, PAPERS),
        ({"paper": True, "window": "4"}, PAPERS | {"window": 4}),
        ({"paper": True, "window": "auto"}, PAPERS | {"window": "auto"}),
        ({"window": "auto"}, OWN | {"window": "auto", "sweeps": "auto", "verifier": "reflection"}),
        ({"window": "auto", "sweeps": "2"}, OWN | {"window": "auto", "sweeps": 2}),
        ({"sweeps": "autoregression", "recycle": "off"}, OWN | {"sweeps": None, "recycle": False}),
        ({"sweeps": "2", "recycle": "best"}, OWN | {"sweeps": 2, "recycle": "response"}),
        ({"sweeps": "0"}, OWN | {"sweeps": 0}),
        ({"recycle": "reuse"}, OWN | {"recycle": "reuse"}),
        ({"verifier": "block"}, OWN | {"recycle": False, "verifier": "block"}),
        ({"verifier": "block", "recycle": "reuse"}, {"recycle": "reuse"}),  # refused later
    ):
        settings = DraftingOptions(**options).settings(OWN)
        assert {name: settings[name] for name in expected} == expected
        assert set(settings) == set(PAPERS)
    # A drafter that recommends nothing drafts like the paper's.
    assert DraftingOptions().settings({}) == PAPERS


def test_drafting_that_is_refused() -> None:
    for options, message in (
        (
            {"paper": True, "sweeps": "1"},
            "--paper must come without --sweeps, --recycle and --verif",
        ),
        ({"paper": True, "verifier": "block"}, "--paper must come without"),
        ({"recycle": "all"}, "--recycle must be one of response, .*, best or off, got 'all'"),
        ({"sweeps": "-1"}, "--sweeps must be an integer >= 0 or autoregression, got '-1'"),
        ({"window": "0"}, "--window must be an integer >= 1 or auto, got '0'"),
        ({"window": "1.5"}, "--window must be an integer >= 1 or auto, got '1.5'"),
    ):
        with pytest.raises(ValueError, match=message):
            DraftingOptions(**options).settings(OWN)
