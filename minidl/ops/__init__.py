"""Differentiable operators, one family a file: forward and gradient side by side."""

from minidl.autograd.engine import register_operators
from minidl.ops.arithmetic import add, add_, div, mul, neg, sub
from minidl.ops.arrange import cat
from minidl.ops.attention import scaled_dot_product_attention
from minidl.ops.convert import cast, clone
from minidl.ops.index import getitem
from minidl.ops.matmul import linear, matmul
from minidl.ops.random import Generator, dropout, manual_seed
from minidl.ops.reduce import argmax, sum, sum_to
from minidl.ops.select import where
from minidl.ops.softmax import softmax
from minidl.ops.sort import topk
from minidl.ops.views import expand, permute, reshape, transpose, view

register_operators(add, add_, sum_to, cast)
