"""A command refuses bad tables with status 2 and one sentence, and writes nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from probing.score import main

UNQUOTED = [f"a cat number {n}, 4k photo {n % 3},img/{2 * n}.png,img/{2 * n + 1}.png" for n in range(6)]
OPEN = [f"{chr(34) * (n in (1, 3))}a photo of thing {n},img/{2 * n}.png,img/{2 * n + 1}.png" for n in range(6)]
GOOD = [f"a photo of thing {n},img/{2 * n}.png,img/{2 * n + 1}.png" for n in range(6)]


def run(folder, capsys, data, *options):
    out = folder / "out.csv"
    status = main(["--data", str(data), "--split", "test", "--list-items", str(out), *options])
    message = capsys.readouterr().err
    assert status == 2 and not out.exists() and message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (UNQUOTED, "Line 2 of {} has 4 fields, and the header has 3 columns; put fields that hold a comma in quotes."),
        (
            OPEN,
            "Line 3 of {} opens a quote, and text ('a photo of thing 3,img/6.png,img/7.png') follows the next quote",
        ),
    ],
)
def test_csv_with_its_line(tmp_path, capsys, rows, message):
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["prompt,chosen,rejected", *rows, ""]))
    assert message.format(path) in run(tmp_path, capsys, path)


def test_prompts_that_are_chats(tmp_path, capsys):
    path = tmp_path / "chat.parquet"
    prompts = [[{"role": "user", "content": f"a cat {n}"}] for n in range(6)]
    pd.DataFrame({"prompt": prompts, "chosen": "a.png", "rejected": "b.png"}).to_parquet(path)
    message = run(tmp_path, capsys, path)
    assert "The column prompt of" in message and "is of type list<" in message and "prompts are strings." in message


def test_conditions_that_are_code(tmp_path, capsys):
    path, made = tmp_path / "pairs.csv", tmp_path / "made"
    path.write_text("\n".join(["prompt,chosen,rejected", *GOOD, ""]))
    message = run(tmp_path, capsys, path, "--where", f"@pd.io.common.os.system('touch {made}')")
    assert "has a syntax error at position 1" in message and not made.exists()
