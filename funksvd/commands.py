"""What the commands of ``funksvd`` do. Each takes the parsed options and returns the exit status, None for 0."""

import csv
import difflib
import json
import os
import shlex
import sys
import time
from contextlib import contextmanager, nullcontext

import numpy as np

import funksvd
from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, datasets, load, show_config
from funksvd.callbacks import EpochLines
from funksvd.files import check_writable, replacing
from funksvd.ids import Encoded
from funksvd.reading import read_columns

COLUMNS = ("user", "item", "rating")
WRITTEN = 100_000  # lines written between two steps of a progress bar


def train(args):
    checkpoint = args.checkpoint or args.resume
    for path in (args.output, *([checkpoint] if checkpoint else [])):
        check_output(path, args.file)
    model = FunkSVD(**model_parameters(args))
    stopping = EarlyStopping("val_loss", patience=args.patience)
    model._check_params()  # before a large file is read
    start = time.perf_counter()
    ratings = Ratings.from_arrays(*read(args, args.file))
    say(args, f"Read {len(ratings):,} ratings by {count(ratings.n_users, 'user')} of {count(ratings.n_items, 'item')} "
              f"from {args.file} in {time.perf_counter() - start:.1f} s.")  # fmt: skip

    validated = args.validation_split != 0
    lines = EpochLines(write=lambda line: say(args, line.rstrip("\n")))
    callbacks = [*([stopping] if validated else []), *([ModelCheckpoint(checkpoint)] if checkpoint else []), lines]
    model.fit(ratings, validation_split=args.validation_split, callbacks=callbacks, resume=args.resume)
    if model.interrupted_:
        say(args, f"Stopped by Ctrl-C after {count(model.n_epochs_, 'epoch')}; saving what was learned.")
    best = stopping.best_epoch if validated else model.n_epochs_ - 1
    if validated:
        say(args, f"Best epoch {best + 1}: validation RMSE {model.history_['val_rmse'][best]:.4f} on the "
                  f"{args.validation_split:.0%} of the ratings held out; its weights are kept.")  # fmt: skip
    else:
        say(args, f"Training RMSE {model.history_['rmse'][-1]:.4f} in the last epoch; nothing was held out.")
    save(args, model)
    if args.json:
        last = {name: values[best] for name, values in model.history_.items()}
        print_json({"model": args.output, "ratings": len(ratings), "users": ratings.n_users, "items": ratings.n_items,
                    "epoch": best + 1, **last})  # fmt: skip
    return 130 if model.interrupted_ else 0


def evaluate(args):
    model = load(args.model)
    scores = model.evaluate(read_typed(args, model, args.file))
    if args.json:
        print_json(scores)
        return
    print(f"RMSE     {scores['rmse']:.4f}  root mean squared error")
    print(f"MAE      {scores['mae']:.4f}  mean absolute error")
    print(f"ratings  {scores['n']:,}")
    print(f"unknown  {scores['unknown']:.2%}  of them have a user or an item not seen in training")


def predict(args):
    if args.output is not None:
        check_output(args.output, args.model, args.file)
    model = load(args.model)
    pairs = datasets.read_pairs(args.file, user=args.user_column, item=args.item_column, sep=args.sep, header=args.header,
                                on_bad_lines=args.on_bad_lines)  # fmt: skip
    users, items = typed(model, args.file, *pairs)
    predictions = model.predict((users, items), unknown=args.unknown)
    rows = zip(users.tolist(), items.tolist(), predictions.tolist(), strict=True)
    with writer(args, ["user", "item", "prediction"], len(predictions)) as write:
        for user, item, prediction in rows:
            entry = {"user": user, "item": item, "prediction": None if prediction != prediction else prediction}
            write([[user, item, f"{prediction:.6g}"]], entry)
    if args.output is not None:
        say(args, f"Wrote {len(predictions):,} predictions to {args.output}.")


def recommend(args):
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    if args.output is not None:
        check_output(args.output, args.model, args.exclude, args.titles)
    model = load(args.model)
    users = None if args.all else [known_id(model, "user", text) for text in args.user]
    titles = datasets.read_titles(args.titles) if args.titles else {}
    seen = read_typed(args, model, args.exclude) if args.exclude else None
    if args.all:
        batches = model.recommend_batches(args.n, seen)
    else:
        batches = [(np.array(users), *model.recommend(users, args.n, seen))]
    names = [] if users is not None and len(users) == 1 else ["user"]
    n_users = len(model.user_ids_) if users is None else len(users)
    with writer(args, [*names, "item", "score", *(["title"] if titles else [])], n_users) as write:
        for some, items, scores in batches:
            for user, *ranked in zip(some.tolist(), items.tolist(), scores.tolist(), strict=True):
                best = [(item, score) for item, score in zip(*ranked, strict=True) if score == score]
                first = [user] if names else []
                rows = [[*first, item, f"{score:.4f}", *titled(titles, item)] for item, score in best]
                entries = [named(titles, item) | {"score": score} for item, score in best]
                write(rows, {"user": user, "recommendations": entries})
    if args.output is not None:
        say(args, f"Wrote recommendations for {count(n_users, 'user')} to {args.output}.")


def similar(args):
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    model = load(args.model)
    side = "user" if args.item is None else "item"
    asked = known_id(model, side, getattr(args, side))
    titles = datasets.read_titles(args.titles) if args.titles else {}
    ids, scores = (model.similar_users if side == "user" else model.similar_items)(asked, args.n, args.measure)
    pairs = list(zip(ids.tolist(), scores.tolist(), strict=True))
    if args.json:
        print_json({side: asked, "measure": args.measure,
                    "similar": [named(titles, x, side) | {"similarity": score} for x, score in pairs]})  # fmt: skip
        return
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([side, "similarity", *(["title"] if titles else [])])
    out.writerows([x, f"{score:.4f}", *titled(titles, x)] for x, score in pairs)


def fold_in(args):
    check_output(args.output, args.file)
    model = load(args.model)
    ratings = read_typed(args, model, args.file)
    before = len(model.user_ids_), len(model.item_ids_)
    extended = model.fold_in(ratings, side=args.side)
    added = len(extended.user_ids_) - before[0], len(extended.item_ids_) - before[1]
    side = args.side.removesuffix("s")
    n = ratings.n_users if side == "user" else ratings.n_items
    new = added[0] if side == "user" else added[1]
    say(args, f"Folded in {count(n, side)}, {new:,} of them new, from {len(ratings):,} ratings.")
    save(args, extended)
    if args.json:
        print_json({"model": args.output, "folded_in": n, "new": new, "ratings": len(ratings)})


def tune(args):
    from funksvd import tuning

    if args.output is not None:
        check_output(args.output, args.file)
    grid = dict(grid_of(text) for text in args.grid) if args.grid else tuning.default_grid(model_parameters(args))
    parameters = {name: value for name, value in model_parameters(args).items() if name not in grid}
    FunkSVD().set_params(**parameters, **{name: values[0] for name, values in grid.items()})._check_params()
    ratings = Ratings.from_arrays(*read(args, args.file))
    n_settings = int(np.prod([len(values) for values in grid.values()]))
    say(args, f"Trying {n_settings} settings on {args.folds} folds of {len(ratings):,} ratings.")
    settings = tuning.tune(ratings, grid, n_folds=args.folds, patience=args.patience, progress=shows_progress(),
                           **parameters)  # fmt: skip
    best = settings[0]
    if args.json:
        print_json([setting._asdict() for setting in settings])
    else:
        rows = [[*map(str, s.parameters.values()), f"{s.rmse:.4f}", f"{s.sd:.4f}", s.n_epochs, f"{s.seconds:.1f}"]
                for s in settings]  # fmt: skip
        print_table([*best.parameters, "RMSE", "sd", "epochs", "s"], rows)
    featurewise = (parameters | best.parameters)["training"] == "featurewise"  # an epoch is a feature there
    chosen = best.parameters | {"n_factors" if featurewise else "n_epochs": max(1, best.n_epochs)}
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    if args.output is None:
        say(args, f"\nTrain with the best: funksvd train {shlex.quote(args.file)} --validation-split 0 {options}")
        return
    model = FunkSVD(**(parameters | chosen)).fit(ratings, verbose=0)
    say(args, f"\nTrained on all ratings with the best: {options}")
    save(args, model)


def plot(args):
    from funksvd import plots

    needed = {"predictions": ["ratings"], "popularity": ["ratings", "train"]}.get(args.kind, [])
    for name in needed:
        if getattr(args, name) is None:
            raise ValueError(f"funksvd plot {args.kind} needs --{name} FILE")
    output = args.output or f"{args.kind}.png"
    check_output(output, args.model, args.ratings, args.train, args.titles)
    model = load(args.model)
    ratings, trained = (read_typed(args, model, getattr(args, name)) if getattr(args, name) else None
                        for name in ("ratings", "train"))  # fmt: skip
    titles = datasets.read_titles(args.titles) if args.titles else None
    {
        "learning-curve": lambda: plots.learning_curve(model, output),
        "predictions": lambda: plots.predicted_against_actual(model, ratings, output),
        "popularity": lambda: plots.error_by_popularity(model, ratings, trained, output, by=args.by),
        "map": lambda: plots.factor_map(model, titles, output, ratings=ratings),
        "spectrum": lambda: plots.factor_spectrum(model, output),
    }[args.kind]()
    say(args, f"Drew {output}.")
    if args.json:
        print_json({"plot": output})


def convert(args):
    check_output(args.output, args.file)
    with open(args.file, "rb") as file:
        is_model = file.read(2) == b"PK" or args.file.endswith(".safetensors")
    kinds = (".npz", ".safetensors") if is_model else (".csv", ".parquet")
    if not args.output.endswith(kinds):
        raise ValueError(f"{args.file} holds {'a model' if is_model else 'ratings'}, so the name of the output must end in "
                         f"{' or '.join(kinds)}, got {args.output}")  # fmt: skip
    if is_model:
        load(args.file).save(args.output)
        said = f"Wrote the model to {args.output} ({os.path.getsize(args.output):,} bytes)."
    else:
        users, items, values = read(args, args.file)
        columns = [users.decode(), items.decode(), values]
        write = write_parquet if args.output.endswith(".parquet") else write_ratings
        write(args, columns)
        said = f"Wrote {len(columns[0]):,} ratings to {args.output} ({os.path.getsize(args.output):,} bytes)."
    say(args, said)
    if args.json:
        print_json({"output": args.output, "bytes": os.path.getsize(args.output)})


def write_parquet(args, columns):
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('Parquet needs pyarrow: pip install "funksvd[frames]"') from error
    with replacing(args.output) as file:
        parquet.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), file)


def write_ratings(args, columns):
    with replacing(args.output, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        parts = range(0, len(columns[0]), WRITTEN)
        for start in progress(parts, "writing", "part"):
            users, items, values = (column[start : start + WRITTEN].tolist() for column in columns)
            out.writerows(zip(users, items, (repr(value).removesuffix(".0") for value in values), strict=True))


def info(args):
    if args.model is None:
        if args.json:
            print_json({"funksvd": funksvd.__version__, "python": sys.version.split()[0], "numpy": np.__version__,
                        "config": show_config()})  # fmt: skip
            return
        print(f"funksvd {funksvd.__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}")
        print(show_config())
        return
    model = load(args.model, mmap=True)
    last = {name: values[-1] for name, values in model.history_.items() if len(values)}
    n_factors, dtype = model.user_factors_.shape[1], str(model.user_factors_.dtype)
    if args.json:
        print_json({"model": args.model, "bytes": os.path.getsize(args.model), "users": len(model.user_ids_),
                    "items": len(model.item_ids_), "n_factors": n_factors, "dtype": dtype, "mean": model.global_mean_,
                    "epochs": model.n_epochs_, "parameters": model.get_params(), "last_epoch": last})  # fmt: skip
        return
    print(f"{args.model}: {os.path.getsize(args.model):,} bytes")
    for side, ids in {"users": model.user_ids_, "items": model.item_ids_}.items():
        kind = "whole numbers" if ids.dtype.kind in "iu" else "text" if ids.dtype.kind == "U" else type(ids[0]).__name__
        print(f"  {side:<8}{len(ids):,} (ids are {kind}, {ids[0]} to {ids[-1]})")
    print(f"  factors {n_factors} of dtype {dtype}")
    print(f"  mean    {model.global_mean_:.4f}")
    print(f"  epochs  {model.n_epochs_}")
    print("parameters")
    for name, value in model.get_params().items():
        print(f"  {name} = {value!r}")
    if last:
        print("last epoch of training")
        for name, value in last.items():
            print(f"  {name:<14}{value:.6g}")


# Options and files


def model_parameters(args):
    """The parameters of the model among the options."""
    parameters = {name: value for name, value in vars(args).items() if name in FunkSVD().get_params() and name != "verbose"}
    if parameters.get("rating_scale") is not None:
        parameters["rating_scale"] = tuple(parameters["rating_scale"])
    return parameters


def number(text):
    """The number, truth value or None that a text stands for, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"None": None, "True": True, "False": False}.get(text, text)


def grid_of(text):
    """(parameter, values) of ``--grid l2=0.04,0.08``."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    known = list(FunkSVD().get_params())
    if not equals or not values or name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close and name not in known else f"; parameters are {', '.join(known)}"
        raise ValueError(f"--grid takes PARAMETER=VALUE,VALUE,..., got {text!r}{hint}")
    return name, [number(value.strip()) for value in values.split(",")]


def check_output(path, *inputs):
    """Fail now, not after minutes of training, where nothing could be saved or an input would be lost."""
    check_writable(path)
    for name in filter(None, inputs):
        if os.path.exists(path) and os.path.exists(name) and os.path.samefile(path, name):
            raise ValueError(f"{path} is read here, and would be replaced; give the output another name")


def save(args, model):
    model.save(args.output)
    say(args, f"Saved the model to {args.output} ({os.path.getsize(args.output):,} bytes).")


def read(args, path):
    """Users, items and ratings of a file, read as the options say."""
    columns = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    return read_columns(path, **columns, sep=args.sep, header=args.header, on_bad_lines=args.on_bad_lines,
                        progress=shows_progress())  # fmt: skip


def read_typed(args, model, path):
    """The ratings of a file, with ids of the model's type."""
    return Ratings.from_arrays(*typed(model, path, *read(args, path)))


def typed(model, path, users, items, *ratings):
    """Give the ids of a file the type of the model's: a file with ids 1, 2, 3 may be part of one with 1, 2, x."""
    found = []
    for role, column, known_ids in (("user", users, model.user_ids_), ("item", items, model.item_ids_)):
        ids = column.ids if isinstance(column, Encoded) else column
        if known_ids.dtype.kind in "iu" and ids.dtype.kind not in "iu":
            strange = next(text for text in ids.tolist() if str(number(text)) != text or type(number(text)) is not int)
            raise ValueError(
                f"{path}: {role} id {strange!r} is not a plain whole number, which all {role} ids of the model are"
            )
        if known_ids.dtype.kind == "U" and ids.dtype.kind in "iu":
            ids = ids.astype(str)
        found.append(Encoded(column.codes, ids) if isinstance(column, Encoded) else ids)
    return *found, *ratings


def known_id(model, side, text):
    """The user or item id that `text` stands for, typed as in the model."""
    known_ids = getattr(model, f"{side}_ids_")
    found = text
    if known_ids.dtype.kind in "iu":
        try:
            found = int(text)
            if str(found) != text:  # 007, 1_0: files do not take them for 7 and 10 either
                raise ValueError(text)
        except ValueError as error:
            said = f"--{side} {text!r} is not a plain whole number, which all {side} ids of the model are"
            raise ValueError(said) from error
    ids = known_ids.tolist()
    if found in set(ids):
        return found
    same_text = [x for x in ids if str(x) == text]  # ids that are no text, such as dates
    if same_text:
        return same_text[0]
    if found != text:
        near = [min(ids, key=lambda x: abs(x - found))]
    else:
        near = difflib.get_close_matches(text, list(map(str, ids)), n=1)
    hint = f"; the nearest id is {near[0]}" if near else ""
    raise ValueError(f"--{side} {text}: the model has not seen this {side} in training{hint}")


# What is shown


def say(args, text):
    """A message, out of the way of JSON."""
    print(text, file=sys.stderr if args.json else sys.stdout, flush=True)


def print_json(value):
    print(json.dumps(value, default=str))


def print_table(names, rows):
    """Columns under their names, numbers and all to the right."""
    texts = [list(map(str, row)) for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


@contextmanager
def writer(args, names, n):
    """Yield write(rows, entry): rows of a CSV or, with --json, the entry as a line, to the output or standard output."""
    if args.output is None:
        opened = nullcontext(sys.stdout)
    else:
        opened = replacing(args.output, "w", newline="", encoding="utf-8")
    with opened as file, progress(None, "writing", "row", total=n) as bar:
        out = csv.writer(file, lineterminator="\n")
        if not args.json:
            out.writerow(names)

        def write(rows, entry):
            if args.json:
                file.write(json.dumps(entry, default=str) + "\n")
            else:
                out.writerows(rows)
            bar.update()

        yield write


def shows_progress():
    return sys.stderr.isatty()


def progress(iterable, what, unit, total=None):
    """A bar on a terminal, for what takes more than a second."""
    from tqdm import tqdm

    return tqdm(iterable, desc=what, unit=unit, total=total, delay=1, leave=False, disable=not shows_progress())


def titled(titles, item):
    return [titles.get(str(item), "")] if titles else []


def named(titles, item, side="item"):
    return {side: item} | ({"title": titles.get(str(item), "")} if titles else {})


def count(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
