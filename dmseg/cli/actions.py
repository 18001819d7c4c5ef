"""The actions of ``dmseg data`` and ``dmseg runs``."""

from dmseg.cli.description import Command, Key, Section, pick
from dmseg.cli.keys import DATA_SECTION, PLUGINS, PREPARED, QUIET

RUN_FILTERS = Section(
    "Which runs",
    (
        Key("ID", "", "a run by its id or the beginning of it; several are allowed"),
        Key("status", "NAME,...", "done, running, failed, interrupted or damaged"),
        Key("data", "NAME,...", "runs on these data sets"),
        Key("task", "NAME,...", "runs on these tasks"),
        Key("labels", "NAME,...", "runs with these labels"),
        Key("model", "NAME,...", "runs with these networks"),
        Key("loss", "NAME,...", "runs with these losses"),
        Key("method", "NAME,...", "runs with these methods"),
        Key("fold", "N,...", "runs of these folds"),
        Key("seed", "N,...", "runs with these seeds"),
        Key("experiment", "ID", "all folds of one configuration"),
        Key("paths.results", "FOLDER", "the results folder", "(all folders below results/)"),
    ),
)

RUNS_ACTIONS = {
    "list": Command(
        "List runs with their scores.",
        "Prints one line for each run: id, status, data set and configuration, mean scores, and minutes of training.",
        "dmseg.cli.runs:list_runs",
        (RUN_FILTERS,),
        (
            ("dmseg runs list", "all runs below results/"),
            ("dmseg runs list status=failed,damaged paths.results=results/lidc", "runs that need attention"),
        ),
        composes=False,
    ),
    "show": Command(
        "Show one run: settings, scores, versions, teachers.",
        "Prints everything that is recorded about one run as JSON; for a run that is not done, the status and the path "
        "of the log.",
        "dmseg.cli.runs:show_run",
        (RUN_FILTERS,),
        (
            ("dmseg runs show 3f9a", "the run whose id begins with 3f9a"),
            ("dmseg runs show labels=uniform fold=0 paths.results=results/lidc", "the only run with these settings"),
        ),
        composes=False,
    ),
    "verify": Command(
        "Compare all files of runs with their checksums.",
        "Reads every file of the runs, weights and predictions included, and compares it with its checksum. The exit "
        "status is 1 if a run is damaged.",
        "dmseg.cli.runs:verify_runs",
        (
            Section("Action", (Key("aside", "true", "move damaged runs to the folder damaged", "false"), QUIET)),
            RUN_FILTERS,
        ),
        (
            ("dmseg runs verify", "all runs below results/"),
            ("dmseg runs verify aside=true paths.results=results/lidc", "also move damaged runs out of the way"),
        ),
        composes=False,
    ),
    "prune": Command(
        "Remove what no run needs, or whole runs.",
        "Lists what may be removed: temporary files of processes that have ended, checkpoints and logs of finished "
        "runs, and damaged runs that were set aside. With a filter, the runs that match it are listed too; if none "
        "matches, nothing is listed. Nothing is removed without confirm=true.",
        "dmseg.cli.runs:prune_runs",
        (Section("Action", (Key("confirm", "true", "remove what is listed", "false"), QUIET)), RUN_FILTERS),
        (
            ("dmseg runs prune", "list what may be removed"),
            ("dmseg runs prune seed=1 confirm=true", "remove leftovers and all runs with seed 1"),
        ),
        composes=False,
    ),
}

DATA_ACTIONS = {
    "status": Command(
        "Show which data sets are on disk, and their licences.",
        "Prints for each data set how many cases are complete, which files are missing, the licence, and where to get "
        "the data. No image is read.",
        "dmseg.cli.data:print_status",
        (
            Section(
                "Data",
                (
                    Key("data", "NAME", "only this data set", "(all)"),
                    *pick(DATA_SECTION, "data.root", "paths.data"),
                    PLUGINS,
                ),
            ),
        ),
        (
            ("dmseg data status", "all data sets below data/"),
            ("dmseg data status data=kits data.root=kits19/data", "one data set in another folder"),
        ),
    ),
    "verify": Command(
        "Compare prepared stores with their checksums.",
        "Reads every byte of prepared stores and compares it with the checksums. The exit status is 1 if a store is "
        "damaged.",
        "dmseg.cli.data:verify_stores",
        (
            Section(
                "Data",
                (
                    Key("data", "NAME", "only stores of this data set", "(all)"),
                    Key("task", "NAME", "only the store of this task", "(all)"),
                    PREPARED,
                    QUIET,
                ),
            ),
        ),
        (
            ("dmseg data verify", "all stores below data/prepared"),
            ("dmseg data verify data=lidc", "the stores of one data set"),
        ),
    ),
}
