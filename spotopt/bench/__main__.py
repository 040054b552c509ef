"""`python -m spotopt.bench [name …]`: every benchmark, or the named ones, each in a process of its own."""

import subprocess
import sys

BENCHES = ("scan", "pages", "agent_scale", "agents")


def main() -> int:
    """Run the benches one after the other; the exit status says whether all aims were met."""
    names = sys.argv[1:] or BENCHES
    failed = []
    for name in names:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-m", f"spotopt.bench.{name}"], check=False).returncode:  # noqa: S603
            failed.append(name)
    if failed:
        sys.stdout.write(f"Short of the aim: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
