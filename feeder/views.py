"""The views that the feeder makes for a step: a function and a row of VIEWS each.

A view (n, T, F) is a version of every clip that is contrasted with the clip's key. The paper's views are here, except the
predicted view, which the model computes. To add a view, add a function and a row of VIEWS (from outside of the project
before the program starts, as examples/own_view.py does); a run uses it if it is named: `--view-weights NAME=1`.
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
    """The inputs of the views of a step, on the device of the clips. n rows of this process, F = V * C * M.

    query, key, target (n, T, F): three random crops of each clip; target has no corrupted joints; queries (n or more, T, F):
    the query views, then those of mixing partners that belong to other processes; partner_index (n,): index of each mixing
    partner in `queries`; mix_weight (T, V), mix_index (T,): see feeder.mixing; hidden (T, F) or (n, T, F) bool, True =
    hidden by the mask; layout: of the joints; uniforms(name, *shape): random numbers in [0, 1), (n, *shape), a function of
    seed, step and name."""

    query: Tensor
    key: Tensor
    target: Tensor
    queries: Tensor
    partner_index: Tensor
    mix_weight: Tensor
    mix_index: Tensor
    hidden: Tensor
    layout: Layout
    uniforms: Callable[..., Tensor]


def query(sources: Sources) -> Tensor:
    return sources.query


def masked(sources: Sources) -> Tensor:
    """The target with its hidden coordinates set to 0 (paper section 3.3)."""
    return mask_view(sources.target, sources.hidden)


def mixed(sources: Sources) -> Tensor:
    """The query mixed with the partner's query (paper section 3.2)."""
    return mix_views(sources.query, sources.queries, sources.mix_weight, sources.mix_index, sources.partner_index)


@dataclass(frozen=True)
class View:
    """make: sources -> (n, T, F); prompt: the domain prompt of the view (intra, inter, mask or predict; default intra). Those of
    the paper's views are in models.pcm3.DOMAIN_OF_VIEW."""

    make: Callable[[Sources], Tensor]
    prompt: str | None = None


VIEWS = {"query": View(query), "masked": View(masked), "mixed": View(mixed)}
PAPER_VIEWS = tuple(VIEWS)


def own_views(contrasts) -> dict[str, str]:
    """The domain prompts, by name, of those views in `contrasts` that the paper does not have. UserError for a name that is
    not in VIEWS."""
    own = [name for name in contrasts if name not in (*PAPER_VIEWS, "predicted")]
    for name in own:
        if name not in VIEWS:
            raise UserError(
                f"there is no view {name!r}; expected one of {', '.join((*VIEWS, 'predicted'))}; for a view of your own, "
                "start the program through the file that adds it: python examples/own_view.py pretrain_moco_mask ... "
                "(or visualize ...)"
            )
    return {name: VIEWS[name].prompt or "intra" for name in own}
