"""Our metrics against trec_eval, by which information retrieval has measured since 1992.

Its NDCG has the Z of each user: `ndcg_user`. The paper's Z is the same for all, and both are one
where a user has at least N targets; there `ndcg` is compared too.
"""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from rum_core.evaluation.metrics import METRICS, hit_places, per_user
from tests import oracle

N = 5
NAMES = {
    "precision": f"P_{N}",
    "recall": f"recall_{N}",
    "f1": "set_F",  # of all that is retrieved: the N of the list
    "hit_rate": f"success_{N}",
    "ndcg_user": f"ndcg_cut_{N}",
}
LISTS = st.lists(
    st.tuples(
        st.permutations(range(9)),
        st.sets(st.integers(0, 15), min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=8,
)


@given(LISTS)
def test_metrics_of_each_user_are_those_of_trec_eval(
    drawn: list[tuple[list[int], set[int]]],
) -> None:
    lists = np.array([order[:N] for order, _ in drawn])
    targets = oracle.histories_of([sorted(wanted) for _, wanted in drawn])
    ours = per_user(hit_places(lists, targets), targets.lengths)
    wanted = {f"u{u}": {f"i{i}": 1 for i in items} for u, (_, items) in enumerate(drawn)}
    ranked = {
        f"u{u}": {f"i{i}": float(N - place) for place, i in enumerate(row)}
        for u, row in enumerate(lists.tolist())
    }
    judge = pytrec_eval.RelevanceEvaluator(
        wanted, {"P.5", "recall.5", "set_F", "success.5", "ndcg_cut.5"}
    )
    theirs = judge.evaluate(ranked)
    for u in range(len(drawn)):
        for metric, name in NAMES.items():
            assert ours[u, METRICS.index(metric)] == pytest.approx(theirs[f"u{u}"][name]), metric
        if targets.lengths[u] >= N:
            ndcg = theirs[f"u{u}"][NAMES["ndcg_user"]]
            assert ours[u, METRICS.index("ndcg")] == pytest.approx(ndcg)
