"""Files are replaced whole or not at all, and only where they are files."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from adaptive_nets.runtime.errors import UserError, describe_os_error
from adaptive_nets.runtime.files import (
    is_stream,
    lock_directory,
    remove_stale_temporaries,
    write_bytes_atomically,
    write_json_atomically,
)

pytestmark = pytest.mark.core


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "deep" / "file"
    write_bytes_atomically(path, b"1")
    path.chmod(0o640)
    write_bytes_atomically(path, b"22")
    assert path.read_bytes() == b"22"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path.parent) == ["file"]


def test_a_new_file_has_the_permissions_of_the_process(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes_atomically(tmp_path / "file", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_long_name(tmp_path):
    write_bytes_atomically(tmp_path / ("n" * 255), b"1")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    target, link = tmp_path / "target", tmp_path / "link"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to("target")
    write_bytes_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("make", ["null", "link to null"])
def test_a_device_is_written_and_stays(tmp_path, make):
    path = tmp_path / "out"
    if make == "null":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except OSError:
            pytest.skip("needs the right to make a device")
    else:
        path.symlink_to("/dev/null")
    before = path.stat()
    write_json_atomically(path, {"a": 1})
    assert is_stream(path)
    assert stat.S_ISCHR(path.stat().st_mode)
    assert path.stat().st_rdev == before.st_rdev
    assert names(tmp_path) == ["out"]


def test_a_fifo_is_written_for_its_reader_and_refused_without_one(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(OSError, match="has no reader") as error:
        write_bytes_atomically(path, b"1")
    assert error.value.filename == str(path)
    # More than a pipe holds at once.
    content = os.urandom(300_000)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    for _ in range(1000):
        try:
            write_bytes_atomically(path, content)
            break
        except OSError:
            time.sleep(0.01)
    reader.join(timeout=30)
    assert found == [content]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("redirect", [">", ">>", "|"])
def test_standard_output_is_written_where_it_is(tmp_path, redirect):
    code = (
        "import pathlib, sys\n"
        "from adaptive_nets.runtime.files import write_bytes_atomically\n"
        "print('before')\n"
        "write_bytes_atomically(pathlib.Path('/dev/stdout'), b'content\\n')\n"
        "print('after')\n"
    )
    out = tmp_path / "out"
    out.write_text("kept\n" if redirect == ">>" else "")
    to = f"| cat > {out}" if redirect == "|" else f"{redirect} {out}"
    subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {to}', sys.executable, code], check=True, timeout=60
    )
    earlier = "kept\n" if redirect == ">>" else ""
    assert out.read_text() == f"{earlier}before\ncontent\nafter\n"


def test_a_folder_is_refused_and_named(tmp_path):
    with pytest.raises(IsADirectoryError) as error:
        write_bytes_atomically(tmp_path, b"1")
    assert str(tmp_path) in describe_os_error(error.value)
    assert names(tmp_path) == []


def test_a_full_disk_is_named_and_the_file_stays(small_disk):
    path = small_disk / "file"
    write_bytes_atomically(path, b"old")
    with pytest.raises(OSError, match="No space left") as error:
        write_bytes_atomically(path, bytes(6 * 2**20))
    assert error.value.errno == errno.ENOSPC
    message = describe_os_error(error.value)
    assert message.startswith(f"{path} cannot be written: no space left on the disk")
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["file"]


def test_temporary_files_of_dead_processes_are_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ended = tmp_path / "seed0" / temporary(tmp_path / "seed0", dead.pid)
    ours = temporary(tmp_path, os.getpid())
    # The process of a file of another host is unknown, and only its age counts.
    recent, old = (tmp_path / f".file.elsewhere-{number}-0123abcd.tmp" for number in (1, 2))
    recent.write_text("")
    old.write_text("")
    os.utime(old, (0, 0))
    for other in (".hidden.tmp", "file.tmp", ".notes"):
        (tmp_path / other).write_text("")
    assert sorted(remove_stale_temporaries(tmp_path)) == sorted([ended, old])
    assert names(tmp_path / "seed0") == []
    assert set(names(tmp_path)) == {
        ours, recent.name, ".hidden.tmp", "file.tmp", ".notes", "seed0",
    }  # fmt: skip


def temporary(folder, process):
    """Makes a temporary file as a killed process leaves it; returns its name."""
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    code = (
        "import os, pathlib, sys\n"
        "from adaptive_nets.runtime import files\n"
        "files.os.replace = lambda *names: os._exit(9)\n"
        "files.os.getpid = lambda: int(sys.argv[2])\n"
        "files.write_bytes_atomically(pathlib.Path(sys.argv[1], 'record.json'), b'1')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(process)], check=False, timeout=60)
    (made,) = set(folder.iterdir()) - before
    return made.name


def test_a_lock_is_held_by_one(tmp_path):
    second = lock_directory(tmp_path / "a")
    with (
        lock_directory(tmp_path / "a"),
        pytest.raises(UserError, match="in use by another run"),
        second,
    ):
        pass
    assert names(tmp_path / "a") == [".lock"]


def test_a_refused_folder_is_left_as_it_was(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    for folder in (tmp_path / "mine", tmp_path / "new" / "deep"):
        with pytest.raises(UserError, match="refused"), lock_directory(folder):
            raise UserError("refused")
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == ["file"]
