"""How far a training has come, from what its last checkpoint says."""

from rum_core.progress import duration
from rum_core.settings import Train
from rum_core.training.loop import PARTS, Progress


def come_so_far(progress: Progress, seconds: float, train: Train) -> str:
    """`select: epoch 5 of at most 30, at most 4 min left in all`; the phase has taken `seconds`.

    The phases to come run, at this phase's pace, the epochs that were best; as many as this one may
    have, until that is known.
    """
    phase, most = progress.phase, "at most " if progress.phase == "select" else ""
    total = train.epochs if most else progress.epochs
    phases = list(PARTS)
    later = len(phases) - 1 - phases.index(phase) - (train.serve == "train")
    after = total if most and not progress.finished else progress.epochs
    left = (0 if progress.finished else total - progress.epoch) + max(0, later) * after
    pace = seconds / max(1, progress.epoch)
    said = f"{phase}: epoch {progress.epoch} of {most}{total}"
    return f"{said}, {most or 'about '}{duration(pace * left)} left in all"
