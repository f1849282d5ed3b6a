"""Differentiable operators, one family a file: forward and gradient side by side.

The `__all__` of a family is what users find at the top level of minidl.
"""

from minidl.autograd.engine import register_operators
from minidl.ops.activation import *
from minidl.ops.along import *
from minidl.ops.arithmetic import *
from minidl.ops.arithmetic import add_
from minidl.ops.arrange import *
from minidl.ops.attention import *
from minidl.ops.checkpoint import checkpoint as checkpoint
from minidl.ops.compare import *
from minidl.ops.convert import *
from minidl.ops.convert import cast
from minidl.ops.creation import *
from minidl.ops.ctc import *
from minidl.ops.cumulative import *
from minidl.ops.distance import *
from minidl.ops.embedding import *
from minidl.ops.index import *
from minidl.ops.likelihood import *
from minidl.ops.linalg import *
from minidl.ops.linear import *
from minidl.ops.linear_cross_entropy import *
from minidl.ops.loss import *
from minidl.ops.margin import *
from minidl.ops.matmul import *
from minidl.ops.noise import *
from minidl.ops.norm import *
from minidl.ops.random import *
from minidl.ops.reduce import *
from minidl.ops.reduce import sum_to
from minidl.ops.sampling import *
from minidl.ops.select import *
from minidl.ops.softmax import *
from minidl.ops.sort import *
from minidl.ops.special import *
from minidl.ops.statistics import *
from minidl.ops.transcendental import *
from minidl.ops.views import *

register_operators(add, add_, sum_to, cast)
