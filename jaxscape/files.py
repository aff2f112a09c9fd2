"""Files that appear whole or not at all, and folders that one process holds."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing, and put it in its place once all is written and on the disk.

    The permissions are those that `open` would have left: of the file replaced, or the usual ones of a new file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # The kernel applies the umask, which a program can read only by changing it under its other threads.
        with temporary.open("xb") as file:
            with suppress(OSError):  # A new file, or a drive without permissions.
                shutil.copymode(path, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder and keep out others who claim it; folders made for it that are empty in the end go again.

    The kernel holds the claim, so that it ends with the process, even a killed one. Where it cannot (Windows, some
    network drives), nobody is kept out.

    Raises:
        BlockingIOError: if it is claimed already.
        OSError: if the folder cannot be made or written to.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".jaxscape.lock"):
            yield
    finally:
        for each in made:
            with suppress(OSError):  # Not empty.
                each.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    file = _open_locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # Still locked, so that it is ours.
        file.close()


def _open_locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            return file
        # Before it was locked, its last holder may have removed it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
