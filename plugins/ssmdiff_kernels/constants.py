"""Numbers that the kernels share, in double precision."""

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

ATANH = (2.00000000768, 0.66666321641, 0.40024595231, 0.27965157745, 0.28157778363)
"""Of v from 0 to 1/9, the minimax polynomial of 2 atanh(sqrt v) / sqrt v; error 8e-9.

Both kernels take softplus from it: with w = exp(-|x|) and s = w / (2 + w), log(1 + exp(x)) is
max(x, 0) + 2 atanh(s).
"""
