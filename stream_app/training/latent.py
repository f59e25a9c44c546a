"""A second view of texts, learned mostly from those that nobody labelled: latent semantic analysis.

Words that are used alike stand close to each other, also words that no labelled text has. So a few labels say more in
this view than in that of single words, and the two err differently. (Deerwester et al. 1990, "Indexing by Latent
Semantic Analysis"; that two views teach each other: Blum and Mitchell 1998, "Combining Labeled and Unlabeled Data
with Co-Training".)
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import normalize

from stream_app.training.corpus import Corpus
from stream_app.training.table import Floats, Places

DIMENSIONS_MAX, TEXTS_FOR_EACH = 300, 50
"""With a dimension for every few texts nothing would be left out, and no word stand for another."""
TEXTS_MIN, SHARE_MAX = 10, 0.3
"""An n-gram is looked at that so many texts have, and no more than this share of them."""
PENALTY_C = 2.0
"""These were chosen on films of `imdb_train` whose labels were hidden. 200 or 500 dimensions, TEXTS_MIN 5 with
SHARE_MAX 0.2 or 20 with 0.5, and C = 1 did no better by more than a standard error."""


def placed(corpus: Corpus, seed: int) -> Floats | None:
    """Each text as a point of length 1 [texts, dimensions], by what it shares with other texts; no label has a say.

    None where too few n-grams are shared by texts for two dimensions.
    """
    counts = np.asarray(corpus.matrix.sum(axis=0)).ravel()
    shared = np.flatnonzero((counts >= TEXTS_MIN) & (counts <= SHARE_MAX * len(corpus.texts)))
    dimensions = min(DIMENSIONS_MAX, len(corpus.texts) // TEXTS_FOR_EACH, len(shared) - 1)
    if dimensions < 2:
        return None
    rarity = np.log(len(corpus.texts) / counts[shared])
    weighed = normalize(corpus.matrix[:, shared] @ sparse.diags_array(rarity))
    found = TruncatedSVD(dimensions, n_iter=3, random_state=seed).fit_transform(weighed)
    return np.asarray(normalize(found), np.float64)


def answers(points: Floats, labels: Places, groups: Sequence[str], folds: int, seed: int) -> tuple[Floats, Floats]:
    """What this view says of all texts, of which the first have these `labels` (places, 0 and up; each has rows).

    Probabilities [labelled, labels] by models that saw no text of the same group, and [unlabelled, labels]. Raises
    ValueError where the labelled rows cannot be cut into folds.
    """
    model = LogisticRegression(C=PENALTY_C, max_iter=1_000)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    known = points[: len(labels)]
    crossed = cross_val_predict(model, known, labels, groups=list(groups), cv=split, method="predict_proba")
    rest = model.fit(known, labels).predict_proba(points[len(labels) :])
    return cast("Floats", crossed), cast("Floats", rest)
