"""Verifies a bundle: a second reader, written from docs/bundle-format.md alone, which shares no code with gapscan.
usage: bundle_reader.py FILE... --root ROOT.json [--state FILE] [--now 2026-02-01T00:00:00Z]
FILE is a bundle, or its parts in order. Prints name, version and content digest; ends with 4 and a reason if not."""
import argparse, hashlib, json, os, re, sys
from datetime import datetime, timezone
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Root, Signature, Snapshot, Targets, Timestamp

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution.manifest."
MANIFESTS, INDEXES = {OCI + "manifest.v1+json", DOCKER + "v2+json"}, {OCI + "index.v1+json", DOCKER + "list.v2+json"}
CATALOG, BLOBS, NAME = "application/vnd.gapscan.catalog.v1+json", "blobs/sha256/", r"[a-z0-9]+(-[a-z0-9]+)*"
REPOSITORY, COMPANION, TAG = "org.opencontainers.image.ref.name", "io.gapscan.repository", "io.gapscan.tag"
DOCUMENTS, KEYS = MANIFESTS | INDEXES | {CATALOG}, {("ecdsa", "ecdsa-sha2-nistp256"), ("ed25519", "ed25519")}
def need(condition, reason):
    if not condition: raise ValueError(reason)
def once(pairs): return need(len(dict(pairs)) == len(pairs), "a member is there twice") or dict(pairs)
def parse(data): return json.loads(data.decode("utf-8"), object_pairs_hook=once)
def one_form(value): return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
def sha256(data): return hashlib.sha256(data).hexdigest()
def time(text): return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
def header(name, size):
    block = b"%b0000644\0%b%011o\0%011o\0        0" % (name.encode().ljust(100, b"\0"), b"0000000\0" * 2, size, 0)
    block = ((block.ljust(257, b"\0") + b"ustar\x0000").ljust(329, b"\0") + b"0000000\0" * 2).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
class Archive:
    def __init__(self, paths):
        parts, self.at = [open(path, "rb").read() for path in paths], 0
        need(all(len(p) == len(parts[0]) and len(p) % 512 == 0 for p in parts[:-1]), "lengths of the parts")
        self.data = b"".join(parts)
    def size_of(self, name, size=None):  # None if it is not the entry that comes next
        block = self.data[self.at:self.at + 512]
        size = int(re.fullmatch(rb"[0-7]{11}", block[124:135])[0], 8) if size is None else size
        return size if block == header(name, size) else None
    def entry(self, name, limit, size=None):
        size = self.size_of(name, size)
        need(size is not None and size <= limit, f"not the header of {name} at byte {self.at}, or it is too large")
        start, self.at = self.at + 512, self.at + 512 + size + -size % 512
        need(len(self.data) >= self.at and not any(self.data[start + size:self.at]), f"cut, or padding, after {name}")
        return self.data[start:start + size]
def verified(data, kind, *roots):
    """Metadata of this kind, signed to the threshold of each of the roots; a root must sign itself, too."""
    value, role = parse(data), kind.type
    need(one_form(value) == data and set(value) == {"signed", "signatures"}, f"{role}: not in the one form")
    signed = kind.from_dict(parse(one_form(value["signed"])))
    need(signed.spec_version == "1.0.0" and 1 <= signed.version < 1 << 53, f"{role}: version")
    if kind is Root:
        roots += (signed,)
        roles = [set(r.keyids) <= set(signed.keys) and r.threshold <= len(r.keyids) for r in signed.roles.values()]
        need(signed.consistent_snapshot is True and all(roles), "root: roles")
        for keyid, key in value["signed"]["keys"].items():
            need((key["keytype"], key["scheme"]) in KEYS and sha256(encode_canonical(key).encode()) == keyid, "a key")
    message, ids = encode_canonical(value["signed"]).encode(), [s["keyid"] for s in value["signatures"]]
    need(ids == sorted(set(ids)), f"{role}: signatures out of order, or two by one key")
    named = {keyid: root.keys[keyid] for root in roots for keyid in root.roles[role].keyids}
    for s in value["signatures"]:
        need(set(s) == {"keyid", "sig"} and re.fullmatch("[0-9a-f]+", s["sig"]), f"{role}: form of a signature")
        named[s["keyid"]].verify_signature(Signature(s["keyid"], s["sig"]), message)
    need(all(len({*ids} & {*r.roles[role].keyids}) >= r.roles[role].threshold for r in roots), f"{role}: threshold")
    return signed, value["signed"]
def check_layout(index, blobs, documents, of_bundle):
    uses, types, items, reached, order = {}, {}, {}, {}, []
    def visit(d, repository, depth, use):
        kind, is_index, digest = d["mediaType"], d["mediaType"] in INDEXES, BLOBS + d["digest"].removeprefix("sha256:")
        need(d["digest"][:7] == "sha256:" and blobs[digest]["length"] == d["size"], "a digest or size")
        need(uses.setdefault(digest, use) == use == ("document" if kind in MANIFESTS | INDEXES else "blob"), "use")
        types.setdefault(digest, set()).add(kind)
        if use == "document":
            reached.setdefault(repository, set()).add(d["digest"])
            body, others = parse(documents[digest]), ("config", "layers") if is_index else ("manifests",)
            need(depth <= 4 and body["schemaVersion"] == 2 and body.get("mediaType", OCI in kind and kind) == kind, "form")
            need(all(body.get(k) is None for k in (*others, "fsLayers", "history")), "a document reads as another")
            for child in body["manifests"] if is_index else [body["config"], *body["layers"]]:
                visit(child, repository, depth + 1, "document" if is_index else "blob")
    need({**index, "manifests": 0} == {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": 0}, "index")
    for d in index["manifests"]:
        item, of = (d["annotations"].get(k) for k in (REPOSITORY, COMPANION))
        need((item is None) != (of is None) and item not in items, "an item without a repository, or two in one")
        need(of or re.fullmatch(f"catalog|(images|profiles|dependencies|charts)/{NAME}", item), "a repository")
        items.update({item: [d[k] for k in ("digest", "size", "mediaType")]} if item else {})
        order.append((item or of, item is None, d["digest"]))
        if item:
            visit(d, item, 0, "document")
    need(order == sorted(set(order)), "the order of index.json")
    def ready(d):
        tag = re.fullmatch(r"sha256-([0-9a-f]{64})\.(sig|att|sbom)", d["annotations"].get(TAG, ""))
        subject = tag and "sha256:" + tag[1] or parse(documents[BLOBS + d["digest"][7:]])["subject"]["digest"]
        return subject in reached[d["annotations"][COMPANION]]
    waiting = [d for d in index["manifests"] if COMPANION in d["annotations"]]
    while waiting:
        found = [d for d in waiting if ready(d)]
        need(found, "a companion of nothing")
        for d in found:
            visit(d, d["annotations"][COMPANION], 0, "document")
        waiting = [d for d in waiting if d not in found]
    signed = {name: t["custom"]["mediaType"] for name, t in blobs.items()}
    need({name: min(found) for name, found in types.items()} == signed, "other blobs or media types than are signed")
    (layer,) = parse(documents[BLOBS + items.pop("catalog")[0][7:]])["layers"]
    catalog = parse(documents[BLOBS + layer["digest"][7:]])
    need(layer["mediaType"] == CATALOG and [catalog[k] for k in ("name", "version", "created")] == of_bundle, "catalog")
    listed = [i for section in ("images", "profiles", "dependencies", "charts") for i in catalog.get(section, [])]
    need(len(listed) == len(items) and items == {i["repository"]: [i["digest"], i["size"], i["mediaType"]]
                                                 for i in listed}, "the catalog lists other items than index.json")
def read(archive, pinned, now):
    roots, files = [], []
    while not roots or len(roots) < 1024 and archive.size_of(f"metadata/{len(roots) + 1}.root.json") is not None:
        files.append(archive.entry(f"metadata/{len(roots) + 1}.root.json", 1 << 16))
        roots.append(verified(files[-1], Root, *roots[-1:])[0])
        need(roots[-1].version == len(roots), "a version of the roots is left out")
    need(pinned in files, "the pinned root is not in the chain")
    timestamp, one = verified(archive.entry("metadata/timestamp.json", 1 << 16), Timestamp, roots[-1])
    v = timestamp.version
    snapshot, two = verified(archive.entry(f"metadata/{v}.snapshot.json", 1 << 16), Snapshot, roots[-1])
    signed, value = verified(archive.entry(f"metadata/{v}.targets.json", 1 << 23), Targets, roots[-1])
    need([one["meta"], two["meta"]] == [{n: {"version": v}} for n in ("snapshot.json", "targets.json")], "meta")
    need(v == snapshot.version == signed.version and "delegations" not in value, "versions, or delegations")
    need(all(now < role.expires.timestamp() for role in (roots[-1], timestamp, snapshot, signed)), "expired")
    label, targets, documents = value["gapscan"], value["targets"], {}
    need(set(label) - {"base"} == {"bundle", "created"} and [*signed.unrecognized_fields] == ["gapscan"], "the label")
    need(re.fullmatch(NAME, label["bundle"]) and len(label["bundle"]) < 64, "the bundle's name")
    need(time(label["created"]) <= now + 3600, "it was made in the future")
    for name, t in targets.items():
        length, custom, digest = t["length"], t["custom"], t["hashes"]["sha256"]
        need(t == {"length": length, "custom": custom, "hashes": {"sha256": digest}}, f"members of {name}")
        need(set(custom) | {"base"} == {"base", "mediaType"} and type(length) is int, f"custom or length of {name}")
        need(re.fullmatch("[0-9a-f]{64}", digest) and re.fullmatch("[!-~]{1,255}", custom["mediaType"]), name)
        need(name in ("oci-layout", "index.json", BLOBS + digest), f"{name} is not named by its digest")
        need("base" not in custom or "base" in label and custom["mediaType"] not in DOCUMENTS, f"{name} is left out")
    blobs = {name: t for name, t in sorted(targets.items()) if name.startswith(BLOBS)}
    held = ["oci-layout", "index.json", *(n for n, t in blobs.items() if t["custom"]["mediaType"] in DOCUMENTS)]
    need(len(held) <= 4098 and sum(targets[n]["length"] for n in held[2:]) <= 268_435_456, "too many documents")
    for name in [*held, *(n for n in blobs if n not in held and "base" not in blobs[n]["custom"])]:
        data = archive.entry(name, 1 << 22 if name in held else 1 << 33, targets[name]["length"])
        need(sha256(data) == targets[name]["hashes"]["sha256"], f"the digest of {name}")
        documents.update({name: data} if name in held else {})
    need(archive.data[archive.at:] == bytes(1024), "the end marker, or something after it")
    need(documents["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}', "oci-layout")
    check_layout(parse(documents["index.json"]), blobs, documents, [label["bundle"], v, label["created"]])
    _ = [part.pop("base", None) for part in (label, *(t["custom"] for t in targets.values()))]
    return sha256(files[0]), [len(files), sha256(files[-1])], label["bundle"], v, "sha256:" + sha256(one_form(value))
def remember(path, now, lineage, root, name, version, content):
    of = (state := json.load(open(path)) if os.path.exists(path) else {}).setdefault(lineage, {"root": root})
    last, digest, seen = of.get("/" + name, (0, "", 0))
    need(root == of["root"] or root[0] > of["root"][0], "an older root, or another one of the same version")
    need(version > last or (version, content) == (last, digest), "rollback, or other content in one version")
    need(now >= seen - 60, "the clock was set back")
    of.update({"root": root, "/" + name: [version, content, max(now, seen)]})
    open(path, "w").write(json.dumps(state))
cli = argparse.ArgumentParser(description=__doc__)
cli.add_argument("files", nargs="+"), cli.add_argument("--root", required=True)
cli.add_argument("--state"), cli.add_argument("--now")
args = cli.parse_args()
try:
    now = time(args.now) if args.now else datetime.now(timezone.utc).timestamp()
    found = read(Archive(args.files), open(args.root, "rb").read(), now)
    args.state and remember(args.state, now, *found)
except Exception as why:  # Whatever goes wrong, nothing was verified.
    sys.exit(print(f"refused: {type(why).__name__}: {why}", file=sys.stderr) or 4)
print(*found[2:])
