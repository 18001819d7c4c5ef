"""The table at the end: what was tried of each kind, and how it went."""

from collections import Counter, defaultdict

COLUMNS = ("accepted rightly", "refused rightly", "wrong")


def pytest_terminal_summary(terminalreporter):
    counts = defaultdict(Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if name.startswith("fuzz "):
                    counts[name.removeprefix("fuzz ")].update(value)
    if not counts:
        return
    counts["all"] = sum(counts.values(), Counter())
    terminalreporter.write_line("")
    terminalreporter.write_line(f"{'kind':10} {'tried':>8} " + " ".join(f"{name:>17}" for name in COLUMNS))
    for kind, count in counts.items():
        row = " ".join(f"{count[name]:17}" for name in COLUMNS)
        terminalreporter.write_line(f"{kind:10} {count.total():8} {row}")
