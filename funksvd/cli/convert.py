"""The command `funksvd convert`."""

from __future__ import annotations

import csv
import os

from funksvd.cli.files import check_output, read
from funksvd.cli.options import COLUMNS
from funksvd.cli.shown import print_json, progress, say
from funksvd.machine.replacing import replacing
from funksvd.model import load

WRITTEN = 100_000  # lines written between two steps of a progress bar


def convert(args):
    check_output(args.output, args.file)
    with open(args.file, "rb") as file:
        is_model = file.read(2) == b"PK" or args.file.endswith(".safetensors")
    kinds = (".npz", ".safetensors") if is_model else (".csv", ".parquet")
    if not args.output.endswith(kinds):
        raise ValueError(
            f"{args.file} holds {'a model' if is_model else 'ratings'}, so the name of the output must end in "
            f"{' or '.join(kinds)}, got {args.output}"
        )
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
            out.writerows(
                zip(users, items, (repr(value).removesuffix(".0") for value in values), strict=True)
            )
