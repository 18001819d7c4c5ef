# ruff: noqa: E501 - tables of inputs
"""Overrides: unknown components, interpolations, Hydra's own keys, mappings, and values of every kind for every key."""

from fuzz.harness import Right
from fuzz.templates import TRAIN, study

from dmseg.config.compose import compose_plain


def trained(*words, named=None, first=()):
    """Trains with further overrides; the message must name the first key, or what is given."""

    def apply(box, rng):
        key, _, value = words[0].lstrip("+~").partition("=")
        told = named or (key.split("@")[0], key.split(".")[0], value or key)
        return Right(told, words=["train", *study(box), *first, *words], judge=lambda box, ran: [])

    return apply


def anew(word):
    """The same for a run that is not done."""
    return trained(word, first=("seed=7",))


CODE = (
    ("torch.utils.collect_env.run", "command='touch pwned'"), ("torch.hub.load", "repo_or_dir=/x"), ("os.system", "command='touch pwned'"),
    ("subprocess.run", "args='touch pwned'"), ("builtins.exec", "source=x"), ("builtins.eval", "source=x"), ("pathlib.Path", "x=1"),
    ("dmseg.files.atomic.write_whole", "path=pwned"), ("dmseg.cli.main.main", "arguments=[prepare]"), ("torch.load", "f=x"), ("numpy.load", "file=x"),
    ("torch.nn.Linear", "in_features=1"), ("torch.nn.Module", "x=1"), ("timm.create_model", "model_name=x"), ("runpy.run_path", "path_name=x"),
    ("dmseg.losses.os.system", "command=x"), ("torch.nn.functional.os.system", "command=x"), ("hydra._internal.utils._locate", "path=os.system"),
    ("", "x=1"), ("..", "x=1"), ("dmseg", "x=1"), ("dmseg.", "x=1"), ("a b", "x=1"), ("dmseg.no.such", "x=1"), ("x" * 500, "x=1"), ("__import__", "name=os"),
)  # fmt: skip
PLACES = ("method", "data", "labels", "loss.terms.region", "evaluate.reference")
HYDRA_WORDS = """
    hydra.run.dir=/tmp/x +hydra.callbacks.x._target_=os.system hydra/launcher=joblib hydra.searchpath=[/tmp]
    hydra.sweeper._target_=os.system +hydra.job.env_set.A=b hydra.mode=MULTIRUN hydra=x ~hydra
    hydra.output_subdir=.. hydra/job_logging=none ++hydra.job.chdir=true +hydra.x@hydra.y=z
"""
ODD_WORDS = """
    ~evaluate.reference._target_ evaluate.reference=5 evaluate.reference=null evaluate.reference=[x] ~evaluate
    evaluate=5 train=null +method.unused=[x] labels=../labels/uniform
    model=/etc/passwd loss=nothing data.slices_per_case=x +data.window=[a,b] data.min_marks=many data.min_marks=9
    data.bits=7 data.name=../../pwned data.name=a/b data.name='' data.size=0 data.size=-1 data.size=1e9
    data.size=99999999999 device=meta device=cuda:99 device=x threads=0 workers=1.5 precision=fp8 seed=1e400
    seed=x fold=9 fold=-1 fold=null folds.count=1 folds.count=99 folds.kind=x train.epochs=0
    train.epochs=nan train.scale=[1] train.scale=[2,1] train.scale=x train.flip=2 optim.lr=nan optim.lr=inf
    optim.lr=-1 optim.lr=[] optim.lr=${oc.env:FUZZ_WORDS} seed=${oc.env:FUZZ_WORDS}
    seed=${nothing} seed=${seed} seed=${oc.decode:x} seed=${hydra:runtime.cwd}
    seed=${oc.create:{a:1}} seed=${ seed=??? seed =1 +=1 ~ nothing=1 +nothing=1 ++nothing.deep.key=1 seed=1,2
    seed=range(3) seed=choice(1,2) paths.results='' paths.prepared=null paths.results=/proc/nothing
    paths.prepared=/dev/null paths=x launcher=nothing launcher.workers=0 tracker=x distill=nothing table=../config
    protocol=../config profile=x data@x=lidc model.weights=/nothing model.weights=5 model.weights=''
    model.encoder=../x model.architecture=os +model.options.x=1 model.encoder_options={a:{b:c}}
    loss.terms.region.weight=nan labels.smoothing=x labels.interpolation=cubic checkpoint.minutes=-1 evaluate.bins=0
    evaluate.empty=x evaluate.crop=0 wandb=5 task=../x task=5 task=[a] data.root=/nothing
"""
ODD = (*ODD_WORDS.split(), "data.name='a\0b'", "a b=c", "paths.results='a\0b'")
SAME = (
    "seed=0",
    "precision=fp32",
    "tracker=disabled",
    "+seed=0",
    "++seed=0",
    "fold=0",
    "method=[plain]",
    "method={}",
    "labels={}",
    "-m",
    "seed=-1",
    "folds=null",
    "data.root=${oc.env:PWD}/../raw",
)


def leaves(node, above=""):
    """Dotted keys of all values."""
    for name, inner in node.items():
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, f"{above}{name}.")
        else:
            yield above + name


VALUE_WORDS = """
    null [] {} x '' -1 0 nan inf 1e400 99999999999999999999 true [1,2] {a:1} ../../pwned ${seed} ${nothing} ??? 'é'
    [[[[1]]]] 1_0 0x1f
"""
VALUES = (*VALUE_WORDS.split(), "'[red]\x1b[31m'", "x" * 3000, "'a b'", "$(touch pwned)")


def any_value(box, rng):
    """Some value for some key of the configuration, which is planned, as no value is too large for that."""
    keys = sorted(leaves(compose_plain(["data=lidc", "model=unet_tiny"])))
    key, given = str(rng.choice(keys)), VALUES[rng.integers(len(VALUES))]
    words = [word for word in study(box) if not word.startswith(f"{key}=")]
    return Right(
        (key, *key.split("."), "table", given[:9]),
        words=["plan", "table=2", *words, f"{key}={given}"],
        judge=lambda box, ran: [],
    )


CHANGES = [
    *(
        ((TRAIN,), "refused", f"{place}: {target}", trained(f"{place}._target_='{target}'", f"+{place}.{option}"))
        for number, (target, option) in enumerate(CODE)
        for place in (PLACES if number < 3 else PLACES[number % 5 : number % 5 + 1])
    ),
    *(((TRAIN,), "refused", word, trained(word, named=("hydra",))) for word in HYDRA_WORDS.split()),
    *(((TRAIN,), "refused", word, anew(word)) for word in ODD),
    *(((TRAIN,), "either", word, trained(word)) for word in SAME),
    *(((TRAIN,), "either", f"any value {number}", any_value) for number in range(25)),
]
