"""What is made of the benchmarks' results."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def module(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}_program", ROOT / "bench" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Return bench/all.py, with benchmarks that take no time: name and program."""
    loaded = module("all")
    monkeypatch.setattr(loaded, "REPORTS", tmp_path / "reports")

    def fill(**programs):
        benches = {}
        for name, program in programs.items():
            (tmp_path / f"{name}.py").write_text(program.replace("REPORTS", repr(str(loaded.REPORTS))))
            benches[name] = (name, (str(tmp_path / f"{name}.py"),))
        monkeypatch.setattr(loaded, "BENCHES", benches)
        return loaded

    return fill


WRITES = "import pathlib; pathlib.Path(REPORTS, 'NAME').write_text('TEXT'); print('| table |')"


def test_figures_are_kept_as_figures_and_tables_for_people(bench):
    one = bench(
        good=WRITES.replace("NAME", "bench-good.json").replace("TEXT", '[{"rate": 5}]'),
        lines=WRITES.replace("NAME", "bench-lines.jsonl").replace("TEXT", '{"outage_s": 1}\\n{"outage_s": 2}\\n'),
    )
    assert one.main([]) == 0
    told = json.loads((one.REPORTS / "bench.json").read_text())
    assert [result["figures"] for result in told["results"]] == [[{"rate": 5}], [{"outage_s": 1}, {"outage_s": 2}]]
    assert "| table |" not in (one.REPORTS / "bench.json").read_text()
    assert (one.REPORTS / "bench.md").read_text().count("| table |") == 2


def test_a_failed_benchmark_counts_and_has_no_figures_of_an_earlier_run(bench):
    one = bench(bad="raise SystemExit(1)", good="")
    one.REPORTS.mkdir()
    (one.REPORTS / "bench-bad.json").write_text("[1]")
    assert one.main([]) == 1
    bad, good = json.loads((one.REPORTS / "bench.json").read_text())["results"]
    assert (bad["exit_code"], bad["figures"]) == (1, None)
    assert good["exit_code"] == 0


def test_each_benchmark_is_started_as_it_wants_to_be(monkeypatch):
    commands = module("all").BENCHES.values()
    assert all((ROOT / "bench" / command[0]).exists() for _, command in commands)
    ((name, *arguments),) = [command for _, command in commands if command[0] == "database.py"]
    database, runs = module("database"), []
    monkeypatch.setattr(database, "failures", lambda *given: not runs.extend(given))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        database.main()
    assert ended.value.code == 0
    assert runs == [1, []]


def test_a_missing_program_is_named_with_the_way_to_get_it(monkeypatch):
    programs = module("programs")
    monkeypatch.setattr(programs.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="wrk is missing; install it: apt-get update && apt-get install wrk"):
        programs.need("wrk")
