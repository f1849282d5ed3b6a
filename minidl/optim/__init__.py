"""Optimisers and learning rate schedules, under PyTorch's names."""

from minidl.optim import lr_scheduler, swa_utils
from minidl.optim.adafactor import Adafactor
from minidl.optim.adagrad import Adadelta, Adagrad
from minidl.optim.adam import Adam, AdamW
from minidl.optim.adam_variants import Adamax, NAdam, RAdam
from minidl.optim.asgd import ASGD
from minidl.optim.lbfgs import LBFGS
from minidl.optim.lion import Lion
from minidl.optim.muon import Muon
from minidl.optim.optimizer import Optimizer
from minidl.optim.rmsprop import RMSprop
from minidl.optim.rprop import Rprop
from minidl.optim.sgd import SGD

__all__ = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "lr_scheduler",
    "swa_utils",
]
