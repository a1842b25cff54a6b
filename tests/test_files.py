"""Files are written atomically."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from probing.errors import UserError
from probing.files import replace_file, write_text
from probing.table_files import read_metadata, read_parquet, write_csv, write_parquet

TABLE = pd.DataFrame({"name": ["a", "b"], "value": [0.1, 2.0]})


def test_tables_are_read_as_written(tmp_path):
    write_parquet(tmp_path / "new" / "t.parquet", TABLE, {"stores": ["x"]})
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "new" / "t.parquet", "x"), TABLE)
    assert read_metadata(tmp_path / "new" / "t.parquet") == {"stores": ["x"]}
    write_csv(tmp_path / "t.csv", TABLE)
    assert (tmp_path / "t.csv").read_bytes() == b"name,value\na,0.1\nb,2.0\n"


def test_an_error_leaves_the_old_content(tmp_path):
    path = tmp_path / "t.txt"
    write_text(path, "old")

    def stop_in_the_middle():
        with replace_file(path) as file:
            file.write(b"ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_in_the_middle()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_while_writing_leaves_the_old_content(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, TABLE)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom probing.files import replace_file\n"
        "with replace_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 1000); file.flush(); print('written', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    pd.testing.assert_frame_equal(pd.read_parquet(path), TABLE)


@pytest.mark.parametrize("target", ["folder", "device"])
def test_paths_that_are_not_files_are_refused(tmp_path, target):
    path = tmp_path if target == "folder" else tmp_path / "pipe"
    if target == "device":
        os.mkfifo(path)
    with pytest.raises(UserError, match="give another path"):
        write_text(path, "x")
    assert path.exists()


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another path"):
        write_text(tmp_path / "file" / "t.txt", "x")


def test_a_damaged_table_is_reported(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, TABLE)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"t\.parquet is damaged.*write it again with python -m probing\.measure"):
        read_parquet(path, "python -m probing.measure")
    with pytest.raises(UserError, match=r"no table at .*python -m probing\.measure writes it"):
        read_parquet(tmp_path / "none.parquet", "python -m probing.measure")
    assert read_metadata(path) == {}


def test_files_have_the_usual_mode(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_temporary_files_of_killed_processes_are_removed_after_a_day(tmp_path):
    old, young = tmp_path / ".t.txt.a.partial", tmp_path / ".t.txt.b.partial"
    for file in (old, young):
        file.write_text("")
    os.utime(old, (0, 0))
    write_text(tmp_path / "t.txt", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "t.txt"]


def test_writing_leaves_the_umask_of_the_process_alone(tmp_path, monkeypatch):
    """Threads share the umask: setting it would change the mode of another thread's new file."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is set"))
    write_text(tmp_path / "t.txt", "x")
