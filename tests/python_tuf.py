"""Verifies the extracted metadata and content of a bundle with python-tuf, which shares no code with gapscan.

usage: python_tuf.py FOLDER ROOT.json, where FOLDER holds the extracted bundle. Prints the number of verified targets.
"""
import pathlib
import sys
import tempfile

from tuf.api.metadata import Metadata
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

folder = pathlib.Path(sys.argv[1]).resolve()
pinned = pathlib.Path(sys.argv[2]).read_bytes()


class Folder(FetcherInterface):
    """Gives files of the folder in place of a server's."""

    def _fetch(self, url):
        path = folder / url.removeprefix("bundle:///")
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                yield chunk


with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as out:
    (pathlib.Path(state) / "root.json").write_bytes(pinned)
    updater = Updater(
        metadata_dir=state,
        metadata_base_url="bundle:///metadata/",
        target_dir=out,
        target_base_url="bundle:///",
        fetcher=Folder(),
        config=UpdaterConfig(prefix_targets_with_hash=False),
        **({"bootstrap": pinned} if "bootstrap" in Updater.__init__.__annotations__ else {}),
    )
    updater.refresh()
    targets = Metadata.from_file(str(next((folder / "metadata").glob("*.targets.json")))).signed.targets
    for name in targets:
        updater.download_target(updater.get_targetinfo(name))
    print(len(targets))
