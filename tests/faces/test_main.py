"""The command as a whole: help, version, loading of modules, the reference, the demo."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

import perdure as package
from perdure.faces.cli.endings import ExitCode
from perdure.faces.cli.examples import EXAMPLES
from perdure.faces.cli.main import app
from tests.faces.conftest import Perdure

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_help_lists_every_command_and_exit_code(perdure: Perdure) -> None:
    answer = perdure("--help")

    assert answer.code == 0
    for name in COMMANDS:
        assert f"  {name} " in answer.out
    said = " ".join(answer.out.partition("Exit codes:")[2].split())
    for code in ExitCode:
        assert f"{code.value} " in said


def test_what_each_command_is_for_fits_its_line(perdure: Perdure) -> None:
    lists = [perdure("--help").out, perdure("dead", "--help").out, perdure("schema", "--help").out]

    told = [line for text in lists for line in text.partition("Commands:")[2].splitlines()]
    assert [line for line in told if line.endswith("...")] == []


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_examples_of_the_help_can_be_given(line: str) -> None:
    command: Any = typer.main.get_command(app)
    called, *words = shlex.split(line)

    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]

    assert called == "perdure"
    assert command.make_context(line, words).params


def test_help_shows_its_examples(perdure: Perdure) -> None:
    shown = {name: perdure(*name.split(), "--help").out for name in EXAMPLES}

    assert all(f"  {line}\n" in shown[name] for name, lines in EXAMPLES.items() for line in lines)


def test_no_arguments_show_the_help(perdure: Perdure) -> None:
    answer = perdure()

    assert "Usage: perdure" in answer.out + answer.err


def test_the_version_is_that_of_the_package(perdure: Perdure) -> None:
    answer = perdure("--version")

    assert answer.out == f"perdure {package.__version__}\n"


def test_help_does_not_load_what_only_commands_need() -> None:
    program = (
        "import sys; from perdure.faces.cli.main import app; app(['--help'], standalone_mode=False);"
        "print(*sys.modules, file=sys.stderr)"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"rich.table", "rich.console", "rich.progress", "sqlite3"} & set(answer.stderr.split())


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("shap:plus", "There is no module 'shap'", "Did you mean shop?"),
        ("shop:puls", "Module 'shop' has no workflow 'puls'", "Did you mean plus?"),
        ("shop:add_one", "'add_one' in module 'shop' is a Step, and not a workflow", ""),
        ("shop", "Module 'shop' has 8 workflows, and no name was given", ""),
        ("none/shop.py:plus", "There is no file 'none/shop.py'", ""),
        ("nothing:plus", "There is no module 'nothing'", "A module is named as it would be imported here"),
        ("no-name:plus", "'no-name' is no module's name", "A module is named as it would be imported here"),
        ("broken:plus", "Module 'broken' cannot be imported: ZeroDivisionError: division by zero", "--debug"),
        ("lacking:plus", "Module 'lacking' cannot be imported: ModuleNotFoundError", "--debug"),
    ],
)
def test_a_target_that_cannot_be_loaded_is_told_with_a_hint(
    perdure: Perdure, project: Path, target: str, message: str, hint: str
) -> None:
    (project / "broken.py").write_text("1 / 0\n")
    (project / "lacking.py").write_text("import not_there_at_all\n")

    answer = perdure("run", target, "--input", "1")

    assert answer.code == 2
    assert message in answer.err
    assert f"hint: {hint}" in answer.err
    assert not (project / "perdure.db").exists()


def test_the_reference_lists_every_command_option_and_exit_code(checkout: Path) -> None:
    text = (checkout / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

    sections = {part.partition("`")[0]: part for part in text.split("\n## `")[1:]}
    missing = [
        f"{name} {option}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if parameter.param_type_name == "option"
        and parameter.name not in ("store", "as_json", "debug", "help")
        for option in parameter.opts
        if f"`{option}`" not in sections.get(name, "")
    ]

    assert sections.keys() == COMMANDS.keys()
    assert missing == []
    for code in ExitCode:
        assert f"\n| {code.value} | " in text


@pytest.mark.slow
def test_the_demo_is_killed_goes_on_and_loses_and_doubles_nothing(perdure: Perdure, project: Path) -> None:
    answer = perdure("demo", "--folder", str(project / "demo"), "--json")

    assert answer.code == 0
    assert answer.json["ok"] is True
    assert (answer.json["effects"], answer.json["doubled"], answer.json["runs"]) == (36, 0, {"completed": 12})
    assert "Nothing was lost and nothing doubled." in answer.err
    assert perdure("list", "--store", str(project / "demo" / "perdure.db")).code == 0
