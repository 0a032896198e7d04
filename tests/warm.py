"""A process that has imported what is slow to import and forks a child for every program that is asked of it.

Most of a short `ckd` is imports. The child is a process of its own, with its own standard streams, and ends as any
does; but it does not start as a user's does: what is about starting or importing is not asked here. It reads a
request a line and answers each with the child's exit code.
"""

import atexit
import importlib
import json
import os
import sys
import traceback

SLOW = (
    "duckdb",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "ckd.pipeline.cli",
    "ckd.stages.distill.run",
    "ckd.stages.export.audience",
    "ckd.stages.teachers.recformer.network",
    "ckd.stages.teachers.unisrec.network",
    "ckd.stages.text.encode",
)


def serve() -> None:
    """Answer until there are no more requests."""
    for name in SLOW:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(**request))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(folder: str, arguments: list[str], environment: dict[str, str], code: str, out: str, err: str) -> int:
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        os.dup2(os.open(path, how), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[1:] = arguments
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve()
