"""How much of what is paid for is asked for and used: a score of 0 to 100 and its grade."""

from dataclasses import dataclass

_GRADES = ((85.0, "A"), (70.0, "B"), (60.0, "C"), (50.0, "D"))


@dataclass(frozen=True, slots=True)
class Efficiency:
    """CPU and memory weighted alike; each is requested-and-used over allocatable, in percent."""

    cpu_percent: float
    memory_percent: float

    @property
    def score(self) -> float:
        """Return the mean of both, 0 to 100."""
        return (self.cpu_percent + self.memory_percent) / 2

    @property
    def grade(self) -> str:
        """Return A (from 85), B (70), C (60), D (50) or F."""
        return next((grade for floor, grade in _GRADES if self.score >= floor), "F")


def efficiency(
    *, cpu_useful: float | None, cpu: int | None, memory_useful: float | None, memory: int | None
) -> Efficiency | None:
    """Return the efficiency, or None when nothing was measured."""
    if not cpu or not memory or cpu_useful is None or memory_useful is None:
        return None
    return Efficiency(cpu_percent=100 * cpu_useful / cpu, memory_percent=100 * memory_useful / memory)
