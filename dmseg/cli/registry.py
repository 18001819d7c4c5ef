"""The commands of ``dmseg``: their functions and help texts."""

from dataclasses import replace

from dmseg.cli.actions import DATA_ACTIONS, RUN_FILTERS, RUNS_ACTIONS
from dmseg.cli.description import Command, Key, Section, pick
from dmseg.cli.keys import (
    CV_TRAINING_SECTION,
    DATA,
    DATA_SECTION,
    FOLDS_SECTION,
    MODEL_SECTION,
    PLUGINS,
    PREPARED,
    QUIET,
    RAW_DATA,
    RESULTS,
    SWEEP_SECTION,
    TABLE_DATA_SECTION,
    TABLE_STUDY_SECTION,
    TABLES_SECTION,
    TESTS_SECTION,
    TRAINING_SECTION,
    WHERE_SECTION,
    WORKERS,
)

EXPORT_SECTION = Section(
    "Export", (Key("from", "FOLDER", "an export to read instead of a store; takes no keys of the study"),)
)
FIGURE = Key("figure", "NAME", "a figure: 1, soft-labels or calibration")
FILES_SECTION = Section("Files", (WORKERS, RESULTS, QUIET, PLUGINS))

COMMANDS = {
    "prepare": Command(
        "Prepare a data set: raw files to arrays.",
        "Reads the raw files of one task, or of all tasks of a data set, and writes a prepared store. Phantoms are "
        "generated where they are missing. The commands that train prepare what they need themselves, and make the "
        "folds.",
        "dmseg.cli.commands:prepare",
        (
            Section(
                "Data",
                (
                    DATA,
                    Key("task", "NAME", "one task of the data set", "(all)"),
                    *pick(DATA_SECTION, "data.root", "data.size"),
                    Key(
                        "data.slices_per_case",
                        "N",
                        "volumes only: at most N evenly spaced slices of each case",
                        "(all)",
                    ),
                    Key(
                        "data.labels_only",
                        "BOOL",
                        "volumes only: count slices from the labels and store nothing",
                        "false",
                    ),
                    RAW_DATA,
                    PREPARED,
                ),
            ),
            Section("Folds, with data.labels_only=true", FOLDS_SECTION.keys),
            Section("Work", (Key("workers", "N", "cases prepared at the same time", "1"), QUIET, PLUGINS)),
        ),
        (
            ("dmseg prepare data=lidc data.root=lidc workers=4", "prepare LIDC from the folder lidc"),
            ("dmseg prepare data=kits data.labels_only=true", "count the slices that show a tumour"),
        ),
    ),
    "train": Command(
        "Train and score one run; with -m a sweep.",
        "Trains one network on one fold, scores it on the validation cases, and prints the mean scores. A run that is "
        "already stored is not trained again. With -m, keys may have several values (labels=majority,uniform): one "
        "run is trained for each combination, and a table is printed and written.",
        "dmseg.cli.commands:train",
        (DATA_SECTION, MODEL_SECTION, TRAINING_SECTION, FOLDS_SECTION, WHERE_SECTION, SWEEP_SECTION),
        (
            ("dmseg train data=lidc data.root=lidc labels=uniform model=unet_mobilenetv2 fold=0", "one run"),
            (
                "dmseg train -m data=phantom task=kidney-1 profile=demo labels=majority,uniform fold=0,1 name=labels",
                "a sweep of four runs",
            ),
        ),
        sweep="dmseg.cli.sweep:train",
    ),
    "cv": Command(
        "Train and score all folds; with -m a sweep.",
        "Trains one configuration on all folds and prints the mean scores over the validation cases of all folds; with "
        "seeds=N for each of N seeds, and the mean over seeds. With -m, keys may have several values: all folds are "
        "trained for each combination, and a table is printed and written.",
        "dmseg.cli.commands:cv",
        (DATA_SECTION, MODEL_SECTION, CV_TRAINING_SECTION, FOLDS_SECTION, WHERE_SECTION, SWEEP_SECTION),
        (
            ("dmseg cv data=phantom task=kidney-1 labels=uniform profile=demo", "five runs, one for each fold"),
            ("dmseg cv data=phantom task=kidney-1 profile=demo seeds=3", "fifteen runs: five folds under three seeds"),
            ("dmseg cv -m data=phantom task=kidney-1 profile=demo loss=ce,ce_dml1 workers=4", "compare two losses"),
        ),
        sweep="dmseg.cli.sweep:cv",
    ),
    "reproduce": Command(
        "Run what a table needs, then write it; or draw a figure.",
        "Trains and scores the runs that a table of the paper needs and the store lacks, then writes the table as "
        "Markdown, LaTeX and CSV. figure= draws a figure instead. What the columns of a table compare cannot be set.",
        "dmseg.cli.tables:reproduce",
        (
            replace(TABLES_SECTION, keys=(*TABLES_SECTION.keys, FIGURE)),
            TABLE_DATA_SECTION,
            TABLE_STUDY_SECTION,
            TESTS_SECTION,
            WHERE_SECTION,
        ),
        (
            ("dmseg reproduce table=2 data=phantom profile=demo", "Table 2 on generated data, in minutes"),
            ("dmseg reproduce table=2 data=phantom profile=demo seeds=3", "the same with three seeds"),
            ("dmseg reproduce figure=soft-labels paths.results=results", "why soft labels need other losses"),
        ),
    ),
    "table": Command(
        "Write a table from finished runs.",
        "Writes a table from the runs finished so far and trains nothing. Cells without finished runs stay empty.",
        "dmseg.cli.tables:table",
        (
            TABLES_SECTION,
            EXPORT_SECTION,
            TABLE_DATA_SECTION,
            TABLE_STUDY_SECTION,
            TESTS_SECTION,
            FILES_SECTION,
        ),
        (
            ("dmseg table table=2 data=phantom profile=demo", "Table 2 from the runs finished so far"),
            ("dmseg table table=2 from=export", "Table 2 from the export in the folder export"),
        ),
    ),
    "report": Command(
        "Write the HTML report of a table.",
        "Writes one HTML file that shows a table with its cases, curves, pictures, runs and open choices. It contains "
        "everything it shows, opens from disk, and names what is missing. It trains nothing.",
        "dmseg.cli.report:report",
        (
            TABLES_SECTION,
            EXPORT_SECTION,
            TABLE_DATA_SECTION,
            TABLE_STUDY_SECTION,
            TESTS_SECTION,
            FILES_SECTION,
        ),
        (
            ("dmseg report table=2 data=phantom profile=demo", "Table 2 on generated data"),
            ("dmseg report table=2 from=export", "Table 2 from the export in the folder export"),
        ),
    ),
    "figures": Command(
        "Draw the figures of a table for a paper.",
        "Draws strip plots of the cases, reliability diagrams, Dice by threshold and the agreement of the raters from "
        "finished runs, each as PDF, SVG and PNG.",
        "dmseg.cli.report:figures",
        (
            TABLES_SECTION,
            EXPORT_SECTION,
            TABLE_DATA_SECTION,
            TABLE_STUDY_SECTION,
            FILES_SECTION,
        ),
        (
            ("dmseg figures table=2 data=phantom profile=demo", "the figures of Table 2 on generated data"),
            ("dmseg figures table=2 from=export", "the same from an export"),
        ),
    ),
    "plan": Command(
        "Show what a table needs and how much is done.",
        "Prints for each table the number of experiments and runs, how many are done, only to be scored, running, "
        "failed and missing, and an estimate of the hours left. It writes nothing and needs no data.",
        "dmseg.cli.tables:plan",
        (TABLES_SECTION, TABLE_DATA_SECTION, TABLE_STUDY_SECTION, Section("Files", (WORKERS, RESULTS, PLUGINS))),
        (
            ("dmseg plan tables=all", "all tables of the paper"),
            ("dmseg plan table=2 data=phantom profile=demo", "Table 2 on generated data"),
        ),
    ),
    "explain": Command(
        "Show the open choices behind a table.",
        "Prints every choice that the paper leaves open or that its released code makes differently: its value under "
        "both protocols, the value with the given overrides, its source, and the cells of the table that "
        "depend on it. It reads no data and writes nothing.",
        "dmseg.cli.explain:explain",
        (TABLES_SECTION, TABLE_DATA_SECTION, TABLE_STUDY_SECTION, Section("Files", (PLUGINS,))),
        (
            ("dmseg explain table=2", "the choices behind Table 2"),
            ("dmseg explain tables=4,8 protocol=release optim.warmup=0", "the released protocol, without its warm-up"),
        ),
    ),
    "config": Command(
        "Show the composed configuration.",
        "Prints the configuration that the given keys compose, with the comments of its files and, for each value, the "
        "file or the argument that sets it. A name without a value, such as optim or optim.lr, restricts it. It reads "
        "no data and writes nothing.",
        "dmseg.cli.show_config:show_config",
        (
            Section("What to print", (Key("KEY", "", "a key or a group of keys, by its dotted name"),)),
            DATA_SECTION,
            MODEL_SECTION,
            Section("Files", (PLUGINS,)),
        ),
        (
            ("dmseg config data=lidc labels=uniform", "everything that a run would use"),
            ("dmseg config optim protocol=release", "the optimiser of the released code"),
        ),
    ),
    "completion": Command(
        "Print the script that completes dmseg in a shell.",
        "Prints the script for bash, zsh or fish. The shell then completes commands, keys, files of config groups, "
        "tasks of the chosen data set, values and ids of runs.",
        "dmseg.cli.completion:print_script",
        (Section("Shell", (Key("SHELL", "", "bash, zsh or fish"),)),),
        (
            ("dmseg completion bash >> ~/.bashrc", "in bash, for every new shell"),
            ("dmseg completion zsh >> ~/.zshrc", "in zsh"),
            ("dmseg completion fish > ~/.config/fish/completions/dmseg.fish", "in fish"),
        ),
        composes=False,
    ),
    "data": Command(
        "Show or verify data sets: data status, data verify.",
        "Shows which data sets are on disk, or verifies prepared stores.",
        actions=DATA_ACTIONS,
    ),
    "runs": Command(
        "List, show, verify or remove runs.",
        "Works on the run store alone, without data or configuration. 'dmseg runs' means 'dmseg runs list'.",
        actions=RUNS_ACTIONS,
        default_action="list",
    ),
    "track": Command(
        "Record stored runs and tables with a tracker.",
        "Records finished runs and written tables with wandb, with MLflow or in JSON lines, as training "
        "with this tracker would. What a tracker already has is left out, unless it has changed since. With a filter, "
        "only the runs that match it are recorded, and the tables that tables= names. It reads neither data nor "
        "configuration.",
        "dmseg.cli.track:track",
        (
            Section(
                "Tracker",
                (
                    Key("tracker", "NAME", "online or offline (wandb), jsonl or mlflow"),
                    Key("wandb.project", "NAME", "project in wandb, experiment in MLflow", "(that of the runs)"),
                    Key("wandb.entity", "NAME", "user or team in wandb", "(that of the runs, or yours)"),
                    Key("wandb.tags", "[NAME,...]", "further tags", "(those of the runs)"),
                    Key("wandb.notes", "TEXT", "notes", "(those of the runs)"),
                    Key(
                        "wandb.images",
                        "BOOL",
                        "also images of real data, not only of phantoms",
                        "false",
                    ),
                    Key("again", "BOOL", "also what the tracker already has", "false"),
                ),
            ),
            RUN_FILTERS,
            Section(
                "Which tables",
                (Key("tables", "NAME,...", "written tables, or all", "(all, unless runs are filtered)"),),
            ),
            Section("Output", (QUIET,)),
        ),
        (
            ("dmseg track tracker=online", "send all runs and tables below results/ to wandb"),
            ("dmseg track tracker=mlflow labels=uniform paths.results=results/lidc", "some runs of one results folder"),
        ),
        composes=False,
    ),
    "export-results": Command(
        "Export scores and configurations of runs.",
        "Copies the finished runs of the given tables, or of a whole results folder, to a folder that can be shared. "
        "Paths, accounts, user names and host names are left out.",
        "dmseg.cli.exchange:export_results",
        (
            Section(
                "Export",
                (
                    Key("to", "FOLDER", "the folder to export to"),
                    Key("weights", "BOOL", "also export weights and predictions", "false"),
                    Key("images", "BOOL", "also export the pictures of a few cases of each run", "false"),
                ),
            ),
            TABLES_SECTION,
            TABLE_DATA_SECTION,
            TABLE_STUDY_SECTION,
            Section("Files", (RESULTS, QUIET, PLUGINS)),
        ),
        (
            ("dmseg export-results tables=2 data=phantom profile=demo to=export", "the runs of Table 2"),
            ("dmseg export-results paths.results=results/lidc to=export weights=true", "all runs of a results folder"),
        ),
    ),
    "import-results": Command(
        "Import the runs of an export.",
        "Copies the runs of an export into a results folder, where they count for tables and stay marked as imported.",
        "dmseg.cli.exchange:import_results",
        (
            Section(
                "Import",
                (
                    Key("from", "FOLDER", "the export"),
                    Key("paths.results", "FOLDER", "the results folder"),
                    QUIET,
                ),
            ),
        ),
        (
            ("dmseg import-results from=export paths.results=results/lidc", "into results/lidc"),
            (
                "dmseg import-results from=/media/export paths.results=results/shared",
                "into a folder shared by several studies",
            ),
        ),
        composes=False,
    ),
}
"""The commands, in the order of the help."""

SUMMARY = "Train and compare segmentation networks on soft labels, and reproduce the tables of Dice Semimetric Losses."
"""What the help of ``dmseg`` begins with."""

EXIT_STATUSES = (
    ("0", "done"),
    ("1", "a run failed, or something is damaged"),
    ("2", "the command, the configuration or the data are wrong"),
    ("129, 130, 143", "stopped by SIGHUP, Ctrl-C or SIGTERM"),
)
"""Exit statuses and what they mean."""

EXAMPLES = (
    ("dmseg reproduce table=2 data=phantom profile=demo", "Table 2 on generated data, in minutes"),
    ("dmseg train data=lidc data.root=lidc labels=uniform fold=0", "one run on soft labels"),
    ("dmseg help runs verify", "the help of an action"),
)
"""Examples in the help of ``dmseg``."""

HELP_EXAMPLES = (
    ("dmseg help train", "the same as 'dmseg train --help'"),
    ("dmseg help runs verify", "the same as 'dmseg runs verify --help'"),
)
"""Examples in the help of ``dmseg help``."""

CLOSING = (
    "Keys are Hydra overrides (key=value, +key=value, ~key); 'dmseg COMMAND --help' lists those of a command. Ctrl-C, "
    "SIGTERM and SIGHUP stop a command: finished runs and the state of unfinished ones are kept, and the same "
    "command resumes. A second signal stops at once."
)
"""What the help of ``dmseg`` says about keys and signals."""

COMPLETION = 'eval "$(dmseg completion bash)"'
"""The command that turns completion on in bash."""

OTHER_KEYS = "All other keys of the configuration can be set in the same way; configs/config.yaml lists them."
"""What follows the keys of commands that read the configuration."""
