"""The views of a step that the feeder makes: one declaration each.

A view is a version (n, T, F) of every clip that the encoder must recognise by the clip's key. The paper's are here; the
predicted view is made by the model, while it computes. A further view is a function and a row of VIEWS (in a file of one's own it
is set before the program starts, as examples/own_view.py does), and takes part in a run that names it: `--view-weights NAME=1`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from feeder.masks import mask_view
from feeder.mixing import mix_views
from utils.errors import UserError
from utils.skeleton import Layout


@dataclass(frozen=True)
class Sources:
    """What the views of a step are made of, on the device of the clips. n rows of this process, F = V * C * M.

    query, key, target (n, T, F): three random crops of each clip; of target, and never of the others, no joint is corrupted;
    queries: the query views (n, T, F), and after them those of mixing partners that other processes hold; place (n,): of each
    partner in `queries`; mix_weight (T, V), mix_index (T,): see feeder.mixing; hidden: (T, F) or (n, T, F) bool, what the mask
    hides; layout: of the joints; uniforms(name, *shape): random numbers in [0, 1), (n, *shape), a function of seed, step and
    name."""

    query: Tensor
    key: Tensor
    target: Tensor
    queries: Tensor
    place: Tensor
    mix_weight: Tensor
    mix_index: Tensor
    hidden: Tensor
    layout: Layout
    uniforms: Callable[..., Tensor]


def query(sources: Sources) -> Tensor:
    return sources.query


def masked(sources: Sources) -> Tensor:
    """The target without what is hidden (paper section 3.3)."""
    return mask_view(sources.target, sources.hidden)


def mixed(sources: Sources) -> Tensor:
    """The query with parts or times of the partner's (paper section 3.2)."""
    return mix_views(sources.query, sources.queries, sources.mix_weight, sources.mix_index, sources.place)


@dataclass(frozen=True)
class View:
    """make: sources -> (n, T, F). prompt: which of the model's domain prompts it gets (intra, inter, mask or predict); what the
    paper's views get is a part of the model (models.pcm3.DOMAIN_OF_VIEW)."""

    make: Callable[[Sources], Tensor]
    prompt: str | None = None


VIEWS = {"query": View(query), "masked": View(masked), "mixed": View(mixed)}
PAPER_VIEWS = tuple(VIEWS)


def own_views(contrasts) -> dict[str, str]:
    """Of the views that a run contrasts those that the paper does not have, with their domain prompts; UserError for one that is
    declared nowhere."""
    own = [name for name in contrasts if name not in (*PAPER_VIEWS, "predicted")]
    for name in own:
        if name not in VIEWS:
            raise UserError(
                f"no view is called {name!r}; there are {', '.join((*VIEWS, 'predicted'))}; start the program through the file "
                "that declares it, as in: python examples/own_view.py pretrain_moco_mask ... (or visualize ...)"
            )
    return {name: VIEWS[name].prompt or "intra" for name in own}
