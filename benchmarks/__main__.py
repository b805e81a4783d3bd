"""`python -m benchmarks [ONLY]`: measures, prints a table, records benchmarks/results/NAME.json."""

import json
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import result
from benchmarks.result import Result

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- recorded -->", "<!-- /recorded -->"
SUPPORT = frozenset({"city_feed", "intersections", "mqtt_load", "result", "senders", "stack"})

console = Console()


def names() -> list[str]:
    """Every benchmark: the modules of this folder that are not support; no registry."""
    found = (path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return sorted(set(found) - SUPPORT)


def measure(name: str) -> Iterator[Result]:
    """The results of one benchmark, as they come; its run() returns one or several."""
    with console.status(f"measuring {name}"):
        returned = import_module(f"benchmarks.{name}").run()
        yield from [returned] if isinstance(returned, Result) else returned


def number(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def row(one: Result) -> list[str]:
    """One line of the table, with the recorded value that it takes the place of."""
    recorded = result.before(one.name)
    was = number(recorded["value"]) if recorded else ""
    spread = " to ".join(number(v) for v in one.spread) if one.spread else ""
    ratio = f"{number(one.ratio)} × {one.ratio_to}" if one.ratio is not None else ""
    verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[one.met]
    goal = f"{one.goal} {verdict}" if one.goal else ""
    return [one.name, f"{number(one.value)} {one.unit}", spread, was, ratio, goal]


def recorded() -> str:
    """Every recorded result as a Markdown table."""
    lines = ["| result | value | spread | ratio | goal |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(result.RESULTS.glob("*.json")):
        one = json.loads(path.read_text("utf-8"))
        spread = " to ".join(number(v) for v in one["spread"]) if one["spread"] else ""
        ratio = "" if one["ratio"] is None else f"{number(one['ratio'])} × {one['ratio_to']}"
        goal = "" if one["goal"] is None else f"{one['goal']}: {'met' if one['met'] else 'missed'}"
        value = f"{number(one['value'])} {one['unit']}"
        lines.append(f"| `{one['name']}` | {value} | {spread} | {ratio} | {goal} |")
    return "\n".join(lines)


def write_table() -> None:
    """README tells what results/ holds."""
    text = README.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    README.write_text(f"{before}{begin}\n{recorded()}\n{end}{after}", "utf-8")


def main(arguments: list[str]) -> int:
    """0 when everything was measured, whether or not its goal is met; 1 when something failed."""
    wanted = arguments or names()
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        console.print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
        return 2
    table = Table("benchmark", "value", "spread", "before", "ratio", "goal")
    failed = []
    for name in wanted:
        on = result.machine()
        try:
            for one in measure(name):
                table.add_row(*row(one))
                result.write(one, on)
        except Exception:  # noqa: BLE001 - one that fails must not lose the results of the others
            console.print(traceback.format_exc(), markup=False)
            failed.append(name)
    write_table()
    console.print(table)
    if failed:
        console.print(f"[red]not measured:[/] {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
