"""Families from shapes and repetition alone, for checkpoints whose tensor names say nothing.

Numbers in names, the lengths of axes, the order of tensors in the file and which tensors share a path are read; words
never are. What repeats with the same shapes is a layer; the length that most of its matrices share is the width of the
stream; the other lengths say which matrix reads and which writes, and how many of each say what they are for:

* one q, two k and v, one o, apart or fused; grouped or not; a second set of the same shapes is attention to another
  stream;
* two readers and a writer are a gated MLP, one of each a plain one, a reader of twice the rows gate and up in one;
* matrices numbered or stacked by expert, and their router;
* vectors beside a matrix are its bias, those that are left are norms.

Shapes cannot tell which of two equal ones is which: k from v, gate from up, the embedding from the output and, at full
width, q, k, v and o. They are taken in the order q, k, v, o and gate, up and embedding, output; where a gated MLP's
down comes first, the file was sorted by name and the order is k, o, q, v and output, embedding. Nor can they tell
whether a square matrix is stored transposed, how rows of a fused projection are cut, gains stored minus one, or heads.
Norms get a role only where they are seen to stand before what they feed. What contradicts itself gets no role, and
nothing is declared exchangeable. Two files of one layout get the same roles, right or wrong; two files of different
layouts may not.
"""

from kinprint.architecture.inference.assembly import infer, inferred_notes
from kinprint.architecture.inference.unnumbered import inferred_names

__all__ = ["infer", "inferred_names", "inferred_notes"]
