"""Describes a checkpoint, and writes it in another format.

    python -m tools.convert_checkpoint --pretrained checkpoint.pth.tar                                          # describe
    python -m tools.convert_checkpoint --pretrained checkpoint_0450.pth.tar --to ours --output ours.pth.tar     # a released one
    python -m tools.convert_checkpoint --pretrained runs/joint/checkpoint_last.pth.tar --to encoder --output encoder.pth

The formats are described in `engine.convert`.
"""

import sys

from options.convert import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


from pathlib import Path

from engine.convert import Source, converted
from options.backbones import as_words
from utils import checkpoint as files
from utils.errors import UserError, run


def main(argv=None) -> int:
    args = parse_args(argv)
    output = Path(args.output)
    if args.to and output.exists():  # never overwritten: another format may hold less than the file that is there
        raise UserError(f"--output {output}: the file already exists; remove it, or give another name")
    source = Source(args.checkpoint, args.stream, args.layout, args.persons)
    print(f"{args.checkpoint}, {files.resolved(args.checkpoint).stat().st_size / 1e6:.1f} MB")
    print("\n".join(f"  {line}" for line in source.described()))
    if args.to is None:
        return 0
    content = converted(source, args.to, args.half)
    output.parent.mkdir(parents=True, exist_ok=True)
    files.save(output, content)
    left = [k for k in ("optimizer",) if source.content.get(k)]
    if unstorable := as_words(source.unstorable) if args.to == "released" else []:
        print(f"the released format cannot store how clips are read: always give {' '.join(unstorable)} with this file")
    print(
        f"{output}: {args.to} format, {len(content['state_dict'])} tensors, {output.stat().st_size / 1e6:.1f} MB"
        + ("; without the optimizer, so a run cannot be resumed from it" if left else "")
    )
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
