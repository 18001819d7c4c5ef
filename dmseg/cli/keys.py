"""The keys that the help texts explain: what each takes, its default, and what it means.

The list is a selection. All keys, with their comments, are in ``configs``; any of them can be set on the command line.
"""

from dataclasses import replace

from dmseg.cli.description import Key, Section, pick

DATA = Key("data", "NAME", "the data set", "qubiq", group=True)
RAW_DATA = Key("paths.data", "FOLDER", "folder that holds a folder of raw data for each data set", "data")
PREPARED = Key("paths.prepared", "FOLDER", "where prepared stores are written and looked for", "data/prepared")
RESULTS = Key(
    "paths.results", "FOLDER", "where runs, tables and figures are written", "(results/ and the name of the data set)"
)
WORKERS = Key("workers", "N", "runs trained, and cases prepared, at the same time", "1")
PLUGINS = Key(
    "plugins", "[FILE.py,MODULE]", "Python code with components of your own; it is executed, so it must be trusted"
)

QUIET = Key("quiet", "BOOL", "print nothing but errors", "false")

SEEDS = Key(
    "seeds", "N|[A,B]", "several seeds, 0 to N-1 or those of a list, in place of seed; scores are means over them"
)

DATA_SECTION = Section(
    "Data",
    (
        DATA,
        Key("task", "NAME", "a task of the data set, such as prostate-1; not needed where there is only one"),
        Key("data.root", "FOLDER", "folder of the raw data", "(a folder below paths.data)"),
        Key("data.size", "PIXELS", "edge length of the square that every slice is resized to", "(set by the data set)"),
        RAW_DATA,
        PREPARED,
    ),
)

FOLDS_SECTION = Section(
    "Folds",
    (
        Key("folds.kind", "KIND", "contiguous (blocks of the sorted case ids) or shuffled", "contiguous"),
        Key("folds.count", "N", "number of folds", "(5)"),
        Key("folds.groups", "FILE", "CSV file, case,group; the cases of a group stay in one fold"),
        Key("folds.file", "FILE", "a split of your own, as in nnU-Net's splits_final.json"),
    ),
)

MODEL_SECTION = Section(
    "Labels, network and loss",
    (
        Key("labels", "NAME", "how the annotations become the training label", "majority", group=True),
        Key("model", "NAME", "the network", "unet_resnet50", group=True),
        Key("model.weights", "WEIGHTS", "imagenet, null or a safetensors file", "(set by the network)"),
        Key("loss", "NAME", "the loss", "ce_dml1", group=True),
        Key("method", "NAME", "the method for several raters", "plain", group=True),
        Key("distill", "NAME", "knowledge distillation: null, or one of", "null", group=True),
        Key("protocol", "NAME", "values of the choices that the paper leaves open", "paper", group=True),
        Key("profile", "NAME", "scale of the study: full, or minutes on a laptop", "paper", group=True),
    ),
)

TRAINING_SECTION = Section(
    "Training and evaluation",
    (
        Key("fold", "N", "the fold that is held out for validation", "0"),
        Key("seed", "N", "seed of all random numbers", "0"),
        Key("train.epochs", "N", "passes over the training cases", "(set by the data set)"),
        Key("train.batch_size", "N", "slices in a batch", "8"),
        Key("optim.lr", "RATE", "initial learning rate", "0.01"),
        Key("precision", "NAME", "training precision: fp32, tf32, bf16 or auto", "fp32"),
        Key("evaluate.empty", "RULE", "score where both masks are empty: skip, one or zero", "skip"),
        Key(
            "evaluate.ties",
            "RULE",
            "class of a tied pixel in the majority vote: background or foreground",
            "background",
        ),
        Key("evaluate.metrics", "[NAME,...]", "further metrics (docs/explanation/metrics.md)", "[]"),
        Key("evaluate.ged", "BOOL", "also compute the generalised energy distance to the raters", "false"),
        Key("evaluate.save_predictions", "BOOL", "keep the probabilities of the validation cases", "false"),
    ),
)

WHERE_SECTION = Section(
    "Where and how runs are trained",
    (
        WORKERS,
        Key("launcher", "NAME", "where runs are trained", "auto", group=True),
        Key("device", "NAME", "auto, cpu, cuda or cuda:N", "auto"),
        Key("threads", "N", "CPU threads of each run", "(the cores, divided among the workers)"),
        Key("checkpoint.minutes", "MINUTES", "time between two checkpoints", "10"),
        Key("tracker", "NAME", "what records runs: disabled, offline or online (wandb), jsonl, mlflow", "disabled"),
        RESULTS,
        QUIET,
        PLUGINS,
    ),
)

TABLES_SECTION = Section(
    "Tables",
    (
        Key("table", "NAME", "one table", group=True),
        Key("tables", "NAME,...", "several tables; all means those of the paper"),
        Key("metrics", "[NAME,...]", "the scores to show", "(those of the table)"),
    ),
)
TABLE_DATA_SECTION = Section(
    "Data",
    (
        Key(
            "data",
            "NAME,...",
            "data sets for the rows: qubiq, lits and kits, or others in their place",
            "qubiq,lits,kits",
        ),
        Key("model", "NAME,...", "networks for the rows", "(those of the table)"),
        Key("NAME:key", "VALUE", "sets a key for one data set only, such as lidc:data.root=FOLDER"),
        RAW_DATA,
        PREPARED,
    ),
)
TABLE_STUDY_SECTION = Section(
    "Study",
    (
        *pick(MODEL_SECTION, "protocol", "profile"),
        *pick(TRAINING_SECTION, "seed"),
        SEEDS,
        *pick(TRAINING_SECTION, "train.epochs", "precision", "evaluate.empty"),
    ),
)
TESTS_SECTION = Section(
    "Tests",
    (
        Key("test", "NAME", "test over cases: wilcoxon or permutation", "wilcoxon"),
        Key("zero_method", "NAME", "how the Wilcoxon test treats zero differences: wilcox, pratt or zsplit", "wilcox"),
        Key("holm", "BOOL", "mark cells by the p-values after Holm's correction over the table", "false"),
    ),
)

SWEEP_SECTION = Section(
    "Sweeps", (Key("name", "NAME", "name of the sweep's table; only with -m", "(a digest of the overrides)"),)
)

CV_TRAINING_SECTION = replace(
    TRAINING_SECTION,
    keys=tuple(
        item
        for key in TRAINING_SECTION.keys
        if key.name != "fold"
        for item in ((key, SEEDS) if key.name == "seed" else (key,))
    ),
)
