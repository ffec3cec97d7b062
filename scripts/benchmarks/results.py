"""Measures what reading scanners' results costs, beside programs that only look whether a file is well-formed.

    scripts/bench results [--only arf,trivy,...] [--sizes 10,1000] [--runs 3]

Needs `jq` and `xmllint` on PATH (Debian packages jq and libxml2-utils), GNU time, and as much room as the largest file needs
twice. Files are made here, the same in every run, in the shape that the scanners give theirs: few controls and many findings,
as reports of that size are. One is there at a time, and each is read once before anything is timed.

The peer of JSON is `jq length FILE`, of JSON lines `jq -n 'reduce inputs as $line (0; . + 1)' FILE`, which holds one line at a
time, of XML `xmllint --noout FILE`, and `xmllint --stream --noout FILE`, which holds no tree. None of them makes anything of
what it reads; gapscan also digests the file, and says what is in it.
"""
import argparse
import json
import pathlib
import random
import shutil
import sys
import tempfile

from common import MIB, Runner, median, say

MB = 10**6
WORDS = (
    "access account allowed attacker buffer cache certificate check configuration container control crafted credentials daemon "
    "denial directory disk exceeds execution expected file flaw found group handling header heap host integer kernel library "
    "local lock memory mode module network node option overflow owner package parser password path permission pointer policy "
    "port privileges process protocol read remote request root rule runtime secret server service socket system user value"
).split()
SEVERITIES = ("CRITICAL", "HIGH", "HIGH", "MEDIUM", "MEDIUM", "MEDIUM", "LOW", "LOW")
# What stands in a template for the number of what is made of it.
N = "@@N@@"


class Text:
    """Words by a seed: the same in every run."""

    def __init__(self):
        self.random = random.Random(7)

    def words(self, count):
        return " ".join(self.random.choice(WORDS) for _ in range(count))

    def sentence(self, count):
        return self.words(count).capitalize() + ' in "' + self.words(2) + '".'

    def lines(self, count):
        return "\n".join(self.words(9) for _ in range(count))

    def hexadecimal(self, count):
        return "".join(self.random.choice("0123456789abcdef") for _ in range(count))

    def links(self, count):
        return [f"https://{self.words(1)}.example/advisories/CVE-2026-{N}/{self.words(1)}" for _ in range(count)]

    def one_of(self, these):
        return self.random.choice(these)


class Filler:
    """Writes numbered copies of templates until enough is written."""

    def __init__(self, file, size):
        self.file, self.size, self.number = file, size, 0

    def put(self, text):
        self.file.write(text.encode())

    def full(self, share=1.0):
        return self.file.tell() >= self.size * share

    def fill(self, templates, share=1.0, between=",\n"):
        """Up to this share of the size, with at least one copy."""
        first = True
        while first or not self.full(share):
            pieces = []
            for _ in range(16):
                pieces.append(templates[self.number % len(templates)].replace(N, str(self.number)))
                self.number += 1
            self.put(("" if first else between) + between.join(pieces))
            first = False

    def count(self, templates, how_many, between=",\n"):
        self.put(between.join(templates[n % len(templates)].replace(N, str(n)) for n in range(how_many)))


def indented(value, level, step=2):
    """As a member of a list at this level of a document that is written for people."""
    text = json.dumps(value, indent=step)
    return " " * (level * step) + text.replace("\n", "\n" + " " * (level * step))


def many(make, count=64):
    return [make(n) for n in range(count)]


def cvss(text):
    return {"nvd": {"V3Vector": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", "V3Score": text.one_of((4.3, 7.8, 9.8))}}


def purl(name):
    return f"pkg:deb/debian/{name}-{N}@1.2.{N}-4?arch=amd64&distro=debian-12.5"


# --- the formats: each writes a whole result of about the size


def trivy(out, text):
    def vulnerability(n):
        name = text.words(1)
        return indented(
            {
                "VulnerabilityID": f"CVE-2026-{N}", "PkgID": f"{name}-{N}@1.2-4", "PkgName": f"{name}-{N}",
                "PkgIdentifier": {"PURL": purl(name), "UID": text.hexadecimal(16)},
                "InstalledVersion": f"1.2.{N}-4", "FixedVersion": "1.3", "Status": text.one_of(("affected", "fixed")),
                "Layer": {"Digest": f"sha256:{text.hexadecimal(64)}", "DiffID": f"sha256:{text.hexadecimal(64)}"},
                "SeveritySource": "debian", "PrimaryURL": f"https://avd.example/nvd/cve-2026-{N}",
                "DataSource": {"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://tracker.example"},
                "Fingerprint": f"sha256:{text.hexadecimal(64)}", "Title": text.sentence(9), "Description": text.sentence(80),
                "Severity": text.one_of(SEVERITIES), "CweIDs": ["CWE-273", "CWE-787"],
                "VendorSeverity": {"debian": 1, "nvd": 3, "redhat": 1, "ubuntu": 1}, "CVSS": cvss(text),
                "References": text.links(8), "PublishedDate": "2026-01-02T01:15:00Z", "LastModifiedDate": "2026-02-03T12:15:00Z",
            },
            4,
        )  # fmt: skip

    out.put(
        '{\n  "SchemaVersion": 2,\n  "Trivy": {\n    "Version": "0.60.0"\n  },\n  "ArtifactName": "registry.example/app:1",\n'
        '  "ArtifactType": "container_image",\n  "Metadata": {"OS": {"Family": "debian", "Name": "12.5"}},\n  "Results": [\n'
        '    {\n      "Target": "app (debian 12.5)",\n      "Class": "os-pkgs",\n      "Type": "debian",\n      "Vulnerabilities": [\n'
    )
    out.fill(many(vulnerability))
    out.put("\n      ]\n    }\n  ]\n}\n")


def grype(out, text):
    def match(n):
        name = text.words(1)
        about = lambda namespace: {
            "id": f"CVE-2026-{N}", "dataSource": f"https://tracker.example/CVE-2026-{N}", "namespace": namespace,
            "severity": text.one_of(SEVERITIES).capitalize(), "urls": text.links(4), "description": text.sentence(50),
            "cvss": [{"source": "nvd@nist.gov", "type": "Primary", "version": "3.1", "vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
                      "metrics": {"baseScore": 9.8, "exploitabilityScore": 3.9, "impactScore": 5.9}, "vendorMetadata": {}}],
            "epss": [{"cve": f"CVE-2026-{N}", "epss": 0.01262, "percentile": 0.78, "date": "2026-01-02"}],
            "cwes": [{"cve": f"CVE-2026-{N}", "cwe": "CWE-787", "source": "nvd@nist.gov", "type": "Primary"}],
        }  # fmt: skip
        return indented(
            {
                "vulnerability": {**about("debian:distro:debian:12"), "fix": {"versions": ["1.3"], "state": "fixed"}, "advisories": [], "risk": 0.9},
                "relatedVulnerabilities": [about("nvd:cpe")],
                "matchDetails": [{"type": "exact-direct-match", "matcher": "dpkg-matcher", "searchedBy": {
                    "distro": {"type": "debian", "version": "12"}, "package": {"name": f"{name}-{N}", "version": "1.2-4"}},
                    "found": {"versionConstraint": "< 1.3 (deb)", "vulnerabilityID": f"CVE-2026-{N}"}}],
                "artifact": {"id": text.hexadecimal(16), "name": f"{name}-{N}", "version": f"1.2.{N}-4", "type": "deb",
                    "locations": [{"path": f"/var/lib/dpkg/info/{name}-{N}.list", "layerID": f"sha256:{text.hexadecimal(64)}"}],
                    "language": "", "licenses": ["GPL-2.0-only"], "cpes": [f"cpe:2.3:a:{name}:{name}-{N}:1.2-4:*:*:*:*:*:*:*"],
                    "purl": purl(name), "upstreams": [{"name": name}]},
            },
            2, 1,
        )  # fmt: skip

    out.put('{\n "matches": [\n')
    out.fill(many(match))
    out.put(
        '\n ],\n "source": {"type": "image", "target": {"userInput": "registry.example/app:1", "layers": []}},\n'
        ' "distro": {"name": "debian", "version": "12", "idLike": []},\n "descriptor": {"name": "grype", "version": "0.100.0",'
        ' "db": {"status": {"schemaVersion": "v6.1.0", "built": "2026-01-02T03:04:05Z", "valid": true}}}\n}\n'
    )


def inspec(out, text):
    """As many results in each of 300 controls as it takes: profiles ask for a property of every file, user or mount."""
    controls = 300

    def result(n):
        status = "failed" if n % 3 == 0 else "passed"
        more = {"message": text.lines(4)} if status == "failed" else {}
        path = f"/usr/share/{text.words(1)}/{text.words(1)}-{N}"
        return json.dumps(
            {
                "status": status, "code_desc": f"File {path} is expected not to be writable by others", "run_time": 0.000271,
                "start_time": "2026-01-02T03:04:05+00:00", "resource_class": "file", "resource_params": f'["{path}"]', "resource_id": path, **more,
            }
        )  # fmt: skip

    results = many(result)
    out.put('{"platform":{"name":"debian","release":"12.5","target_id":"t"},"profiles":[{"name":"stig","version":"1.0.0","controls":[')
    for n in range(controls):
        head = {
            "id": f"SV-{230000 + n}", "title": text.sentence(16), "desc": text.lines(8),
            "descriptions": [{"label": label, "data": text.lines(20)} for label in ("default", "check", "fix")],
            "impact": text.one_of((0.3, 0.5, 0.7)), "refs": [],
            "tags": {"gtitle": f"SRG-OS-{n:06}", "gid": f"V-{n}", "rid": f"SV-{n}r1_rule", "stig_id": f"DEB-12-{n:06}",
                     "cci": ["CCI-000366", f"CCI-{n:06}"], "nist": ["CM-6 b", "Rev_4"]},
            "code": text.lines(40), "source_location": {"line": 1, "ref": f"controls/{n}.rb"}, "waiver_data": {},
        }  # fmt: skip
        out.put(("" if n == 0 else ",") + json.dumps(head)[:-1] + ',"results":[')
        out.fill(results, (n + 1) / controls, ",")
        out.put("]}")
    out.put('],"groups":[],"sha256":"0","status":"loaded"}],"statistics":{"duration":1.5},"version":"5.24.24"}\n')


def kube_bench(out, text):
    """The same hundred tests on every node, as reports of nodes are put together."""

    def group(n):
        tests = [
            {
                "test_number": f"4.{t // 10 + 1}.{t % 10 + 1}", "test_desc": text.sentence(12),
                "audit": f"/bin/sh -c 'stat -c permissions=%a /etc/kubernetes/{text.words(1)}'", "AuditEnv": "", "AuditConfig": "", "type": "",
                "remediation": text.lines(4), "test_info": [text.lines(4)], "status": ("PASS", "FAIL", "WARN")[t % 3],
                "actual_value": f"permissions=600 node-{N}\n", "scored": True, "IsMultiple": False, "expected_result": "bitmask '600' AND '644'",
            }
            for t in range(100)
        ]  # fmt: skip
        counts = [sum(test["status"] == word for test in tests) for word in ("PASS", "FAIL", "WARN")] + [0]
        words = ("pass", "fail", "warn", "info")
        return json.dumps(
            {
                "id": "4", "version": "cis-1.8", "detected_version": "1.28", "text": "Worker Node Security Configuration", "node_type": f"node-{N}",
                "tests": [{"section": "4.1", "type": "", **dict(zip(words, counts)), "desc": text.sentence(5), "results": tests}],
                **{f"total_{word}": count for word, count in zip(words, counts)},
            }
        )  # fmt: skip

    out.put("[")
    out.fill(many(group, 4), between=",")
    out.put("]\n")


def sarif(out, text):
    def rule(n):
        return json.dumps(
            {"id": f"CHECK-{N}", "name": text.words(3), "shortDescription": {"text": text.sentence(8)}, "fullDescription": {"text": text.sentence(40)},
             "help": {"text": text.lines(12), "markdown": text.lines(12)}, "helpUri": f"https://rules.example/{N}",
             "defaultConfiguration": {"level": text.one_of(("error", "warning", "note"))}, "properties": {"tags": ["security", "external/cwe/cwe-120"], "security-severity": "7.5"}}
        )  # fmt: skip

    def result(n):
        return indented(
            {
                "ruleId": f"CHECK-{n * 7}", "ruleIndex": n * 7, "level": text.one_of(("error", "warning")), "message": {"text": text.sentence(25)},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": f"src/{text.words(1)}/{text.words(1)}-{N}.c", "uriBaseId": "SRCROOT"},
                    "region": {"startLine": 36, "startColumn": 2, "endColumn": 10, "snippet": {"text": text.lines(3)}},
                    "contextRegion": {"startLine": 33, "endLine": 39, "snippet": {"text": text.lines(7)}}}}],
                "partialFingerprints": {"primaryLocationLineHash": f"{text.hexadecimal(16)}:{N}"}, "rank": 1.0,
                "codeFlows": [{"threadFlows": [{"locations": [{"location": {"physicalLocation": {"artifactLocation": {"uri": f"src/{text.words(1)}.c"},
                    "region": {"startLine": line}}, "message": {"text": text.words(6)}}} for line in (3, 9, 27)]}]}],
            },
            4,
        )  # fmt: skip

    out.put('{\n  "$schema": "https://json.schemastore.org/sarif-2.1.0.json",\n  "version": "2.1.0",\n  "runs": [\n    {\n')
    out.put('      "tool": {"driver": {"name": "checker", "version": "1.2.3", "rules": [')
    out.count(many(rule), 500)
    out.put(']}},\n      "results": [\n')
    out.fill(many(result))
    out.put("\n      ]\n    }\n  ]\n}\n")


def cyclonedx(out, text):
    def component(n):
        name = text.words(1)
        return indented(
            {
                "bom-ref": purl(name), "type": "library", "supplier": {"name": "Somebody <somebody@debian.example>"}, "name": f"{name}-{N}",
                "version": f"1.2.{N}-4", "licenses": [{"license": {"id": "GPL-2.0-or-later"}}], "purl": purl(name),
                "properties": [{"name": f"aquasecurity:trivy:{key}", "value": f"sha256:{text.hexadecimal(64)}"} for key in ("LayerDiffID", "LayerDigest", "PkgID", "SrcName")],
            },
            2,
        )  # fmt: skip

    def vulnerability(n):
        return indented(
            {
                "id": f"CVE-2026-{N}", "source": {"name": "debian", "url": "https://tracker.example"},
                "ratings": [{"source": {"name": "nvd"}, "score": 7.8, "severity": text.one_of(SEVERITIES).lower(), "method": "CVSSv31", "vector": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}],
                "cwes": [273, 787], "description": text.sentence(80), "recommendation": "Upgrade to 1.3", "advisories": [{"url": url} for url in text.links(8)],
                "published": "2026-01-02T01:15:00+00:00", "affects": [{"ref": purl(text.words(1)), "versions": [{"version": "1.2-4", "status": "affected"}]}],
            },
            2,
        )  # fmt: skip

    out.put(
        '{\n  "bomFormat": "CycloneDX",\n  "specVersion": "1.6",\n  "metadata": {"tools": {"components": [{"name": "trivy", "version": "0.60.0"}]},'
        ' "component": {"bom-ref": "root", "type": "container", "name": "registry.example/app:1"}},\n  "components": [\n'
    )
    out.fill(many(component), 0.5)
    out.put('\n  ],\n  "vulnerabilities": [\n')
    out.fill(many(vulnerability))
    out.put("\n  ]\n}\n")


def spdx(out, text):
    def package(n):
        name = text.words(1)
        return indented(
            {
                "name": f"{name}-{N}", "SPDXID": f"SPDXRef-Package-deb-{name}-{N}-{text.hexadecimal(16)}", "versionInfo": f"1.2.{N}-4", "supplier": "Person: Somebody (somebody@debian.example)",
                "originator": "Person: Somebody (somebody@debian.example)", "downloadLocation": "NOASSERTION", "filesAnalyzed": True,
                "packageVerificationCode": {"packageVerificationCodeValue": text.hexadecimal(40)}, "sourceInfo": f"acquired package info from DPKG DB: /var/lib/dpkg/status, /usr/share/doc/{name}/copyright",
                "licenseConcluded": "NOASSERTION", "licenseDeclared": "GPL-2.0-or-later AND MIT", "copyrightText": "NOASSERTION",
                "externalRefs": [{"referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": f"cpe:2.3:a:{name}:{name}-{N}:1.2-4:*:*:*:*:*:*:*"},
                                 {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl(name)}],
            },
            2, 1,
        )  # fmt: skip

    def file(n):
        return indented(
            {"fileName": f"usr/share/{text.words(1)}/{text.words(1)}-{N}", "SPDXID": f"SPDXRef-File-{N}-{text.hexadecimal(16)}", "fileTypes": ["TEXT"],
             "checksums": [{"algorithm": "SHA1", "checksumValue": text.hexadecimal(40)}, {"algorithm": "SHA256", "checksumValue": text.hexadecimal(64)}],
             "licenseConcluded": "NOASSERTION", "licenseInfoInFiles": ["NOASSERTION"], "copyrightText": "", "comment": f"layerID: sha256:{text.hexadecimal(64)}"},
            2, 1,
        )  # fmt: skip

    relation = lambda n: indented({"spdxElementId": f"SPDXRef-Package-deb-{N}", "relatedSpdxElement": f"SPDXRef-File-{N}-{text.hexadecimal(16)}", "relationshipType": "CONTAINS"}, 2, 1)
    out.put(
        '{\n "spdxVersion": "SPDX-2.3",\n "dataLicense": "CC0-1.0",\n "SPDXID": "SPDXRef-DOCUMENT",\n "name": "registry.example/app",\n'
        ' "documentNamespace": "https://anchore.example/x",\n "creationInfo": {"licenseListVersion": "3.25", "creators": ["Organization: Anchore, Inc",'
        ' "Tool: syft-1.20.0"], "created": "2026-01-02T03:04:05Z"},\n "packages": [\n'
    )
    out.fill(many(package), 0.3)
    out.put('\n ],\n "files": [\n')
    out.fill(many(file), 0.8)
    out.put('\n ],\n "relationships": [\n')
    out.fill(many(relation))
    out.put("\n ]\n}\n")


def syft(out, text):
    def artifact(n):
        name = text.words(1)
        files = [{"path": f"/usr/share/{name}/{text.words(1)}-{at}", "digest": {"algorithm": "md5", "value": text.hexadecimal(32)}, "isConfigFile": False} for at in range(12)]
        return indented(
            {
                "id": text.hexadecimal(16), "name": f"{name}-{N}", "version": f"1.2.{N}-4", "type": "deb", "foundBy": "dpkg-db-cataloger",
                "locations": [{"path": "/var/lib/dpkg/status", "layerID": f"sha256:{text.hexadecimal(64)}", "accessPath": "/var/lib/dpkg/status", "annotations": {"evidence": "primary"}}],
                "licenses": [{"value": "GPL-2.0-only", "spdxExpression": "GPL-2.0-only", "type": "declared", "urls": [], "locations": []}], "language": "",
                "cpes": [{"cpe": f"cpe:2.3:a:{name}:{name}-{N}:1.2-4:*:*:*:*:*:*:*", "source": "syft-generated"}], "purl": purl(name),
                "metadataType": "dpkg-db-entry", "metadata": {"package": f"{name}-{N}", "source": "", "version": "1.2-4", "architecture": "amd64", "maintainer": "Somebody", "installedSize": 230, "files": files},
            },
            2, 1,
        )  # fmt: skip

    def file(n):
        return indented(
            {"id": text.hexadecimal(16), "location": {"path": f"/usr/share/{text.words(1)}-{N}", "layerID": f"sha256:{text.hexadecimal(64)}"},
             "metadata": {"mode": 644, "type": "RegularFile", "userID": 0, "groupID": 0, "mimeType": "text/plain", "size": 1234},
             "digests": [{"algorithm": "sha256", "value": text.hexadecimal(64)}]},
            2, 1,
        )  # fmt: skip

    out.put('{\n "artifacts": [\n')
    out.fill(many(artifact), 0.7)
    out.put('\n ],\n "files": [\n')
    out.fill(many(file))
    out.put(
        '\n ],\n "source": {"id": "x", "name": "registry.example/app", "version": "sha256:1", "type": "image", "metadata": {"userInput": "registry.example/app:1"}},\n'
        ' "distro": {"id": "debian", "versionID": "12"},\n "descriptor": {"name": "syft", "version": "1.20.0"},\n "schema": {"version": "16.0.0"}\n}\n'
    )


def clair(out, text):
    """Few packages and many vulnerabilities of each, which is what makes a report long."""
    packages = 2000
    out.put('{"manifest_hash":"sha256:' + text.hexadecimal(64) + '","packages":{')
    package = lambda n: f'"{N}":' + json.dumps(
        {"id": N, "name": f"{text.words(1)}-{N}", "version": f"1.2.{N}-4", "kind": "binary", "arch": "x86_64", "normalized_version": "", "module": "", "cpe": "",
         "source": {"id": N, "name": f"{text.words(1)}-{N}", "version": "1.2", "kind": "source"}})  # fmt: skip
    out.count(many(package), packages, ",")
    out.put('},"distributions":{"1":{"id":"1","did":"rhel","name":"Red Hat","version":"9","version_id":"9"}},"repository":{},"environments":{},"vulnerabilities":{')

    def vulnerability(n):
        return f'"{N}":' + json.dumps(
            {
                "id": N, "updater": "rhel-vex", "name": f"CVE-2026-{N}", "description": text.sentence(90), "issued": "2026-01-02T00:00:00Z", "links": " ".join(text.links(8)),
                "severity": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "normalized_severity": text.one_of(SEVERITIES).capitalize(), "package": {"id": "", "name": text.words(1), "version": ""},
                "distribution": {"id": "", "did": "", "name": ""}, "repository": {"name": "cpe:/o:redhat:enterprise_linux:9::baseos", "uri": ""}, "fixed_in_version": "1.3", "arch_op": "pattern match",
            }
        )  # fmt: skip

    out.fill(many(vulnerability), 0.99, ",")
    known = out.number
    out.put('},"package_vulnerabilities":{')
    each = known // packages + 1
    out.put(
        ",".join(
            f'"{n}":[' + ",".join(f'"{at}"' for at in range(n * each, min((n + 1) * each, known))) + "]" for n in range(packages)
        )
    )
    out.put('},"enrichments":{}}\n')


def falco(out, text):
    def alert(n):
        rule = f"{text.words(3)} {n}".capitalize()
        pod = f"web-{text.hexadecimal(10)}-{text.hexadecimal(5)}"
        fields = {
            "container.id": text.hexadecimal(12), "container.image.repository": "registry.example/app", "container.name": "app", "evt.time": 1767322445000000000, "evt.type": "openat",
            "fd.name": f"/etc/{text.words(1)}-{N}", "k8s.ns.name": "shop", "k8s.pod.name": pod, "proc.cmdline": f"sh -c {text.words(12)}", "proc.name": "sh", "proc.pname": "node",
            "proc.tty": 0, "user.loginuid": -1, "user.name": "root",
        }  # fmt: skip
        said = f"03:04:05.{N}: Warning {text.sentence(20)} ({' '.join(f'{key}={value}' for key, value in fields.items())})"
        return json.dumps({"hostname": "node-1", "output": said, "output_fields": fields, "priority": text.one_of(("Warning", "Notice", "Critical")), "rule": rule,
                           "source": "syscall", "tags": ["T1059", "container", "maturity_stable"], "time": "2026-01-02T03:04:05.000000000Z"})  # fmt: skip

    out.fill(many(alert), between="\n")
    out.put("\n")


def escaped(words):
    return words.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def junit(out, text):
    """Test cases that keep what they printed, which is what makes a report long."""

    def suite(n):
        cases = ""
        for case in range(20):
            name = f'classname="org.example.{text.words(1).capitalize()}Test" name="{text.words(4)} {N} {case}" time="0.013"'
            failure = f'<failure message="{escaped(text.sentence(8))}" type="AssertionError">{escaped(text.lines(25))} &lt;init&gt;</failure>' if case % 5 == 0 else ""
            cases += f"    <testcase {name}>{failure}\n      <system-out><![CDATA[{text.lines(90)}]]></system-out>\n    </testcase>\n"
        return f'  <testsuite name="suite-{N}" tests="20" failures="4" errors="0" skipped="0" time="0.3">\n    <properties><property name="os" value="linux"/></properties>\n{cases}  </testsuite>'

    out.put('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="tests">\n')
    out.fill(many(suite, 32), between="\n")
    out.put("\n</testsuites>\n")


def arf(out, text):
    """600 rules, and what OVAL collected for them, which is nearly all of a large one."""
    rules = [f"xccdf_org.example.content_rule_{text.words(3).replace(' ', '_')}_{n}" for n in range(600)]
    out.put(
        '<?xml version="1.0" encoding="UTF-8"?>\n<arf:asset-report-collection xmlns:arf="http://scap.nist.gov/schema/asset-reporting-format/1.1">\n  <arf:report-requests>\n'
        '    <arf:report-request id="collection1">\n      <arf:content>\n        <Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_org.example_benchmark">\n'
    )
    for rule in rules:
        out.put(
            f'          <Rule id="{rule}" severity="medium" selected="true">\n            <title>{text.sentence(9).replace(chr(34), "")}</title>\n'
            f'            <description>{escaped(text.lines(8))} <code>{text.words(3)}</code></description>\n            <reference href="https://nvd.example/800-53">CM-6(a)</reference>\n'
            f'            <fix system="urn:xccdf:fix:script:sh">{escaped(text.lines(20))} &amp;&amp; true</fix>\n          </Rule>\n'
        )
    out.put(
        '        </Benchmark>\n      </arf:content>\n    </arf:report-request>\n  </arf:report-requests>\n  <arf:reports>\n    <arf:report id="xccdf1">\n      <arf:content>\n'
        '        <TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="t" start-time="2026-01-02T03:04:05" end-time="2026-01-02T03:05:06" version="0.1.76" test-system="cpe:/a:redhat:openscap:1.3.7">\n'
        '          <benchmark href="#scap" id="xccdf_org.example_benchmark"/>\n          <profile idref="xccdf_org.example.content_profile_standard"/>\n          <target>node-1</target>\n'
    )
    for n, rule in enumerate(rules):
        word = ("pass", "pass", "fail", "notapplicable", "notchecked", "pass")[n % 6]
        out.put(
            f'          <rule-result idref="{rule}" role="full" time="2026-01-02T03:04:06+00:00" severity="medium" weight="1.000000">\n            <result>{word}</result>\n'
            f'            <ident system="https://ncp.nist.gov/cce">CCE-{80000 + n}-1</ident>\n            <check system="http://oval.mitre.org/XMLSchema/oval-definitions-5">\n'
            f'              <check-content-ref name="oval:def:{n}" href="#oval0"/>\n            </check>\n          </rule-result>\n'
        )
    out.put(
        '        </TestResult>\n      </arf:content>\n    </arf:report>\n    <arf:report id="oval0">\n      <arf:content>\n        <oval_results xmlns="http://oval.mitre.org/XMLSchema/oval-results-5" '
        'xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5">\n          <results>\n            <system>\n              <definitions>\n'
    )
    definition = lambda n: (
        f'                <definition definition_id="oval:ssg-{text.words(1)}:def:{N}" result="true" version="1">\n                  <criteria operator="AND" result="true">\n'
        f'                    <extend_definition definition_ref="oval:ssg-{text.words(1)}:def:{N}" version="1" result="true"/>\n'
        f'                    <criterion test_ref="oval:ssg-test_{text.words(1)}:tst:{N}" version="1" result="true"/>\n                  </criteria>\n                </definition>'
    )
    test = lambda n: (
        f'                <test test_id="oval:ssg-test_{text.words(1)}:tst:{N}" version="1" check_existence="all_exist" check="all" result="true">\n'
        f'                  <tested_item item_id="{N}" result="true"/>\n                </test>'
    )
    out.fill(many(definition), 0.25, "\n")
    out.put("\n              </definitions>\n              <tests>\n")
    out.fill(many(test), 0.4, "\n")
    out.put(
        '\n              </tests>\n              <oval_system_characteristics xmlns="http://oval.mitre.org/XMLSchema/oval-system-characteristics-5">\n'
        '                <system_data xmlns:ind-sys="http://oval.mitre.org/XMLSchema/oval-system-characteristics-5#independent" xmlns:unix-sys="http://oval.mitre.org/XMLSchema/oval-system-characteristics-5#unix">\n'
    )

    def item(n):
        if n % 3 == 0:
            return (
                f'                  <ind-sys:textfilecontent_item id="{N}" status="exists">\n                    <ind-sys:filepath>/etc/{text.words(1)}.d/{text.words(1)}-{N}.conf</ind-sys:filepath>\n'
                f'                    <ind-sys:pattern>^\\s*{text.words(1)}\\s+(\\S+)</ind-sys:pattern>\n                    <ind-sys:instance datatype="int">1</ind-sys:instance>\n'
                f'                    <ind-sys:text>{escaped(text.lines(6))} &amp; more</ind-sys:text>\n                  </ind-sys:textfilecontent_item>'
            )
        modes = "".join(
            f'                    <unix-sys:{who}{what} datatype="boolean">false</unix-sys:{who}{what}>\n' for who in "ugo" for what in ("read", "write", "exec")
        )
        return (
            f'                  <unix-sys:file_item id="{N}" status="exists">\n                    <unix-sys:filepath>/usr/share/{text.words(1)}/{text.words(1)}-{N}</unix-sys:filepath>\n'
            f'                    <unix-sys:type>regular</unix-sys:type>\n                    <unix-sys:user_id datatype="int">0</unix-sys:user_id>\n{modes}                  </unix-sys:file_item>'
        )

    out.fill(many(item), between="\n")
    out.put(
        "\n                </system_data>\n              </oval_system_characteristics>\n            </system>\n          </results>\n        </oval_results>\n      </arf:content>\n"
        "    </arf:report>\n  </arf:reports>\n</arf:asset-report-collection>\n"
    )


FORMATS = {
    "arf": arf, "inspec": inspec, "trivy": trivy, "grype": grype, "kube-bench": kube_bench, "sarif": sarif, "cyclonedx": cyclonedx,
    "spdx": spdx, "syft": syft, "junit": junit, "clair": clair, "falco": falco,
}  # fmt: skip
# What more a format may take than so many MiB for whatever is in its file.
MEMORY_MIB = 256


class Bench(Runner):
    def __init__(self, arguments):
        super().__init__(arguments.binary)
        self.runs = arguments.runs
        self.sizes = [int(size) for size in arguments.sizes.split(",")]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="results-", dir=arguments.folder or self.work))

    def prepare(self):
        for program in ("jq", "xmllint"):
            if not shutil.which(program):
                sys.exit(f"{program} is needed")
        print(f"{'format':<11}{'MB':>6}  {'program':<18}{'wall s':>8}{'MB/s':>8}{'peak MiB':>10}")

    def end(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        super().end()

    def peers(self, name, path):
        if name == "falco":
            return {"jq, by line": ["jq", "-n", "reduce inputs as $line (0; . + 1)", path]}
        if name in ("arf", "junit"):
            return {
                "xmllint": ["xmllint", "--huge", "--noout", path],
                "xmllint --stream": ["xmllint", "--huge", "--stream", "--noout", path],
            }
        return {"jq length": ["jq", "length", path]}

    def of(self, name):
        """Reads files of one format, and prints how that compares."""
        peaks = {}
        for size in self.sizes:
            path = self.folder / f"{name}-{size}"
            say(f"making {size} MB of {name}")
            with path.open("wb", 1 << 20) as file:
                FORMATS[name](Filler(file, size * MB), Text())
            length = path.stat().st_size
            runs = self.runs if size < 100 else 1
            commands = {"gapscan read": [self.gapscan, "read", path, "-o", "json"], **self.peers(name, path)}
            costs = {}
            for program, command in commands.items():
                # 3: something was not evaluated, which is so in these files.
                costs[program] = [self.run(command, fine=(0, 3)) for _ in range(runs)]
                wall = median([cost.wall for cost in costs[program]])
                peak = median([cost.rss for cost in costs[program]])
                print(f"{name:<11}{size:>6}  {program:<18}{wall:>8.2f}{length / MB / wall:>8.0f}{peak / MIB:>10.0f}", flush=True)
            path.unlink()
            ours = median([cost.wall for cost in costs["gapscan read"]])
            peaks[size] = median([cost.rss for cost in costs["gapscan read"]]) / MIB
            for program in list(costs)[1:]:
                theirs = median([cost.wall for cost in costs[program]])
                self.ratio(f"{name}, {size} MB: times as fast as {program}", theirs / ours, ">= 1")
            self.ratio(f"{name}, {size} MB: peak memory in MiB", peaks[size], f"< {MEMORY_MIB}")
        if len(peaks) > 1:
            first, last = peaks[min(peaks)], peaks[max(peaks)]
            self.ratio(f"{name}: MiB more for {max(peaks)} MB than for {min(peaks)} MB", last - first, "flat")

    def __getattr__(self, name):
        if name in FORMATS:
            return lambda: self.of(name)
        raise AttributeError(name)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(FORMATS), help=f"some of {','.join(FORMATS)}")
    parser.add_argument("--sizes", default="10,1000", help="megabytes of the files [10,1000]")
    parser.add_argument("--runs", type=int, default=3, help="runs of what is timed on files below 100 MB [3]; one above")
    parser.add_argument("--folder", type=pathlib.Path, help="where the files are made [the folder of the benchmark, in $TMPDIR]")
    parser.add_argument("--binary", type=pathlib.Path, help="measure this gapscan instead of building one")
    arguments = parser.parse_args(argv)
    Bench(arguments).measure(list(FORMATS), arguments.only)
