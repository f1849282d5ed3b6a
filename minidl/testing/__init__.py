"""The operator table and what checks it; `gradcheck` and `gradgradcheck` need no extra package.

`strategies` and `runner` import Hypothesis (extra `verify`), so nothing here imports them.
"""

from minidl.testing.gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
