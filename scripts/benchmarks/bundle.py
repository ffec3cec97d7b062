"""Measures gapscan beside its peers, in one run on one machine, and prints ratios.

    scripts/bench bundle [--mb 2048] [--runs 3] [--only load,build,...]

Builds and loads the same images with gapscan, skopeo, crane and regctl (those that are on PATH), between registries
on loopback: Debian's docker-registry over TLS, for figures on resuming also gapscan's own and distribution 3 (as
`registry-v3` or $GAPSCAN_BENCH_REGISTRY_V3). Another peer joins in by a command for one image:

    GAPSCAN_BENCH_PEER_LOAD='tool push {layout}:{tag} {registry}/{name}:1'

Times are medians of the runs, in which the tools take turns. The machine is never quiet: look at the ratios.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib

from common import MIB, Runner, Wire, disk_used, free_port, median, say


# --- what is moved -----------------------------------------------------------------------------------------------------


class Images:
    """Images of random bytes, as OCI layouts: layers are gzip without compression, so that no tool recompresses them."""

    def __init__(self, folder):
        self.folder = folder
        self.blobs = {}
        self.images = {}

    def _blob(self, pieces):
        path = self.folder / "new"
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as out:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                out.write(piece)
        name = digest.hexdigest()
        path.rename(self.folder / name)
        self.blobs[name] = size
        return {"digest": f"sha256:{name}", "size": size}

    def layer(self, size):
        def pieces():
            packer = zlib.compressobj(0, zlib.DEFLATED, 31)
            header = tar_header("data", size)
            diff.update(header)
            yield packer.compress(header)
            left = size
            while left:
                piece = os.urandom(min(MIB, left))
                left -= len(piece)
                diff.update(piece)
                yield packer.compress(piece)
            end = bytes(-size % 512 + 1024)
            diff.update(end)
            yield packer.compress(end)
            yield packer.flush()

        diff = hashlib.sha256()
        blob = self._blob(pieces())
        blob["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
        return blob, f"sha256:{diff.hexdigest()}"

    def image(self, name, layers):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
        }
        config = self._blob([json.dumps(config).encode()])
        config["mediaType"] = "application/vnd.oci.image.config.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [blob for blob, _ in layers],
        }
        manifest = self._blob([json.dumps(manifest).encode()])
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
        needed = [manifest, config] + [blob for blob, _ in layers]
        self.images[name] = (manifest, needed)

    def layout(self, path, names):
        """A layout of these images with blobs hard linked, each image tagged by its name."""
        blobs = path / "blobs/sha256"
        blobs.mkdir(parents=True)
        manifests = []
        for name in names:
            manifest, needed = self.images[name]
            for blob in needed:
                digest = blob["digest"].removeprefix("sha256:")
                if not (blobs / digest).exists():
                    os.link(self.folder / digest, blobs / digest)
            manifests.append({**manifest, "annotations": {"org.opencontainers.image.ref.name": name}})
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
        (path / "index.json").write_text(json.dumps(index))
        return path

    @property
    def unique(self):
        return sum(self.blobs.values())


def tar_header(name, size):
    block = bytearray(512)
    block[0 : len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    # Sizes beyond eleven octal digits don't occur here.
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def make_images(folder, total, count):
    """`count` images of `total` unique bytes: one base for all, one middle layer for every four, one own layer each."""
    folder.mkdir()
    images = Images(folder)
    base = images.layer(total * 15 // 100)
    middles = [images.layer(total * 5 // 100) for _ in range(0, count, 4)]
    rest = total - total * 15 // 100 - len(middles) * (total * 5 // 100)
    weights = [1 + 2 * (n % 4) for n in range(count)]
    for n, weight in enumerate(weights):
        own = images.layer(rest * weight // sum(weights))
        small = images.layer(10_000 + n)
        images.image(f"image-{n}", [base, middles[n // 4], own, small])
    return images


# --- registries --------------------------------------------------------------------------------------------------------


class Registry:
    """A registry process on loopback. `kind` is docker, v3 or gapscan."""

    def __init__(self, bench, kind, name, tls=True):
        self.bench, self.kind, self.tls = bench, kind, tls
        self.folder = bench.work / f"registry-{name}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.port = free_port()
        self.log = self.folder / "log"
        self.start()

    def start(self):
        if self.kind == "gapscan":
            command = [self.bench.gapscan, "registry", "serve", "--data", self.folder / "data"]
            command += ["--listen", f"127.0.0.1:{self.port}"]
            command += (
                ["--tls-cert", self.bench.cert, "--tls-key", self.bench.key] if self.tls else ["--plain-http"]
            )
        else:
            config = {
                "version": 0.1,
                "log": {"level": "error", "accesslog": {"disabled": False}},
                "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
                "http": {"addr": f"127.0.0.1:{self.port}", "secret": "bench"},
            }
            if self.tls:
                config["http"]["tls"] = {"certificate": str(self.bench.cert), "key": str(self.bench.key)}
            # YAML is a superset of JSON.
            (self.folder / "config.yml").write_text(json.dumps(config))
            program = "docker-registry" if self.kind == "docker" else self.bench.registry_v3
            command = [program, "serve", self.folder / "config.yml"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
        for _ in range(400):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        sys.exit(f"{self.kind} registry does not start: {self.log.read_text()[-500:]}")

    @property
    def name(self):
        return f"127.0.0.1:{self.port}"

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def requests(self, about=""):
        log = self.log.read_text(errors="replace")
        return len(re.findall(rf'"(?:GET|HEAD|POST|PUT|PATCH|DELETE) /v2/[^ "]*{about}', log))

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- measuring ---------------------------------------------------------------------------------------------------------


class Bench(Runner):
    def __init__(self, arguments):
        super().__init__(arguments.binary)
        self.arguments = arguments
        self.bundles = 0
        v3 = os.environ.get("GAPSCAN_BENCH_REGISTRY_V3") or shutil.which("registry-v3")
        self.registry_v3 = v3
        self.certificate()
        self.environment |= {
            "HOME": str(self.work / "home"),
            "XDG_CACHE_HOME": str(self.work / "cache"),
            "SSL_CERT_FILE": str(self.ca),
        }
        (self.work / "home").mkdir()
        self.run([self.gapscan, "trust", "init", self.work / "trust", "--unencrypted"])

    def certificate(self):
        """A CA for the clients, and a server's certificate by it."""
        self.ca, self.cert, self.key = (self.work / f for f in ("ca.pem", "cert.pem", "key.pem"))
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make = ["openssl", "req", "-x509", "-days", "2", *key]
        quiet = {"check": True, "stderr": subprocess.DEVNULL}
        ca_key = self.work / "ca.key"
        subprocess.run([*make, "-subj", "/CN=bench CA", "-keyout", ca_key, "-out", self.ca], **quiet)
        server = ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
        signed = ["-CA", self.ca, "-CAkey", ca_key, "-keyout", self.key, "-out", self.cert]
        subprocess.run([*make, *server, *signed], **quiet)
        # skopeo wants a folder.
        (self.work / "certs").mkdir()
        shutil.copy(self.ca, self.work / "certs/ca.crt")

    def bundle(self, images_from, keep=False):
        """Locks a bundle of these images (name to source) and gives its definition."""
        self.bundles += 1
        folder = self.work / f"bundle-{self.bundles}"
        folder.mkdir()
        lines = [
            "apiVersion: gapscan/v1",
            "kind: Bundle",
            f"name: bench-{self.bundles}",
            "version: 1",
            "validFor: 7d",
            "registries:",
            *[f'  "{host}": {{caFile: "{self.ca}"}}' for host in {s.split("/")[0] for s in images_from.values()} if ":" in host and not host.startswith("oci:")],
            "images:",
            *[f'- {{name: {name}, from: "{source}"}}' for name, source in images_from.items()],
        ]
        if lines[lines.index("registries:") + 1] == "images:":
            lines.remove("registries:")
        (folder / "bundle.yaml").write_text("\n".join(lines) + "\n")
        self.run([self.gapscan, "bundle", "lock", "-f", folder / "bundle.yaml"])
        return folder / "bundle.yaml"

    def build_command(self, definition, out, *more):
        return [self.gapscan, "bundle", "build", "-f", definition, "--keys", self.work / "trust", "-o", out, *more]

    def load_command(self, bundle, port, tls=True, state=None):
        state = state or self.work / f"state-{time.monotonic_ns()}"
        how = ["--ca", self.ca] if tls else ["--plain-http"]
        root = self.work / "trust/root.json"
        return [self.gapscan, "load", bundle, "--root", root, "--registry", f"127.0.0.1:{port}/b", "--state", state, *how]

    def peers(self):
        peers = {}
        if shutil.which("skopeo"):
            peers["skopeo"] = "skopeo --tmpdir $TMPDIR copy --quiet --dest-cert-dir {certs} oci:{layout}:{name} docker://{registry}/b/{name}:1"
        if shutil.which("crane"):
            peers["crane"] = "crane push {layouts}/{name} {registry}/b/{name}:1 >/dev/null 2>&1"
        if shutil.which("regctl"):
            peers["regctl"] = "regctl image copy -v error ocidir://{layout}:{name} {registry}/b/{name}:1 >/dev/null"
        if os.environ.get("GAPSCAN_BENCH_PEER_LOAD"):
            peers["peer"] = os.environ["GAPSCAN_BENCH_PEER_LOAD"]
        return peers

    def pullers(self):
        peers = {}
        if shutil.which("skopeo"):
            peers["skopeo"] = "skopeo --tmpdir $TMPDIR copy --quiet --src-cert-dir {certs} docker://{registry}/b/{name}:1 oci:{out}:{name}"
        if shutil.which("crane"):
            peers["crane"] = "crane pull --format=oci {registry}/b/{name}:1 {out} >/dev/null 2>&1"
        if shutil.which("regctl"):
            peers["regctl"] = "regctl image copy -v error {registry}/b/{name}:1 ocidir://{out}:{name} >/dev/null"
        return peers

    # --- figures -----------------------------------------------------------------------------------------------------

    def prepare(self):
        total = self.arguments.mb * 1_000_000
        say(f"making 12 images of {self.arguments.mb} MB")
        self.images = make_images(self.work / "blobs", total, 12)
        names = list(self.images.images)
        self.layout = self.images.layout(self.work / "layout", names)
        for name in names:
            single = self.images.layout(self.work / "layouts" / name, [name])
            # crane pushes a layout of one image as that image.
            index = json.loads((single / "index.json").read_text())
            del index["manifests"][0]["annotations"]
            (single / "index.json").write_text(json.dumps(index))
        self.names = names
        say("building the bundle of them")
        definition = self.bundle({name: f"oci:{self.layout}:{name}" for name in names})
        self.file = self.work / "bench.tar"
        self.run(self.build_command(definition, self.file))

    def loop(self, template, registry, out=""):
        fill = {"certs": self.work / "certs", "layout": self.layout, "layouts": self.work / "layouts", "registry": registry, "out": out}
        return "\n".join(template.format(name=name, tag=name, **fill) for name in self.names)

    def load(self):
        tools = {"gapscan": None, **self.peers()}
        first, again = {t: [] for t in tools}, {t: [] for t in tools}
        requests, about_blobs, registry_cpu = {}, {}, {t: [] for t in tools}
        for run in range(self.arguments.runs):
            for tool, template in tools.items():
                say(f"load, run {run + 1}: {tool}")
                registry = Registry(self, "docker", "load")
                state = self.work / "state-load"
                shutil.rmtree(state, ignore_errors=True)
                command = self.load_command(self.file, registry.port, state=state) if template is None else self.loop(template, registry.name)
                first[tool].append(self.run(command))
                registry_cpu[tool].append(registry.cpu())
                before, about_blobs[tool] = registry.requests(), registry.requests("/blobs/")
                again[tool].append(self.run(command))
                requests[tool] = (before, registry.requests() - before)
                registry.stop()
        blobs = len(self.images.blobs)
        print(f"\nload of {self.images.unique / MIB:.0f} MiB in 12 images ({blobs} blobs with manifests) into docker-registry over TLS")
        print(f"{'':8} {'wall':>8} {'CPU':>8} {'peak':>9} {'temp.':>9} {'requests':>8} {'registry':>9} | again {'wall':>8} {'requests':>8}")
        for tool in tools:
            c, a = first[tool], again[tool]
            print(
                f"{tool:8} {median([x.wall for x in c]):6.2f} s {median([x.cpu for x in c]):6.2f} s {max(x.rss for x in c) / MIB:5.1f} MiB"
                f" {max(x.disk for x in c) / MIB:5.0f} MiB {requests[tool][0]:8} {median(registry_cpu[tool]):7.2f} s |       {median([x.wall for x in a]):6.2f} s {requests[tool][1]:8}"
            )
        peers = [t for t in tools if t != "gapscan"]
        ours = median([x.wall for x in first["gapscan"]])
        ours_again = median([x.wall for x in again["gapscan"]])
        if peers:
            best = min(peers, key=lambda t: median([x.wall for x in first[t]]))
            self.ratio("load wall over the best peer", ours / median([x.wall for x in first[best]]), "< 0.5", best)
        self.ratio("load again over the first", ours_again / ours, "< 0.1")
        if "regctl" in again:
            self.ratio("load again over regctl's", ours_again / median([x.wall for x in again["regctl"]]), "< 1")
        # Every image has its own repository; gapscan's own image and the catalog with its metadata are there besides.
        places = sum(len(needed) - 1 for _, needed in self.images.images.values()) + 2 + 7
        self.ratio("requests about blobs per blob and repository", about_blobs["gapscan"] / places, "<= 3")
        # The catalog and gapscan's own image are there besides.
        self.ratio("requests per item when nothing is new", requests["gapscan"][1] / (len(self.names) + 2), "<= 2, and a few for the catalog")

    def build(self):
        upstream = Registry(self, "docker", "upstream")
        say("filling the upstream registry")
        filler = self.peers().get("regctl") or self.peers().get("skopeo")
        self.run(self.loop(filler, upstream.name))
        definition = self.bundle({name: f"{upstream.name}/b/{name}:1" for name in self.names})
        tools = {"gapscan": None, **self.pullers()}
        costs, written = {t: [] for t in tools}, {}
        for run in range(self.arguments.runs):
            for tool, template in tools.items():
                say(f"build, run {run + 1}: {tool}")
                out = self.work / "pulled"
                shutil.rmtree(out, ignore_errors=True)
                if template is None:
                    out.mkdir()
                    shutil.rmtree(self.work / "cache", ignore_errors=True)
                    command = self.build_command(definition, out / "b.tar", "--no-cache")
                else:
                    command = self.loop(template, upstream.name, out)
                costs[tool].append(self.run(command))
                written[tool] = disk_used(out) + costs[tool][-1].disk
        print("\nbuild of the same from docker-registry over TLS")
        print(f"{'':8} {'wall':>8} {'CPU':>8} {'peak':>9} {'written/unique':>15}")
        for tool in tools:
            c = costs[tool]
            print(f"{tool:8} {median([x.wall for x in c]):6.2f} s {median([x.cpu for x in c]):6.2f} s {max(x.rss for x in c) / MIB:5.1f} MiB {written[tool] / self.images.unique:15.2f}")
        peers = [t for t in tools if t != "gapscan"]
        if peers:
            best = min(peers, key=lambda t: median([x.wall for x in costs[t]]))
            self.ratio("build wall over the best peer", median([x.wall for x in costs["gapscan"]]) / median([x.wall for x in costs[best]]), "< 0.7", best)
        self.ratio("bytes written over unique bytes", (self.work / "pulled").exists() and written["gapscan"] / self.images.unique, "1.00, and gapscan's own image")
        wire = Wire(upstream.port)
        definition.write_text(definition.read_text().replace(upstream.name, f"127.0.0.1:{wire.port}"))
        self.run([self.gapscan, "bundle", "lock", "-f", definition])
        shutil.rmtree(self.work / "cache", ignore_errors=True)
        self.run(self.build_command(definition, self.work / "first.tar"))
        received = wire.received
        self.run(self.build_command(definition, self.work / "second.tar"))
        self.ratio("bytes received over unique bytes, first build", received / self.images.unique, "1.00")
        self.ratio("the same, second build with nothing new", (wire.received - received) / self.images.unique, "0.00")
        same = subprocess.run(["cmp", self.work / "first.tar", self.work / "second.tar"]).returncode == 0
        print(f"  both builds {'give the same bytes' if same else 'DIFFER'}")
        for name in ("first.tar", "second.tar"):
            (self.work / name).unlink()
        shutil.rmtree(self.work / "pulled")
        wire.close()
        upstream.stop()

    def cpu(self):
        print("\nCPU of a load over that of SHA-256 alone")
        floor = min(self.run(["openssl", "dgst", "-sha256", self.file]).cpu for _ in range(3))
        for tls, aim in ((True, "< 2.5"), (False, "< 1.5")):
            cpus = []
            for _ in range(self.arguments.runs):
                registry = Registry(self, "docker", "cpu", tls)
                cpus.append(self.run(self.load_command(self.file, registry.port, tls)).cpu)
                registry.stop()
            self.ratio(f"load CPU over openssl's, {'TLS' if tls else 'plain'} ({median(cpus):.2f} s of {floor:.2f} s)", median(cpus) / floor, aim)

    def memory(self):
        print("\npeak memory")
        for mb in (200, 4000):
            images = make_images(self.work / f"blobs-{mb}", mb * 1_000_000, 4)
            layout = images.layout(self.work / f"layout-{mb}", list(images.images))
            shutil.rmtree(self.work / f"blobs-{mb}")
            upstream = Registry(self, "docker", "memory-up")
            names, self.names = self.names, list(images.images)
            whole, self.layout = self.layout, layout
            self.run(self.loop(self.peers().get("regctl") or self.peers().get("skopeo"), upstream.name))
            self.names, self.layout = names, whole
            shutil.rmtree(layout)
            definition = self.bundle({name: f"{upstream.name}/b/{name}:1" for name in images.images})
            out = self.work / "memory.tar"
            build = self.run(self.build_command(definition, out, "--no-cache"))
            upstream.stop()
            registry = Registry(self, "docker", "memory")
            load = self.run(self.load_command(out, registry.port))
            registry.stop()
            print(f"  {mb} MB: build {build.rss / MIB:.1f} MiB, load {load.rss / MIB:.1f} MiB (aim: < 32, flat); temporary disk of load {load.disk / MIB:.1f} MiB (aim: 0)")
            out.unlink()

    def bytes(self):
        print("\nbytes sent over unique missing bytes")
        registry = Registry(self, "docker", "bytes")
        wire = Wire(registry.port)
        self.run(self.load_command(self.file, wire.port))
        self.ratio("into an empty registry", wire.sent / self.file.stat().st_size, "1.00")
        wire.close()
        registry.stop()

    def resume(self):
        print("\nafter kill -9 at half of a blob of 1 GB: bytes sent again over its size")
        folder = self.work / "blobs-large"
        folder.mkdir()
        images = Images(folder)
        images.image("large", [images.layer(1_000_000_000)])
        layout = images.layout(self.work / "layout-large", ["large"])
        definition = self.bundle({"large": f"oci:{layout}:large"})
        bundle = self.work / "large.tar"
        self.run(self.build_command(definition, bundle))
        shutil.rmtree(folder)
        shutil.rmtree(layout)
        kinds = ["gapscan", "docker"] + (["v3"] if self.registry_v3 else [])
        if not self.registry_v3:
            print("  distribution 3 is not here and left out")
        print("  docker-registry 2.8 does not tell how much of a cut request it has, so that nothing of it can be gone on with")
        size = bundle.stat().st_size
        for kind in kinds:
            registry = Registry(self, kind, "resume")
            wire = Wire(registry.port)
            state = self.work / f"state-resume-{kind}"
            command = [str(c) for c in self.load_command(bundle, wire.port, state=state)]
            process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while wire.sent < size // 2 and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(1)
            sent = wire.sent
            self.run(command)
            again = sent + (wire.sent - sent) - size
            self.ratio(f"{kind}", max(again, 0) / size, "< 0.10")
            wire.close()
            registry.stop()
        bundle.unlink()


FIGURES = ["load", "build", "cpu", "memory", "bytes", "resume"]


def main(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=2048, help="megabytes of the images together [2048]")
    parser.add_argument("--runs", type=int, default=3, help="runs of what is timed [3]")
    parser.add_argument("--only", default=",".join(FIGURES), help=f"some of {','.join(FIGURES)}")
    parser.add_argument("--binary", type=pathlib.Path, help="measure this gapscan instead of building one")
    arguments = parser.parse_args(argv)
    for program in ("docker-registry", "openssl", "cargo"):
        if not shutil.which(program):
            sys.exit(f"{program} is needed (Debian packages docker-registry and openssl; Rust)")
    Bench(arguments).measure(FIGURES, arguments.only)
