"""What all benchmarks share: running a program and what that costs, counting bytes on the wire, telling a ratio."""
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def median(values):
    return statistics.median(values) if values else float("nan")


class Wire:
    """Counts the bytes between a client and a registry; TLS passes through."""

    def __init__(self, port):
        self.to, self.sent, self.received = port, 0, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self._pump, args=(client, server, "sent"), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, "received"), daemon=True).start()

    def _pump(self, one, other, count):
        try:
            while piece := one.recv(MIB):
                setattr(self, count, getattr(self, count) + len(piece))
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            for s in (one, other):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.socket.close()


class Cost:
    def __init__(self, wall, cpu, rss, disk):
        self.wall, self.cpu, self.rss, self.disk = wall, cpu, rss, disk


def disk_used(folder):
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(path, file)).st_blocks * 512
            except OSError:
                pass
    return total


class Runner:
    """A benchmark: a folder of its own that is removed, gapscan as it is released, and figures that are methods."""

    def __init__(self, binary):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gapscan-bench-"))
        self.time = shutil.which("time") or sys.exit("GNU time is needed (Debian package time)")
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
        if not binary:
            say("building gapscan for release")
            subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        self.gapscan = binary.resolve() if binary else target / host / "release/gapscan"
        self.environment = dict(os.environ)

    def measure(self, figures, only):
        """Prepares, and takes each of the figures that are wanted, by the method of its name."""
        wanted = only.split(",")
        if unknown := set(wanted) - set(figures):
            sys.exit(f"no such figure: {', '.join(unknown)}; there are {', '.join(figures)}")
        try:
            self.prepare()
            for figure in figures:
                if figure in wanted:
                    getattr(self, figure)()
        finally:
            self.end()

    def end(self):
        """Ends whatever was started in the benchmark's folder, and removes it."""
        for process in subprocess.run(["pgrep", "-f", str(self.work)], capture_output=True, text=True).stdout.split():
            try:
                os.kill(int(process), signal.SIGTERM)
            except OSError:
                pass
        shutil.rmtree(self.work, ignore_errors=True)

    def run(self, command, within=(), fine=(0,)):
        """Runs to the end and gives what it cost; a command that fails ends the benchmark. `within` is what runs it elsewhere,
        and the codes in `fine` are no failure."""
        tmp = self.work / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        command = ["bash", "-ec", command] if isinstance(command, str) else [str(c) for c in command]
        most, over = 0, threading.Event()

        def watch():
            nonlocal most
            while not over.wait(0.05):
                most = max(most, disk_used(tmp))

        log = self.work / "out"
        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.monotonic()
        with log.open("wb") as out:
            environment = {**self.environment, "TMPDIR": str(tmp)}
            # Not wait4's figures: the peak of a child counts what this process had when it was forked.
            timed = [*within, self.time, "-o", self.work / "time", "-f", "%U %S %M", *command]
            status = subprocess.run(timed, stdout=out, stderr=out, env=environment, cwd=self.work).returncode
        wall = time.monotonic() - started
        over.set()
        watcher.join()
        if status not in fine:
            sys.exit(f"failed: {' '.join(command)[:300]}\n{log.read_text(errors='replace')[-2000:]}")
        user, system, peak = (self.work / "time").read_text().splitlines()[-1].split()
        return Cost(wall, float(user) + float(system), int(peak) * 1024, most)

    def ratio(self, what, value, aim, beside=""):
        print(f"  {what}{f' ({beside})' if beside else ''}: {value:.2f} (aim: {aim})", flush=True)
