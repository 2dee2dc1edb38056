"""Do examples/team and examples/public run as their READMEs say?

Each folder is copied, and the commands of its README are typed one after the other, as they stand there. What is printed
must be what the README shows; `…` stands for any letters, alone on a line for any lines.
"""

import re
import shutil
import subprocess
import time

import lane

EXAMPLES = ("team", "public")
PATIENCE = 60
# Commands that only look.
LOOKS = re.compile(r"waystation (list|audit|explain|call everything__get-)")


def commands(readme):
    """The commands of a README, each with what it is to print."""
    for block in re.findall(r"^```console\n(.*?)^```", readme, re.M | re.S):
        for command in re.split(r"^\$ ", block, flags=re.M)[1:]:
            first, _, output = command.partition("\n")
            yield first, output.rstrip("\n")


def pattern(shown):
    """A regular expression of what a README shows."""
    lines = [".*" if line == "…" else re.escape(line).replace("…", "[^\n]*") for line in shown.split("\n")]
    return "\n".join(lines)


def fits(shown, seen):
    return re.fullmatch(pattern(shown), seen, re.S) is not None


def typed(command, env, work):
    """What a command prints."""
    done = subprocess.run(
        ["bash", "-c", command], env=env, cwd=work, timeout=PATIENCE, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return done.stdout.rstrip("\n")


def check(tally, binary, folder, name):
    work = folder / f"example-{name}"
    shutil.copytree(lane.ROOT / "examples" / name, work)
    (work / "bin").mkdir()
    (work / "bin" / "waystation").symlink_to(binary.resolve())
    ports = [lane.free_port(), lane.free_port()]
    env = {
        "PATH": f"{work / 'bin'}:{lane.os.environ['PATH']}",
        "HOME": str(work),
        "XDG_STATE_HOME": str(work),
        "WAYSTATION_LISTEN__ADDRESS": f"127.0.0.1:{ports[0]}",
        "WAYSTATION_LISTEN__ADMIN": f"127.0.0.1:{ports[1]}",
        # Where the server is installed, so that npx need not fetch it.
        "WAYSTATION_BACKENDS__EVERYTHING__CWD": str(lane.npm_tools(lane.TESTS / "real")),
    }
    readme = (work / "README.md").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{ports[0]}")
    served = None
    try:
        for command, shown in commands(readme):
            if command == "waystation serve":
                served = lane.Process(["waystation", "serve"], work / "serve.log", env=env, cwd=work)
                tally.check(f"{name}: $ {command}", ready(work, env), lane.shorten((work / "serve.log").read_text()))
                continue
            seen = typed(command, env, work)
            # What another process has written is seen a moment later, on a busy disk a long one.
            for _ in range(PATIENCE if LOOKS.search(command) else 0):
                if fits(shown, seen):
                    break
                time.sleep(1)
                seen = typed(command, env, work)
            tally.check(f"{name}: $ {command}", fits(shown, seen), f"{seen!r} instead of {shown!r}")
    finally:
        if served:
            served.stop()


def ready(work, env):
    """Is the server behind the gateway there, in good time?"""
    for _ in range(PATIENCE * 5):
        asked = subprocess.run(["waystation", "status"], env=env, cwd=work, text=True, capture_output=True)
        if re.search(r"^everything +ready", asked.stdout, re.M):
            return True
        time.sleep(0.2)
    return False


def run(tally, binary, folder):
    """All examples that have a README."""
    for name in EXAMPLES:
        check(tally, binary, folder, name)
