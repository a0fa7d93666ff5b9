"""Where the draft of a recycled transition comes from.

The teacher has seen the transition once, at a discarded state ``x_old`` near the new one. A draft
may

- ``response``: take what the teacher said there, plus a multiple of ``x - x_old``; by which one the
  teacher's prediction follows a state is measured where it has seen a transition twice;
- ``reuse``: take it as it is;
- ``drafter``: take the drafter's own prediction, which still profits from the teacher's feature
  one step before.

A choice between them by what has proved best, and the drafter as a control variate, were tried and
measured to gain nothing (docs/drafting.md).
"""

from __future__ import annotations

from torch import Tensor

from free.ops import response_sums
from free.reference.draft import DRAFTER, RESPONSE, SOURCES
from free.rounds.state import Draft, Response, Samples

#: Weight that a round's evidence keeps in the next one: about the last five rounds count.
_MEMORY = 0.8


def source_of(recycle: bool | str) -> int:
    """The source, an index into :data:`free.reference.draft.SOURCES`, that a sampler's argument
    ``recycle`` asks for: one of their names, True for the response, False for the drafter.
    """
    if isinstance(recycle, str):
        return SOURCES.index(recycle)
    return RESPONSE if recycle else DRAFTER


def updated_response(
    samples: Samples, draft: Draft, guess: Tensor, *, length: Tensor, advance: Tensor
) -> Response:
    """The samples' response with what a round tells of it; older evidence fades.

    ``samples`` are those before the round, ``guess [B, W, ...]`` is what the teacher said in it, as
    drafts guess it. Only the ``advance [B]`` transitions made of ``length [B]`` rows are looked at
    (:class:`Response`).
    """
    past, sums = samples.past, samples.response
    dot, square = response_sums(
        draft.states,
        guess,
        past_x=past.rows.x,
        past_guess=past.guess,
        row=past.row,
        known=past.known,
        length=length,
        advance=advance,
        dot=sums.dot,
        square=sums.square,
        memory=_MEMORY,
    )
    return Response(dot, square)
