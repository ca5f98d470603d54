"""Each benchmark runs and prints its figures. How large they are is not judged here: machines differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FIGURES = {
    "throughput": {"throughput"},
    "sequential": {"sequential step"},
    "start_to_result": {"start to result, p50", "start to result, p99"},
    "sleepers": {
        "500 sleepers started",
        "500 sleepers, each in memory",
        "500 sleepers, each evicted",
        "1,000 on file",
        "1,000 on file, reopened",
    },
    "recovery": {"recovery of 100 runs"},
    "restart": {"restart after kill -9"},
    "replay": {
        "replay, one by one",
        "replay, one by one, t(2n)/t(n)",
        "replay, gather",
        "replay, gather, t(2n)/t(n)",
    },
    "explore": {"explore"},
    "crash_everywhere": {"crash runs of ten steps"},
    "deploy_check": {"deploy-check of 100 runs", "the same, none fits"},
    "busy_loop": {"busy loop, worst commit"},
    "payloads": {"step with 100 B", "step with 10 kB", "step with 1 MB"},
    "growth": {"file growth per step", "written per step, one by one"},
    "import_time": {"import perdure"},
    "postgres": {
        "throughput on PostgreSQL",
        "written per step on PostgreSQL",
        "rows per step on PostgreSQL",
        "sequential step on PostgreSQL",
        "idle worker on PostgreSQL",
    },
    "claims": {
        f"{what}, {store}"
        for what in ("started by a client and ended", "claimed from the dead and ended", "larger share")
        for store in ("PostgreSQL", "SQLite")
    },
    "failover": {
        f"{what} on {store}, {part}"
        for what in ("failover", "signal to another process")
        for store in ("PostgreSQL", "SQLite")
        for part in ("p50", "p99")
    },
    "crowded": {"list 100 of 2,000 runs, slowest filter", "throughput beside 2,000 runs"},
    "check": {"check of a workflow, as it is decorated", "100 modules with one workflow", "perdure check"},
}


def bench(folder: Path, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=checkout,
        env={**os.environ, "PERDURE_BENCH_CACHE": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_benchmark_prints_its_figures_beside_their_limits(
    name: str, tmp_path: Path, checkout: Path
) -> None:
    answer = bench(tmp_path, checkout, name, "--quick", "--json")

    assert answer.returncode == 0, answer.stderr + answer.stdout
    found: list[dict[str, Any]] = json.loads(answer.stdout)["figures"]
    assert {figure["figure"] for figure in found} == FIGURES[name]
    assert [figure for figure in found if not (figure["value"] > 0 and figure["limit_value"] > 0)] == []
    assert not list(tmp_path.iterdir()), "the files are left behind"


@pytest.mark.slow
def test_the_table_has_a_line_for_each_figure_and_one_for_the_machine(tmp_path: Path, checkout: Path) -> None:
    answer = bench(tmp_path, checkout, "sequential", "import_time", "--quick", "--markdown")

    machine, table = answer.stdout.split("\n\n")
    assert machine.startswith("cores ")
    lines = [line.strip("| ").split("|")[0].strip() for line in table.strip().splitlines()[2:]]
    assert lines == ["sequential step", "import perdure"]


def test_an_unknown_benchmark_is_refused_with_the_names_there_are(tmp_path: Path, checkout: Path) -> None:
    answer = bench(tmp_path, checkout, "speed")

    assert answer.returncode == 2
    assert all(name in answer.stderr for name in FIGURES)


def test_the_page_has_a_place_for_each_table(checkout: Path) -> None:
    from bench.report import fill

    page = (checkout / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    filled = fill(fill(page, "figures", "ours"), "peers", "theirs")

    assert "<!-- bench:figures -->\nours\n<!-- /bench:figures -->" in filled
    assert "<!-- bench:peers -->\ntheirs\n<!-- /bench:peers -->" in filled


def test_the_simulation_of_many_workers_is_the_same_for_a_seed_and_loses_no_run() -> None:
    from bench.simulated_claims import Setting, simulate

    setting = Setting(20, starts_per_second=50, deaths=2, runs_of_each=30, seconds=6)

    found = simulate(setting)

    assert found == simulate(setting)
    assert len(found.taken_up_s) == sum(found.claims.values())
    assert found.left < 5
    assert len(found.taken_up_s) > 2 * 30 + 50 * 5


def test_a_simulated_server_is_asked_more_where_every_worker_hears_of_each_start() -> None:
    from bench.simulated_claims import Setting, simulate

    all_hear = simulate(Setting(100, starts_per_second=50, seconds=2))
    three_hear = simulate(Setting(100, starts_per_second=50, seconds=2, hint_reaches=3))

    assert all_hear.statements > 5 * three_hear.statements
