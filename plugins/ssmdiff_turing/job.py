"""The job ``turing``: a study is planned, made and scored. ``ssmdiff.job("turing")`` is
:data:`turing`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ssmdiff import ConfigError, write_atomically

from ssmdiff_turing.images import open_synthetic, real_images, refuse_alike, refuse_unlike
from ssmdiff_turing.page import TITLE, study_page
from ssmdiff_turing.study import PAIRS, SINGLE, Confidence, make_study

if (
    TYPE_CHECKING
):  # what needs statsmodels, whose import takes seconds, is imported where it is used
    from ssmdiff_turing.plan import Plan
    from ssmdiff_turing.score import Score

HANDOUT, PAGE, KEY, SCORE = "handout", "study.html", "key.json", "score"
SMALLEST = 2
"""Images of each kind: fewer cannot be shuffled."""


class Turing:
    """The visual Turing test: ``plan``, ``make``, ``score``, and ``figures`` of counts alone."""

    def make(
        self,
        model: str | Path,
        real: str | Path,
        out: str | Path,
        *,
        n: int = 100,
        seed: int = 0,
        forced_choice: bool = False,
        margin: float = 0.15,
        counted: Confidence = "low",
        held_out: bool = False,
        title: str = TITLE,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        checkpoint: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> Path:
        """Write the page for readers and the key for whoever scores them.

        Args:
            model: A run, an exported file, or a folder of synthetic images.
            real: A run (its data), a data set by name, a store or a folder of real images.
            out: A new folder: ``handout/study.html`` goes to readers, ``key.json`` stays.
            n: Images of each kind; of pairs, pairs.
            seed: Decides which images are drawn and taken. Their order is drawn from the system's
                randomness and stands in the key alone.
            forced_choice: Pairs of a real and a synthetic image, of which readers pick one.
            margin: Of the equivalence test, set now.
            counted: The least confidence that will be counted, set now.
            held_out: Real images of the patients that training never saw.
            title: Over the page.
            steps: Sampling steps; by default the model's.
            scheduler: A noise scheduler; by default the model's.
            checkpoint: Of a run; the newest by default.
            batch_size: Images drawn at once.
            progress: Show a bar.

        Returns:
            The page.

        Raises:
            ConfigError: Images are too few, differ in size, or are the same; or a number does not
                fit; or the folder is there.
            DataError: An image cannot be read.
            DivergedError: A drawn image is not finite.
        """
        folder, model = Path(out), Path(model)
        if folder.exists():
            raise ConfigError(
                f"{folder} is there already; expected a new folder, since a key must not be lost"
            )
        if n < SMALLEST:
            raise ConfigError(f"n is {n}; expected at least {SMALLEST} images of each kind")
        if not 0 < margin < (0.5 if forced_choice else 1):
            raise ConfigError(
                f"margin is {margin}; expected a number between 0 and {0.5 if forced_choice else 1}"
            )
        if counted not in get_args(Confidence):
            raise ConfigError(f"counted is {counted!r}; expected {', '.join(get_args(Confidence))}")
        asked = {"scheduler": scheduler, "steps": steps, "checkpoint": checkpoint}
        synthetic = open_synthetic(model, n, seed, asked, batch_size, progress)
        height, width = synthetic.shape[1:]
        known = real_images(real, n, seed, (height, width), model, held_out)
        refuse_unlike(synthetic.shape, known.levels.shape[1:])
        images = synthetic.images()  # last: a model draws them for minutes or hours
        refuse_alike(images, known)
        study = make_study(
            images,
            known,
            design=PAIRS if forced_choice else SINGLE,
            margin=float(margin),
            counted=counted,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        page = study_page(study, (height, width), title, known.is_open, known.terms)
        (folder / HANDOUT).mkdir(parents=True)
        write_atomically(folder / KEY, (json.dumps(study.key, indent=1) + "\n").encode())
        write_atomically(folder / HANDOUT / PAGE, page.encode())
        return folder / HANDOUT / PAGE

    def score(
        self,
        answers: Sequence[str | Path],
        key: str | Path,
        out: str | Path | None = None,
        *,
        margin: float | None = None,
        counted: str | None = None,
        page: str | Path | None = None,
    ) -> Score:
        """Hold what readers sent against the key, and write tables and a page.

        Args:
            answers: A file of each reader.
            key: ``key.json`` of the study.
            out: A folder for ``score.json``, ``score.csv`` and ``score.html``; ``score`` beside the
                key by default.
            margin: Another than was set when the study was made; said to be post hoc.
            counted: Another least confidence, likewise.
            page: The page, which is then held against the key as well.

        Raises:
            ConfigError: There are no answers, or two files of one reader.
            DataError: A file is not what it should be, was changed, or belongs to another page.
        """
        from ssmdiff_turing.report import score_page
        from ssmdiff_turing.score import score_answers

        found = score_answers(
            [Path(path) for path in answers],
            Path(key),
            margin=margin,
            counted=counted,
            page=None if page is None else Path(page),
        )
        folder = Path(key).parent / SCORE if out is None else Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in (
            ("json", found.to_json()),
            ("csv", found.to_csv()),
            ("html", score_page(found)),
        ):
            write_atomically(folder / f"score.{suffix}", text.encode())
        return found

    def plan(
        self,
        margin: float = 0.15,
        doctors: Sequence[int] = (1, 2, 3, 5),
        *,
        power: float = 0.8,
        rate: float = 0.5,
        agreement: float = 0.2,
        forced_choice: bool = False,
    ) -> Plan:
        """How many images of each kind a margin needs: :func:`ssmdiff_turing.plan.make_plan`."""
        from ssmdiff_turing.plan import make_plan

        return make_plan(margin, doctors, power, rate, agreement, forced_choice)

    def figures(
        self, real: tuple[int, int], synthetic: tuple[int, int], margin: float = 0.15
    ) -> dict[str, Any]:
        """The figures of counts that someone else published.

        Args:
            real: Real images (judged real, judged synthetic).
            synthetic: Synthetic images, likewise.
            margin: Of the equivalence test.
        """
        from ssmdiff_turing import figures

        return figures.figures_of(figures.Counts(real, synthetic), margin)

    def between(
        self, first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        """Fisher's p that two readers judge alike; each is (real, synthetic) as of ``figures``."""
        from ssmdiff_turing import figures

        return figures.between(figures.Counts(*first), figures.Counts(*second))

    def fisher_power(self, n: tuple[int, int], rates: tuple[float, float]) -> float:
        """The chance that Fisher's two-sided test tells two shares apart, exact.

        Args:
            n: Images of either kind.
            rates: The true shares judged real.
        """
        from ssmdiff_turing import figures

        return figures.fisher_power(*n, *rates)


turing = Turing()
