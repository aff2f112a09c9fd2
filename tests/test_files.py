"""Files: whole or not at all, as readable as any other, and a folder held by one process."""

import os
import signal
import subprocess
import sys

import pytest

from jaxscape import files


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], indirect=True)
def test_a_new_file_is_as_readable_as_one_from_open(umask, tmp_path):
    (tmp_path / "usual").write_text("")
    with files.replacing(tmp_path / "ours") as file:
        file.write(b"text")
    assert (tmp_path / "ours").read_bytes() == b"text"
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"usual", "ours"}


@pytest.mark.parametrize("umask", [0o022], indirect=True)
def test_a_file_that_was_made_private_stays_private(umask, tmp_path):
    path = tmp_path / "ours"
    path.touch(0o600)
    with files.replacing(path) as file:
        file.write(b"secret")
        modes = {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {0o600}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_claimed_folder_is_refused_to_others_and_free_afterwards(tmp_path):
    folder = tmp_path / "deep" / "folder"
    with files.claimed(folder):
        with pytest.raises(BlockingIOError), files.claimed(folder):
            pass
        (folder / "kept").touch()
    with files.claimed(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_folders_that_stay_empty_go_again(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError), files.claimed(tmp_path / "old" / "deep" / "folder"):
        raise FileNotFoundError
    assert list((tmp_path / "old").iterdir()) == []
    with files.claimed(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


HOLD = """
import runpy, sys, time
from pathlib import Path
claimed = runpy.run_path(sys.argv[2])["claimed"]  # without the rest of the library, which takes seconds
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_claim_ends_with_its_process_even_when_killed(tmp_path):
    folder = tmp_path / "folder"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), files.__file__], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), files.claimed(folder):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    left = list(folder.iterdir())
    with files.claimed(folder):
        pass
    assert len(left) == 1  # The file of the dead process did not stand in the way.
    assert list(folder.iterdir()) == []


RACE = """
import runpy, sys, time
from pathlib import Path
claimed = runpy.run_path(sys.argv[2])["claimed"]
folder, end, count = Path(sys.argv[1]), time.monotonic() + 1, 0
while time.monotonic() < end:
    try:
        with claimed(folder):
            # A second holder finds the first one's mark.
            (folder / "mark").touch(exist_ok=False)
            (folder / "mark").unlink()
            count += 1
    except BlockingIOError:
        pass
print(count)
"""


def test_two_never_hold_a_folder_at_once(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", RACE, str(folder), files.__file__]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for racer in racers:
        count, error = racer.communicate()
        assert error == b""
        assert int(count) > 0
