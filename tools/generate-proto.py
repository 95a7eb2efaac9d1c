"""Generates pagestore/v1 from proto/. With --check: fails when the tree differs from that."""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generate(out: Path) -> None:
    sources = sorted(str(p.relative_to(ROOT / "proto")) for p in ROOT.glob("proto/**/*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            *sources,
        ]
    )
    if code != 0:
        sys.exit(code)


def differing(out: Path) -> list[str]:
    made = {p.relative_to(out): p.read_text() for p in out.rglob("*") if p.is_file()}
    return [
        str(path)
        for path, text in sorted(made.items())
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differing(Path(scratch))
    if stale:
        sys.exit(f"Not what proto/ generates: {', '.join(stale)}. Run `make proto`.")


if __name__ == "__main__":
    main()
